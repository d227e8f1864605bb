"""Packs a sealed segment into another file, and compares the result with it byte for byte.

Memory is bounded by one block and what zstd needs for it.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.model.checksum import crc32c

from . import entry_format, packed_format
from .packed_format import BLOCK_BYTES, LARGE_BLOCK_BYTES, BadBlockError, Block
from .segment_file import OpenSegment, PackedSegment, segment_of
from .segment_walk import BadEntryError, SegmentFile, walk

# Large blocks are taken where they make the file at least three times smaller: a read of a small value
# unpacks a whole block. Measured on 8 MiB: text of runs 2.0 times, an image carried by checkpoints 6.3 times.
_WORTH = 3

OnBytes = Callable[[int], None]


class PackingError(Exception):
    """What was written is not what was read, or can't be read. The message says where."""


class Logical(NamedTuple):
    """What is packed: its header, its logical bytes, and those of each block but the last."""

    header: entry_format.SegmentHeader
    size: int
    block_bytes: int


def end_to_pack(source: OpenSegment, number: int, end: int) -> int:
    """The offset up to which a segment has to be packed: its logical end, or that of entries after it.

    Entries that recovery kept stand there, and again in the next segment. The index may name these first
    copies, since it took them up before the crash.

    Raises:
        PackingError: the segment has no valid header.
        OSError: it can't be read.
    """
    header = header_of(source)
    try:
        for entry in walk(SegmentFile(source, header.salt, number), end, source.size()):
            end = entry.offset + entry_format.padded(entry.header.length)
    except BadEntryError:
        pass  # zeros, what a crash tore, or bytes of an older segment
    return end


def choose_block_bytes(source: OpenSegment, end: int) -> int:
    """The size of blocks for a segment: large ones only where they help much, as with images.

    One large block from the middle of the segment is packed in both ways.
    """
    if end <= LARGE_BLOCK_BYTES:
        return BLOCK_BYTES
    start = (end - LARGE_BLOCK_BYTES) // 2
    using = packed_format.compressor()
    sample = memoryview(source.read(LARGE_BLOCK_BYTES, start))
    large = len(packed_format.pack_block(sample, using))
    small = sum(
        len(packed_format.pack_block(sample[at : at + BLOCK_BYTES], using))
        for at in range(0, len(sample), BLOCK_BYTES)
    )
    return LARGE_BLOCK_BYTES if small >= _WORTH * large else BLOCK_BYTES


def pack_into(
    files: FileSystem, fd: int, source: OpenSegment, end: int, block_bytes: int, on_bytes: OnBytes
) -> int:
    """Write the first `end` bytes of a segment, packed, into an empty file. It is not synced.

    Args:
        files: the file system.
        fd: the new file.
        source: the segment.
        end: where to stop, see `end_to_pack`.
        block_bytes: of each block but the last.
        on_bytes: called after each block with its logical bytes.

    Returns:
        bytes of the new file.

    Raises:
        PackingError: the segment has fewer bytes, or no valid header.
        OSError: a file can't be read or written.
    """
    logical = Logical(header_of(source), end, block_bytes)
    return pack_pieces(files, fd, logical, _pieces(source, end, block_bytes), on_bytes)


def pack_pieces(
    files: FileSystem, fd: int, logical: Logical, pieces: Iterable[bytes], on_bytes: OnBytes
) -> int:
    """Write pieces of a block each into an empty file; returns its bytes. It is not synced."""
    header, size, block_bytes = logical
    start = packed_format.table_bytes(packed_format.blocks_of(size, block_bytes))
    using = packed_format.compressor()
    blocks: list[Block] = []
    for data in pieces:
        stored = packed_format.pack_block(data, using)
        offset = packed_format.place_after(blocks, start)
        files.write(fd, [stored], offset)
        blocks.append(Block(offset, len(stored), crc32c(stored)))
        on_bytes(len(data))
    files.write(fd, [packed_format.encode_table(header, block_bytes, size, blocks)], 0)
    return packed_format.place_after(blocks, start)


def compare(files: FileSystem, fd: int, source: OpenSegment, end: int, on_bytes: OnBytes) -> None:
    """Compare a packed file, as it is on disk, with the segment that was packed.

    Args:
        files: the file system.
        fd: the packed file, synced. It stays open.
        source: the segment.
        end: its logical end.
        on_bytes: called after each block with its logical bytes.

    Raises:
        PackingError: they differ.
        OSError: a file can't be read.
    """
    files.forget_cached(fd)
    packed = segment_of(files, fd)
    try:
        if not isinstance(packed, PackedSegment) or packed.table is None or not packed.table.is_sound:
            raise PackingError("its table can't be read back")
        if packed.size() != end:
            raise PackingError(f"it has {packed.size()} logical bytes, not {end}")
        head = entry_format.SEGMENT_HEADER_BYTES
        if packed.read(head, 0) != source.read(head, 0):
            raise PackingError("its header differs")
        for number, data in enumerate(_pieces(source, end, packed.table.block_bytes)):
            try:
                block = packed.unpack(number)
            except BadBlockError as error:
                raise PackingError(f"block {number}: {error}") from None
            if block != data:
                raise PackingError(f"block {number} differs")
            on_bytes(len(data))
    finally:
        packed.fd = -1  # the caller's


def header_of(source: OpenSegment) -> entry_format.SegmentHeader:
    """The header of a segment; raises PackingError if it has no valid one."""
    try:
        return entry_format.decode_segment_header(source.read(entry_format.SEGMENT_HEADER_BYTES, 0))
    except entry_format.NotAnEntryError as error:
        raise PackingError(str(error)) from None


def _pieces(source: OpenSegment, end: int, block_bytes: int) -> Iterator[bytes]:
    for offset in range(0, end, block_bytes):
        data = source.read(min(block_bytes, end - offset), offset)
        if len(data) != min(block_bytes, end - offset):
            raise PackingError(f"the segment is shorter than {end} bytes")
        yield data
