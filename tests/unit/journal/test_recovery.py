"""What a start makes of what the last stop left: torn tails cut, damage refused, no zombies."""

import contextlib
import os
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.errors import DamageError, LostEndError
from perstack_stored.journal import entry_format
from perstack_stored.journal.entry_format import EntryType, Record
from perstack_stored.journal.options import JournalOptions
from perstack_stored.journal.segment_names import segment_name
from perstack_stored.journal.segment_walk import BadEntryError, Entry, walk
from perstack_stored.journal.writer import Append, JournalWriter
from tests.helpers.datadir import (
    SESSION_A,
    SESSION_B,
    Died,
    JournalFolder,
    SimulatedDisk,
    Stored,
    append,
    sessions,
)

PROVEN = [b"first", b"second"]


@pytest.fixture
def folder(tmp_path: Path) -> JournalFolder:
    return JournalFolder(tmp_path / "journal")


def copy(folder: JournalFolder, name: str) -> JournalFolder:
    """The same files in another folder, as after a crash."""
    target = folder.path.parent / name
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(folder.path, target)
    return JournalFolder(target)


def entries(folder: JournalFolder, number: int = 1) -> list[Entry]:
    """All valid entries from the head of a segment on."""
    reader = folder.reader()
    found: list[Entry] = []
    with contextlib.suppress(BadEntryError):
        found.extend(walk(reader.chain.file(number), 64, reader.chain.open(number).size()))
    reader.close()
    return found


def of_records(folder: JournalFolder) -> list[Entry]:
    """The same, without sessions and marks."""
    return [entry for entry in entries(folder) if entry.header.type == EntryType.RECORDS]


