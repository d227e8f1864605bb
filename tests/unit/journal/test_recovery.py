"""After a kill or a clean stop all acknowledged records and sessions are there."""

import pytest

from perstack_stored.journal.entry_format import EntryType
from tests.helpers.datadir import SESSION_A, SESSION_B, JournalFolder, SimulatedDisk, Stored, append
from tests.unit.journal.recovering import check_works_on, entries, patch


def test_after_a_kill_all_acknowledged_records_and_sessions_are_there(folder: JournalFolder) -> None:
    """A journal dropped without a stop has every batch, and knows each session's numbers and positions."""
    journal = folder.open()
    expected: list[Stored] = []
    for i in range(20):
        journal.append([append(b"a%d" % i, b"b%d" % i, session=SESSION_A, seq=1 + 2 * i)])
        journal.append([append(b"c%d" % i), append(b"d%d" % i, session=SESSION_B, seq=1 + i)])
    expected = folder.read(journal.mark)
    store = journal.store
    del journal
    for _ in range(3):
        journal = folder.open()
        assert journal.store == store
        assert folder.read(journal.mark) == expected
        a, b = folder.sessions.find(SESSION_A), folder.sessions.find(SESSION_B)
        assert a is not None
        assert b is not None
        assert (a.last, b.last) == (40, 20)
        for stored in expected:
            session = {SESSION_A: a, SESSION_B: b}.get(stored.session)
            if session is not None:
                assert session.position_of(stored.seq) == stored.position
                assert session.used_ms == max(s.time_ms for s in expected if s.session == stored.session)
        del journal
    assert folder.open().append([append(b"x")]) == [81]


def test_sessions_survive_many_rotations(folder: JournalFolder) -> None:
    """A session whose stores lie many segments back is known by the snapshot at the head of the last one."""
    journal = folder.open(segment_bytes=4096, first_segment_bytes=4096)
    (first,) = journal.append([append(b"once", session=SESSION_A, seq=1)])
    folder.sessions.open(SESSION_A, 5).last = 1
    folder.sessions.stored(SESSION_A, 1, first, 1)
    for _ in range(60):
        journal.append([append(b"x" * 300)])
    assert len(folder.segments()) > 4
    folder.open()
    session = folder.sessions.find(SESSION_A)
    assert session is not None
    assert session.last == 1
    assert session.position_of(1) == first


@pytest.mark.parametrize("lost", [0, 1, 8, 63, 64])
def test_a_mark_that_never_reached_the_disk_costs_nothing(folder: JournalFolder, lost: int) -> None:
    """After a clean stop whose mark is lost, or partly, all records are there and the journal goes on."""
    journal = folder.open()
    journal.append([append(b"x", session=SESSION_A, seq=1)])
    journal.close()
    patch(folder.segments()[0], journal.mark.offset - lost, bytes(lost))
    check_works_on(folder, [b"x"])


def test_a_mark_that_stood_in_the_page_cache_only_is_no_proof_of_itself(folder: JournalFolder) -> None:
    """The mark of a clean stop, lost after the next start went on after it, must not look like damage."""
    journal = folder.open()
    journal.append([append(b"x")])
    journal.close()
    mark = entries(folder)[-1]
    assert mark.header.type == EntryType.MARK
    journal = folder.open(SimulatedDisk())
    (again, *_) = entries(folder)[-1:]
    assert again.offset == mark.offset  # written again, so that this start's sync covers it
    journal.append([append(b"y")])
    assert folder.payloads(folder.open().mark) == [b"x", b"y"]


def test_a_torn_batch_after_a_mark_is_cut(folder: JournalFolder) -> None:
    """Going on after a clean stop does not make the new batch's torn rest look like damage."""
    folder.open().close()
    journal = folder.open()
    journal.append([append(b"x" * 2000), append(b"y")])
    first, _ = entries(folder)[-2:]
    patch(folder.segments()[0], first.offset, bytes(100))
    check_works_on(folder, [])
