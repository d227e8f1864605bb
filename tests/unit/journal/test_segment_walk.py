"""A walk returns the entries of a segment in order, however they lie in what is read at once."""

import os
from pathlib import Path
from random import Random

import pytest

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.journal import entry_format
from perstack_stored.journal.entry_format import NO_SESSION, EntryFields, Record
from perstack_stored.journal.segment_file import OpenSegment
from perstack_stored.journal.segment_walk import (
    LARGE_BYTES,
    BadEntryError,
    Entry,
    SegmentFile,
    walk,
    walk_some,
)
from perstack_stored.journal.writer import Append
from tests.helpers.datadir import Base

SALT = 77
START = entry_format.SEGMENT_HEADER_BYTES


class Written:
    """A file of entries. `offsets` has where each begins, and where the last one ends."""

    def __init__(self, path: Path, sizes: list[int], damaged: int | None = None) -> None:
        data = bytearray(START)
        self.offsets = [START]
        for number, size in enumerate(sizes):
            payload = bytes([number % 256]) * size
            records = [Record(3, 0, payload)]
            buffers, _ = entry_format.encode_entry(SALT, records, EntryFields(number + 1, 7))
            data += b"".join(buffers)
            self.offsets.append(len(data))
        if damaged is not None:
            data[self.offsets[damaged] + 70] ^= 1
        path.write_bytes(data)
        files = FileSystem()
        self.segment = SegmentFile(OpenSegment(files, os.open(path, os.O_RDONLY)), SALT, 5)

    def close(self) -> None:
        self.segment.file.close()


@pytest.mark.parametrize("read_bytes", [100, 1000, 1 << 17])
@pytest.mark.parametrize("split_large", [False, True])
def test_all_entries_come_in_order(tmp_path: Path, read_bytes: int, split_large: bool) -> None:
    """With those that are longer than what is read at once, and large ones."""
    random = Random(read_bytes)
    sizes = [random.choice((1, 8, 100, 3000)) for _ in range(300)]
    sizes[20] = sizes[21] = LARGE_BYTES + 5
    written = Written(tmp_path / "segment", sizes)
    end = written.offsets[-1]
    found = list(walk(written.segment, START, end, read_bytes=read_bytes, split_large=split_large))
    assert [(entry.segment, entry.offset) for entry in found] == [(5, at) for at in written.offsets[:-1]]
    assert [entry.header.position for entry in found] == list(range(1, len(sizes) + 1))
    for number, (entry, size) in enumerate(zip(found, sizes, strict=True)):
        is_split = split_large and size > LARGE_BYTES
        assert (entry.payload_crc is not None) == is_split
        assert bytes(entry.data[72:]) == (b"" if is_split else bytes([number % 256]) * size)
    written.close()


@pytest.mark.parametrize("damaged", [0, 1, 31, 32, 33, 64, 99])
def test_entries_before_a_bad_one_are_returned(tmp_path: Path, damaged: int) -> None:
    """Then the error names its place."""
    written = Written(tmp_path / "segment", [10] * 100, damaged)
    found: list[Entry] = []
    with pytest.raises(BadEntryError, match="checksum") as error:
        found.extend(walk(written.segment, START, written.offsets[-1]))
    assert len(found) == damaged
    assert error.value.offset == written.offsets[damaged]
    written.close()


@pytest.mark.parametrize("last", [40, 64])
def test_an_entry_that_runs_past_the_end_is_bad(tmp_path: Path, last: int) -> None:
    """Whether its header is whole or not."""
    written = Written(tmp_path / "segment", [10] * 40)
    with pytest.raises(BadEntryError) as error:
        list(walk(written.segment, START, written.offsets[39] + last))
    assert error.value.offset == written.offsets[39]
    written.close()


def test_few_entries_are_tested_ahead(tmp_path: Path) -> None:
    """A caller that wants one does not wait for all that were read."""
    written = Written(tmp_path / "segment", [1] * 100)
    portions = list(walk_some(written.segment, START, written.offsets[-1]))
    assert max(map(len, portions)) <= 32
    assert sum(map(len, portions)) == 100
    written.close()


@pytest.mark.parametrize(
    ("records", "size", "wanted"),
    [(1, 1 << 30, 1), (3, 1 << 30, 3), (40, 1 << 30, 40), (1 << 20, 1, 1), (1 << 20, 1 << 30, 100)],
)
def test_a_slice_of_a_journal_is_bounded(tmp_path: Path, records: int, size: int, wanted: int) -> None:
    """In records and bytes; it ends after the entry that reaches a bound, and the next one goes on there."""
    base = Base(tmp_path / "base")
    for number in range(50):
        base.journal.append([Append(NO_SESSION, 0, [Record(3, 0, b"%d" % number)] * 2)])
    reader, until = base.reader, base.journal.mark
    place, slices = reader.start(), []
    while found := reader.slice(place, until, records, size):
        slices.append(sum(entry.header.count for entry in found))
        place = reader.place_after(found[-1])
    assert slices[0] == wanted + wanted % 2  # each entry has two
    assert sum(slices) == place.position == until.position == 100