def patch(path: Path, offset: int, data: bytes) -> None:
    """Overwrite some bytes of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def last_batch(folder: JournalFolder, items: list[Append], *, segment_bytes: int = 4096) -> list[Entry]:
    """A journal of two proven entries and a last batch of `items`; the entries of that batch."""
    journal = folder.open(first_segment_bytes=segment_bytes)
    for payload in PROVEN:
        journal.append([append(payload)])
    journal.append(items)
    return entries(folder)[-len(items) :]


def check_works_on(folder: JournalFolder, expected: list[bytes]) -> None:
    """New records stand after what was recovered, through all stops, and nothing cut comes back."""
    journal = folder.open(first_segment_bytes=4096)
    assert folder.payloads(journal.mark) == expected
    (first,) = journal.append([append(b"new")])
    assert first == len(expected) + 1
    folder.open(first_segment_bytes=4096).close()
    journal = folder.open(first_segment_bytes=4096)
    assert journal.append([append(b"newer")]) == [first + 1]
    assert folder.payloads(journal.mark) == [*expected, b"new", b"newer"]
    assert [s.position for s in folder.read(journal.mark)] == list(range(1, first + 2))


# --- kills and clean stops -------------------------------------------------------------------------


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


# --- torn tails ------------------------------------------------------------------------------------


def test_a_tail_cut_at_any_byte_leaves_whole_entries(folder: JournalFolder) -> None:
    """Wherever the file ends within the unproven batch, a prefix of whole entries is left."""
    items = [
        append(b"one", session=SESSION_A, seq=1),
        append(b"two", b"2", session=SESSION_A, seq=2),
        append(b"3"),
    ]
    batch = last_batch(folder, items)
    path = folder.segments()[0]
    end = batch[-1].offset + entry_format.padded(batch[-1].header.length)
    for cut in range(batch[0].offset, end + 1, 3):
        torn = copy(folder, "torn")
        os.truncate(torn.path / path.name, cut)
        journal = torn.open(first_segment_bytes=4096)
        whole = sum(entry.offset + entry.header.length <= cut for entry in batch)
        expected = PROVEN + [[b"one"], [b"one", b"two", b"2"], [b"one", b"two", b"2", b"3"], []][whole - 1]
        assert torn.payloads(journal.mark) == expected, cut
        session = torn.sessions.find(SESSION_A)
        assert (session.last if session else 0) == [0, 1, 3, 3][whole]


@pytest.mark.parametrize("garbage", [b"\0", b"\xff", b"P"])
def test_a_tail_overwritten_from_any_byte_leaves_whole_entries(folder: JournalFolder, garbage: bytes) -> None:
    """From wherever the unproven batch turns to zeros or garbage, what is whole before it is kept."""
    batch = last_batch(folder, [append(b"one" * 9), append(b"two" * 9), append(b"three")])
    path = folder.segments()[0]
    end = batch[-1].offset + entry_format.padded(batch[-1].header.length)
    for start in range(batch[0].offset, end, 5):
        torn = copy(folder, "torn")
        patch(torn.path / path.name, start, garbage * (end - start))
        journal = torn.open(first_segment_bytes=4096)
        found = torn.payloads(journal.mark)
        whole = sum(entry.offset + entry.header.length <= start for entry in batch)
        assert found == PROVEN + [b"one" * 9, b"two" * 9, b"three"][:whole], start


def test_any_single_byte_of_the_unproven_batch_may_be_bad(folder: JournalFolder) -> None:
    """A flipped byte anywhere in the unproven batch cuts it there; it is never taken for damage."""
    batch = last_batch(folder, [append(b"one"), append(b"two"), append(b"three")])
    path = folder.segments()[0]
    for entry_index, entry in enumerate(batch):
        for offset in range(entry.offset, entry.offset + entry.header.length, 3):
            torn = copy(folder, "torn")
            byte = (torn.path / path.name).read_bytes()[offset]
            patch(torn.path / path.name, offset, bytes([byte ^ 0x41]))
            journal = torn.open(first_segment_bytes=4096)
            assert torn.payloads(journal.mark) == PROVEN + [b"one", b"two", b"three"][:entry_index], offset
            assert journal.recovered.torn_bytes > 0


@pytest.mark.parametrize("garbled", list(product([0, 1, 2], repeat=3)))
def test_any_subset_of_an_unsynced_batch_may_be_lost(folder: JournalFolder, garbled: tuple[int, ...]) -> None:
    """Pages reach the disk in any order: the whole beginning is kept, and what was cut never comes back."""
    payloads = [b"one" * 30, b"two" * 30, b"three" * 30]
    batch = last_batch(folder, [append(payload) for payload in payloads])
    for entry, how in zip(batch, garbled, strict=True):
        size = entry_format.padded(entry.header.length)
        if how:
            patch(folder.segments()[0], entry.offset, bytes(size) if how == 1 else b"\xa5" * size)
    kept = next((i for i, how in enumerate(garbled) if how), 3)
    check_works_on(folder, PROVEN + payloads[:kept])
    assert b"three" * 30 in folder.segments()[0].read_bytes() or garbled[2]  # nothing was erased


def test_a_cut_record_stays_void_when_its_place_is_reached_again(folder: JournalFolder) -> None:
    """A valid entry after a torn one is not read when new entries fill the file up to where it stands."""
    payloads = [b"a" * 40, b"zombie-1" * 5, b"zombie-2" * 5]
    batch = last_batch(folder, [append(payload) for payload in payloads])
    patch(folder.segments()[0], batch[0].offset, bytes(entry_format.padded(batch[0].header.length)))
    expected = list(PROVEN)
    for i in range(30):
        journal = folder.open(first_segment_bytes=4096)
        payload = b"%040d" % i  # as large as what was cut
        journal.append([append(payload)])
        expected.append(payload)
        if i % 3 == 0:
            journal.close()
        assert folder.payloads(journal.mark) == expected


def test_a_cut_record_after_a_clean_stop_stays_void(folder: JournalFolder) -> None:
    """Where nothing has to be kept, the torn rest isn't written over, or it would come back."""
    folder.open().close()
    journal = folder.open()
    journal.append([append(b"a" * 40), append(b"zombie")])
    first, _ = entries(folder)[-2:]
    patch(folder.segments()[0], first.offset, bytes(entry_format.padded(first.header.length)))
    journal = folder.open(first_segment_bytes=4096)
    assert journal.append([append(b"b" * 40)]) == [1]
    assert folder.payloads(folder.open().mark) == [b"b" * 40]


def test_a_payload_that_looks_like_an_entry_is_no_proof(folder: JournalFolder) -> None:
    """Bytes of another journal's entry inside a torn payload don't make a torn tail look like damage."""
    buffers, _ = entry_format.encode_entry(1, [Record(3, 0, b"x")], entry_format.EntryFields(9, 1, 1 << 40))
    forged = b"".join(buffers)
    batch = last_batch(folder, [append(forged * 5), append(b"tail")])
    patch(folder.segments()[0], batch[0].offset, bytes(8))
    check_works_on(folder, PROVEN)


