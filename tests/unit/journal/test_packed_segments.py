"""Packed segments: the same logical bytes, and damage that is named and costs a block."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.errors import NewerFormatError
from perstack_stored.journal import entry_format, packed_format, packing
from perstack_stored.journal.chain import Chain
from perstack_stored.journal.entry_format import SEGMENT_HEADER_BYTES, NotAnEntryError
from perstack_stored.journal.segment_file import BlockCache, OpenSegment, PackedSegment, segment_of
from perstack_stored.model.checksum import crc32c
from tests.helpers.datadir import JournalFolder, append
from tests.helpers.packed import pack_all, pack_segment

BLOCK_BYTES = 1024
TABLE_START = SEGMENT_HEADER_BYTES
BLOCK_SIZE, BLOCKS, LOGICAL_SIZE = range(3)


@pytest.fixture
def folder(tmp_path: Path) -> JournalFolder:
    """A journal of two segments."""
    folder = JournalFolder(tmp_path / "journal")
    journal = folder.open(segment_bytes=1 << 13, first_segment_bytes=1 << 13)
    random = Random(7)
    for number in range(60):
        text = b"the same words in each record " * 5 if number % 3 else random.randbytes(150)
        journal.append([append(b"%d " % number + text)])
    journal.close()
    return folder


def logical(folder: JournalFolder, number: int = 1) -> bytes:
    """The bytes of a segment up to its logical end."""
    chain = Chain(FileSystem(), folder.fd)
    try:
        end = chain.end_of(number)
        assert end is not None
        return chain.open(number).read(end, 0)
    finally:
        chain.close()


def opened(path: Path, data: bytes | None = None) -> OpenSegment:
    """A segment file, with other bytes if they are given."""
    if data is not None:
        path.write_bytes(data)
    return segment_of(FileSystem(), os.open(path, os.O_RDONLY))


def test_a_packed_segment_reads_like_the_plain_one_at_each_place(folder: JournalFolder) -> None:
    """Any piece of it has the same bytes, and all records are read."""
    mark = folder.open().mark
    before, plain = folder.payloads(mark), logical(folder)
    path = pack_segment(folder.path, 1, BLOCK_BYTES)
    assert path.stat().st_size < len(plain)
    file = opened(path)
    assert file.is_packed
    assert file.size() == len(plain)
    assert list(file.bad_places()) == []
    random = Random(1)
    for _ in range(500):
        start = random.randrange(len(plain) + 50)
        length = random.choice((1, 63, 64, BLOCK_BYTES, 3 * BLOCK_BYTES, len(plain)))
        assert file.read(length, start) == plain[start : start + length]
    assert folder.payloads(mark) == before


def test_a_reader_that_is_open_goes_on_while_segments_are_packed(folder: JournalFolder) -> None:
    """It reads the old file until it lets go of it, and then the packed one."""
    journal = folder.open()
    reader = folder.reader()
    first = next(reader.entries(reader.start(), journal.mark))
    old = reader.chain.open(1)
    pack_all(folder.path, BLOCK_BYTES)
    assert next(reader.entries(reader.start(), journal.mark)).data == first.data
    assert reader.chain.open(1) is old
    reader.chain.drop_replaced()
    assert reader.chain.open(1).is_packed
    assert bytes(next(reader.entries(reader.start(), journal.mark)).data) == bytes(first.data)
    reader.close()


def test_a_file_that_another_thread_lets_go_of_closes_with_its_last_reader(folder: JournalFolder) -> None:
    """And one that nobody let go of does not: its number may be another file's by then."""
    journal = folder.open()
    reader = folder.reader()
    old, kept = reader.chain.open(1), reader.chain.open(journal.mark.segment)
    fd, kept_fd = old.fd, kept.fd
    pack_all(folder.path, BLOCK_BYTES)
    reader.chain.drop_replaced(closes=False)
    assert old.read(4, 0)
    del old
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(fd)
    reader.chain._open.clear()
    del kept
    os.close(kept_fd)


def test_an_older_version_refuses_a_packed_segment(folder: JournalFolder) -> None:
    """Its header is of a version that it does not know."""
    head = pack_segment(folder.path, 1).read_bytes()[:SEGMENT_HEADER_BYTES]
    with pytest.raises(NewerFormatError):
        entry_format.decode_segment_header(head)


def test_what_zstd_can_not_shorten_is_stored_as_it_is(folder: JournalFolder, tmp_path: Path) -> None:
    """Random bytes take no more room than they have."""
    data = Random(3).randbytes(5000)
    assert packed_format.pack_block(data, packed_format.compressor()) == data
    block = packed_format.Block(0, len(data), crc32c(data))
    assert packed_format.unpack_block(data, block, len(data)) == data


def damaged_versions(data: bytes) -> Iterator[tuple[str, bytes]]:
    """A packed file with a flipped bit in each byte of header and table and some of the blocks, and cut."""
    table = packed_format.table_bytes(packed_format.blocks_stated(data))
    for place in (*range(table), *range(table, len(data), 23)):
        bad = bytearray(data)
        bad[place] ^= 1 << place % 8
        yield f"flipped at {place}", bytes(bad)
    for size in (*range(0, table, 5), *range(table, len(data), 101)):
        yield f"cut at {size}", data[:size]


