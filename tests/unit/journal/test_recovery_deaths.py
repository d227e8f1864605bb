"""A start that dies at any call changes nothing for the next one."""

import contextlib
from collections.abc import Callable

from tests.helpers.datadir import SESSION_A, Died, JournalFolder, SimulatedDisk, append
from tests.unit.journal.recovering import check_works_on, copy, last_batch, patch


def died_at_each_call(folder: JournalFolder, run: Callable[[JournalFolder, SimulatedDisk], object]) -> int:
    """Run on copies of the folder, dying at each call in turn, and check what is left; how many calls."""
    before = copy(folder, "before")
    expected = before.payloads(before.open().mark)
    calls = 0
    while True:
        for cut_power in (False, True):
            crashed = copy(folder, "crashed")
            disk = SimulatedDisk(seed=calls, dies_at=calls)
            try:
                run(crashed, disk)
            except Died:
                died = True
            else:
                died = False
            if cut_power:
                disk.cut_power()
            found = crashed.payloads(crashed.open(first_segment_bytes=4096).mark)
            assert found[: len(expected)] == expected, calls
            assert all(payload.startswith(b"tried") for payload in found[len(expected) :])
            check_works_on(crashed, found)
        if not died:
            return calls
        calls += 1


def test_a_crash_at_any_call_of_a_recovery_changes_nothing(folder: JournalFolder) -> None:
    """However far a recovery came before it died, the next one finds the same records."""
    batch = last_batch(folder, [append(b"one", session=SESSION_A, seq=1), append(b"two"), append(b"three")])
    patch(folder.segments()[0], batch[2].offset, b"\xff" * 8)
    calls = died_at_each_call(folder, lambda crashed, disk: crashed.open(disk, first_segment_bytes=4096))
    assert calls > 10


def test_a_crash_at_any_call_of_a_resumption_changes_nothing(folder: JournalFolder) -> None:
    """The start after a clean stop may die at any call as well."""
    journal = folder.open()
    journal.append([append(b"one")])
    journal.close()

    def run(crashed: JournalFolder, disk: SimulatedDisk) -> None:
        again = crashed.open(disk)
        again.append([append(b"tried")])
        again.close()

    assert died_at_each_call(folder, run) > 5


def test_a_crash_at_any_call_of_a_rotation_loses_nothing(folder: JournalFolder) -> None:
    """Whenever the process dies while it goes on in the next segment, what was acknowledged is there."""
    journal = folder.open(first_segment_bytes=4096, segment_bytes=4096)
    for i in range(10):
        journal.append([append(b"%d" % i * 300, session=SESSION_A, seq=i + 1)])
    assert len(folder.segments()) == 1

    def run(crashed: JournalFolder, disk: SimulatedDisk) -> None:
        again = crashed.open(disk, first_segment_bytes=4096, segment_bytes=4096)
        for i in range(3):
            again.append([append(b"tried %d" % i * 200)])
        assert len(crashed.segments()) >= 3

    assert died_at_each_call(folder, run) > 20


def test_crashes_one_after_the_other_lose_nothing(folder: JournalFolder) -> None:
    """A kept batch survives recoveries that die and power cuts between them, time after time."""
    journal = folder.open(first_segment_bytes=4096)
    journal.append([append(b"proven")])
    journal.append([append(b"one", session=SESSION_A, seq=1), append(b"two", b"2", session=SESSION_A, seq=2)])
    for round_ in range(40):
        disk = SimulatedDisk(seed=round_, dies_at=round_ % 22)
        with contextlib.suppress(Died):
            folder.open(disk, first_segment_bytes=4096)
        disk.cut_power()
    journal = folder.open(first_segment_bytes=4096)
    assert folder.payloads(journal.mark) == [b"proven", b"one", b"two", b"2"]
    session = folder.sessions.find(SESSION_A)
    assert session is not None
    assert session.last == 3
    assert [session.position_of(seq) for seq in (1, 2, 3, 4)] == [2, 3, 4, None]