def test_a_torn_payload_full_of_magic_numbers_is_cut_in_time(folder: JournalFolder) -> None:
    """A hostile value can't make the search after a torn place take for ever."""
    hostile = (entry_format.ENTRY_MAGIC + bytes(4) + (100).to_bytes(4, "little") + bytes(4)) * 60_000
    batch = last_batch(folder, [append(hostile)], segment_bytes=1 << 20)
    patch(folder.segments()[0], batch[0].offset, bytes(8))
    check_works_on(folder, PROVEN)


def test_recovering_returns_what_it_found(folder: JournalFolder) -> None:
    """Kept entries, torn bytes and the place of the cut are returned, for the log."""
    batch = last_batch(folder, [append(b"one"), append(b"two")])
    patch(folder.segments()[0], batch[1].offset, b"\xff" * 8)
    journal = folder.open()
    found = journal.recovered
    assert [[bytes(r.payload) for r in kept.records] for kept in found.kept] == [[b"one"]]
    assert found.torn_bytes == batch[1].header.length
    assert found.end == batch[1].offset
    assert found.position == 3


def test_opening_is_fast_for_a_full_segment(folder: JournalFolder) -> None:
    """A segment of many small entries in large unsynced batches is recovered in time linear in its size."""
    journal = folder.open(first_segment_bytes=1 << 20)
    for _ in range(4):
        journal.append([append(b"x", session=SESSION_A, seq=i + 1) for i in range(2000)])
    assert folder.open().mark.position == 8000


# --- damage ----------------------------------------------------------------------------------------


def assert_damaged(folder: JournalFolder, segment: int, offset: int, position: int) -> None:
    before = folder.snapshot()
    with pytest.raises(DamageError) as caught:
        folder.open()
    error = caught.value
    assert (error.segment, error.offset, error.position) == (segment_name(segment), offset, position)
    assert segment_name(segment) in str(error)
    assert str(offset) in str(error)
    assert str(position) in str(error)
    assert folder.snapshot() == before


def test_damage_in_proven_bytes_stops_the_start_and_changes_nothing(folder: JournalFolder) -> None:
    """A flipped byte anywhere before the proven offset is named by segment, offset and position."""
    journal = folder.open()
    for i in range(12):
        journal.append([append(b"payload %d" % i * 7, b"more")])
    found = entries(folder)
    proven = found[-1].header.synced
    path = folder.segments()[0]
    for offset in range(64, proven, 97):
        entry = next(e for e in reversed(found) if e.offset <= offset)
        if offset >= entry.offset + entry.header.length:
            continue  # padding
        damaged = copy(folder, "damaged")
        byte = (damaged.path / path.name).read_bytes()[offset]
        patch(damaged.path / path.name, offset, bytes([byte ^ 0x20]))
        is_mark = entry.header.type == EntryType.MARK
        assert_damaged(damaged, 1, entry.offset, entry.header.position + is_mark)


@pytest.mark.parametrize("clean", [False, True])
def test_a_proven_segment_that_is_cut_is_damage(folder: JournalFolder, clean: bool) -> None:
    """A file that is shorter than what its own entries prove is not taken for a torn tail."""
    journal = folder.open()
    journal.append([append(b"a")])
    journal.append([append(b"b")])
    if clean:
        journal.close()
    head, epoch, first, *_ = entries(folder)
    assert head.header.type == EntryType.SESSIONS
    os.truncate(folder.segments()[0], first.offset)
    if clean:
        # What proved it was cut as well: nothing is left that could tell. The header proves its own head.
        assert folder.open().mark.position == 0
        os.truncate(folder.segments()[0], epoch.offset - 8)
    else:
        os.truncate(folder.segments()[0], head.offset + 8)
    damaged = copy(folder, "damaged")
    for path in damaged.segments()[1:]:
        path.unlink()
    assert_damaged(damaged, 1, head.offset, 1)


@pytest.mark.parametrize("left", ["the header", "header and sessions"])
def test_a_segment_cut_between_two_entries_is_damage(folder: JournalFolder, left: str) -> None:
    """A file that ends where an entry ends is damage: its header says what was there when it was begun."""
    folder.open().append([append(b"kept")])
    folder.open()
    head, _, kept, _ = entries(folder, 2)
    patch(folder.segments()[1], kept.offset + 70, b"\xff")
    damaged = copy(folder, "flipped")
    assert_damaged(damaged, 2, kept.offset, 1)
    offset = head.offset if left == "the header" else kept.offset
    os.truncate(folder.segments()[1], offset)
    assert_damaged(folder, 2, offset, 1)