def test_each_damaged_byte_is_named_and_costs_at_most_its_block(folder: JournalFolder) -> None:
    """A damaged file never reads as other records, nor stops the reader."""
    plain = logical(folder)
    path = pack_segment(folder.path, 1, BLOCK_BYTES)
    data = path.read_bytes()
    table = packed_format.table_bytes(packed_format.blocks_of(len(plain), BLOCK_BYTES))
    geometry = range(TABLE_START, TABLE_START + struct.calcsize("<IIQ"))
    for what, bad in damaged_versions(data):
        file = opened(path, bad)
        found = file.read(len(plain), 0)
        places = list(file.bad_places())
        try:
            entry_format.decode_segment_header(file.read(SEGMENT_HEADER_BYTES, 0))
        except NotAnEntryError:
            places.append(None)  # type: ignore[arg-type]  # `check` names the header
        assert places, what
        wrong = [
            start
            for start in range(0, len(found), BLOCK_BYTES)
            if found[start : start + BLOCK_BYTES] != plain[start : start + BLOCK_BYTES]
        ]
        for start in wrong:
            rest = found[start : start + BLOCK_BYTES]
            assert not (rest[SEGMENT_HEADER_BYTES:] if not start else rest).strip(b"\0"), what
        place = int(what.rpartition(" ")[2])
        if what.startswith("flipped") and place not in geometry:
            assert len(found) == len(plain), what
            assert len(wrong) <= 1, what
            assert not (wrong and place < SEGMENT_HEADER_BYTES), what
        assert table < len(data)


def test_a_table_with_sizes_that_can_not_be_is_refused(folder: JournalFolder) -> None:
    """No count or size of a damaged table takes memory or time."""
    data = pack_segment(folder.path, 1, BLOCK_BYTES).read_bytes()
    fields = struct.unpack_from("<IIQ", data, TABLE_START)
    for field, values in (
        (BLOCK_SIZE, (0, 2**32 - 1)),
        (BLOCKS, (0, 2**32 - 1)),
        (LOGICAL_SIZE, (0, 2**64 - 1)),
    ):
        for value in values:
            sizes = list(fields)
            sizes[field] = value
            bad = data[:TABLE_START] + struct.pack("<IIQ", *sizes) + data[TABLE_START + 16 :]
            file = opened(folder.path / "bad", bad)
            assert isinstance(file, PackedSegment)
            assert file.read(1 << 20, SEGMENT_HEADER_BYTES) == b""
            assert len(list(file.bad_places())) == 1


def test_a_frame_that_states_another_size_is_refused(folder: JournalFolder) -> None:
    """The memory for a block is that of the table, whatever the frame says."""
    frame = packed_format.pack_block(bytes(1 << 20), packed_format.compressor())
    block = packed_format.Block(0, len(frame), crc32c(frame))
    assert packed_format.unpack_block(frame, block, 1 << 20) == bytes(1 << 20)
    for wrong in (1 << 10, 1 << 24):
        with pytest.raises(packed_format.BadBlockError):
            packed_format.unpack_block(frame, block, wrong)


def test_large_blocks_are_taken_where_they_help_much(tmp_path: Path) -> None:
    """An image that is carried from one checkpoint to the next, and text."""
    image = Random(5).randbytes(600 << 10)
    for name, data, expected in (
        ("image", image * 20, packed_format.LARGE_BLOCK_BYTES),
        ("text", b"words and more words, " * (1 << 20), packed_format.BLOCK_BYTES),
        ("short", b"words " * 1000, packed_format.BLOCK_BYTES),
    ):
        path = tmp_path / name
        path.write_bytes(data)
        file = OpenSegment(FileSystem(), os.open(path, os.O_RDONLY))
        assert packing.choose_block_bytes(file, len(data)) == expected, name


def test_what_differs_from_the_plain_segment_is_not_taken(folder: JournalFolder) -> None:
    """The comparison finds each byte that was not read back as it was packed."""
    plain = folder.path / "plain"
    plain.write_bytes(logical(folder))
    size = plain.stat().st_size
    path = pack_segment(folder.path, 1, BLOCK_BYTES)
    data = path.read_bytes()
    source = opened(plain)
    packing.compare(FileSystem(), fd := os.open(path, os.O_RDONLY), source, size, lambda _: None)
    os.close(fd)
    for what, bad in damaged_versions(data):
        path.write_bytes(bad)
        fd = os.open(path, os.O_RDONLY)
        try:
            with pytest.raises(packing.PackingError):
                packing.compare(FileSystem(), fd, source, size, lambda _: None)
        except pytest.fail.Exception:
            pytest.fail(f"not found: {what}")
        finally:
            os.close(fd)


def test_the_cache_keeps_to_its_bound() -> None:
    """The blocks that were used last stay."""
    cache = BlockCache(3000)
    for number in range(10):
        cache.put((number,), bytes(1000))
        assert cache.get((0,)) is not None
        assert cache.bytes <= 3000
    assert cache.get((9,)) is not None
    assert cache.get((1,)) is None
    cache.put((99,), bytes(3001))
    assert cache.get((99,)) is None
