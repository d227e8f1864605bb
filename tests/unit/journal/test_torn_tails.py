"""A torn tail is cut, and what was cut never comes back."""

import os
from itertools import product

import pytest

from perstack_stored.journal import entry_format
from perstack_stored.journal.entry_format import Record
from tests.helpers.datadir import SESSION_A, JournalFolder, append
from tests.unit.journal.recovering import PROVEN, check_works_on, copy, entries, last_batch, patch


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