def test_zeros_in_proven_bytes_are_damage(folder: JournalFolder) -> None:
    """A lost block of zeros before the proven offset is damage, though it looks like the end."""
    journal = folder.open()
    for i in range(10):
        journal.append([append(b"payload %d" % i * 10)])
    third = of_records(folder)[2]
    patch(folder.segments()[0], third.offset, bytes(512))
    assert_damaged(folder, 1, third.offset, 3)


def test_a_damaged_length_does_not_hide_the_proof_after_it(folder: JournalFolder) -> None:
    """A length that points anywhere is damage still, for the entries after it are searched for."""
    journal = folder.open()
    for i in range(10):
        journal.append([append(b"payload %d" % i)])
    second = of_records(folder)[1]
    for length in (0, 64, 80, 1 << 20, 0xFFFFFFFF):
        damaged = copy(folder, "damaged")
        patch(damaged.segments()[0], second.offset + 8, length.to_bytes(4, "little"))
        assert_damaged(damaged, 1, second.offset, 2)


def rotated(folder: JournalFolder) -> JournalWriter:
    journal = folder.open(segment_bytes=4096, first_segment_bytes=4096)
    for _ in range(40):
        journal.append([append(b"x" * 300)])
    assert len(folder.segments()) > 3
    return journal


@pytest.mark.parametrize("number", [1, 2, -1])
def test_a_damaged_segment_header_stops_the_start(folder: JournalFolder, number: int) -> None:
    """The header of any segment, first, middle or last, is checked at every start."""
    rotated(folder)
    path = folder.segments()[number if number < 0 else number - 1]
    patch(path, 40, b"\xff")
    assert_damaged(folder, int(path.stem), 0, 0)


def test_a_missing_segment_stops_the_start(folder: JournalFolder) -> None:
    """A gap in the row of segments is named."""
    rotated(folder)
    folder.segments()[1].unlink()
    assert_damaged(folder, 2, 0, 0)


def test_a_journal_that_lost_its_last_segment_is_refused(folder: JournalFolder) -> None:
    """When others have seen later positions than the journal has, positions would be given twice."""
    position = rotated(folder).mark.position
    folder.segments()[-1].unlink()
    before = folder.snapshot()

    def start(known: int) -> JournalWriter:
        return JournalWriter(
            FileSystem(),
            folder.fd,
            sessions(),
            JournalOptions(4096, 4096, ahead=False),
            known_position=lambda _store: known,
        )

    with pytest.raises(LostEndError, match=str(position)):
        start(position)
    assert folder.snapshot() == before
    left = start(0).mark.position
    assert left < position
    assert start(left).mark.position == left


def test_a_segment_under_another_number_stops_the_start(folder: JournalFolder) -> None:
    """A segment that was renamed by hand is not read in the wrong place."""
    rotated(folder)
    last = folder.segments()[-1]
    number = int(last.stem)
    shutil.copy(last, folder.path / segment_name(number + 1))
    before = folder.snapshot()
    with pytest.raises(DamageError, match="it says it is number"):
        folder.open()
    assert folder.snapshot() == before


def test_a_segment_of_another_store_stops_the_start(folder: JournalFolder, tmp_path: Path) -> None:
    """A segment that was copied from another base is refused."""
    rotated(folder)
    other = JournalFolder(tmp_path / "other")
    rotated(other)
    shutil.copy(other.segments()[-1], folder.segments()[-1])
    with pytest.raises(DamageError, match="another store"):
        folder.open()


def test_an_older_copy_of_the_last_segment_is_damage(folder: JournalFolder) -> None:
    """Entries that don't stand at the next position are not taken up."""
    journal = folder.open()
    journal.append([append(b"a")])
    entry = entries(folder)[-1]
    path = folder.segments()[0]
    salt = folder.reader().chain.headers[1].salt
    buffers, _ = entry_format.encode_entry(salt, [Record(3, 0, b"b")], entry_format.EntryFields(5, 1, 64))
    patch(path, entry.offset + entry_format.padded(entry.header.length), b"".join(buffers))
    with pytest.raises(DamageError, match="position 5 stands there"):
        folder.open()


def test_damage_in_an_earlier_segment_is_found_when_it_is_read(folder: JournalFolder) -> None:
    """A start looks at the last segment only; a reader of the damaged place names it."""
    journal = rotated(folder)
    patch(folder.segments()[1], 2000, b"\xff\xff\xff")
    with pytest.raises(DamageError) as caught:
        folder.read(journal.mark)
    assert caught.value.segment == segment_name(2)
    assert caught.value.offset <= 2000
    assert caught.value.position > 1


# --- a process that dies at any call ---------------------------------------------------------------


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
