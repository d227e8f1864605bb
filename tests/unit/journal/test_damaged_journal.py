"""Damage in proven bytes is named, stops the start, and changes nothing."""

import os
import shutil
from pathlib import Path

import pytest

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.errors import DamageError, LostEndError
from perstack_stored.journal import entry_format
from perstack_stored.journal.entry_format import EntryType, Record
from perstack_stored.journal.options import JournalOptions
from perstack_stored.journal.segment_names import segment_name
from perstack_stored.journal.writer import JournalWriter
from tests.helpers.datadir import JournalFolder, append, sessions
from tests.unit.journal.recovering import copy, entries, of_records, patch


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
