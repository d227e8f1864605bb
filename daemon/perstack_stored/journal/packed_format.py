"""Layout of a packed segment, as proto/journal.md draws it: header, table of blocks, blocks. No I/O here.

A sealed segment up to its logical end, cut into blocks of equal size; each is a zstd frame, or the bytes
themselves where zstd does not help. A table says where each block stands, and its checksum.
"""

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from perstack_stored.errors import NewerFormatError
from perstack_stored.model.checksum import crc32c

from . import entry_format
from .entry_format import NotAnEntryError, SegmentHeader

if TYPE_CHECKING:
    import zstandard

BLOCK_BYTES = 1 << 20
LARGE_BLOCK_BYTES = 8 << 20
BLOCK_BYTES_MAX = 16 << 20  # a reader holds one block at a time in memory
LEVEL = 3

_GEOMETRY = struct.Struct("<IIQ")
_ROW = struct.Struct("<QII")
_CRC = struct.Struct("<I")
_START = entry_format.SEGMENT_HEADER_BYTES


class NotPackedError(ValueError):
    """The bytes are no table of a packed segment. The message says why."""


class BadBlockError(ValueError):
    """A block does not match its checksum, or can't be unpacked. The message says why."""


class Block(NamedTuple):
    """Where a block stands in the file, and the checksum of its stored bytes."""

    offset: int
    length: int
    crc: int


class Table(NamedTuple):
    """The table of a packed segment.

    Attributes:
        block_bytes: logical bytes of each block but the last.
        size: logical bytes of the segment.
        blocks: the blocks in order.
        is_sound: whether header and table match their checksum. If not, each block still has its own.
    """

    block_bytes: int
    size: int
    blocks: Sequence[Block]
    is_sound: bool

    def size_of(self, number: int) -> int:
        """Logical bytes of a block."""
        return min(self.block_bytes, self.size - number * self.block_bytes)


def table_bytes(blocks: int) -> int:
    """Bytes of header and table of a file with this number of blocks."""
    return _START + _GEOMETRY.size + blocks * _ROW.size + _CRC.size


def blocks_of(size: int, block_bytes: int) -> int:
    """Count of blocks of a segment with this logical size."""
    return -(-size // block_bytes)


def encode_table(header: SegmentHeader, block_bytes: int, size: int, blocks: Sequence[Block]) -> bytes:
    """The bytes before the first block: header and table."""
    data = bytearray(entry_format.encode_segment_header(header, entry_format.PACKED_VERSION))
    data += _GEOMETRY.pack(block_bytes, len(blocks), size)
    for block in blocks:
        data += _ROW.pack(*block)
    data += _CRC.pack(crc32c(bytes(data)))
    return bytes(data)


def place_after(blocks: Sequence[Block], start: int) -> int:
    """Offset of the block after these, the first of which stands at `start`."""
    return blocks[-1].offset + blocks[-1].length if blocks else start


def blocks_stated(head: bytes) -> int:
    """Count of blocks that the first bytes of a file state; it may be wrong.

    Raises:
        NotPackedError: there are too few bytes.
    """
    if len(head) < table_bytes(0):
        raise NotPackedError("it ends in the table of its blocks")
    return int(_GEOMETRY.unpack_from(head, _START)[1])


def decode_table(head: bytes, file_bytes: int) -> Table:
    """Read the table from the first bytes of a file of `file_bytes`; they must reach beyond the table.

    Raises:
        NotPackedError: sizes and places in it can't be.
    """
    count = blocks_stated(head)
    block_bytes, _, size = _GEOMETRY.unpack_from(head, _START)
    if not 1 <= block_bytes <= BLOCK_BYTES_MAX or size < _START or count != blocks_of(size, block_bytes):
        raise NotPackedError("the sizes in its table can't be")
    end = table_bytes(count)
    if len(head) < end or file_bytes < end:
        raise NotPackedError("it ends in the table of its blocks")
    is_sound = crc32c(head[: end - _CRC.size]) == _CRC.unpack_from(head, end - _CRC.size)[0]
    rows = memoryview(head)[_START + _GEOMETRY.size : end - _CRC.size]
    blocks = [Block(*row) for row in _ROW.iter_unpack(rows)]
    return Table(block_bytes, size, blocks, is_sound)


def logical_header(head: bytes) -> bytes:
    """The 64 bytes with which the logical segment begins, from those of the packed file.

    Raises:
        NotAnEntryError: they are no header of a packed segment, or are damaged.
        NewerFormatError: a newer version wrote it.
    """
    header = entry_format.decode_segment_header(head[:_START], entry_format.PACKED_VERSION)
    return entry_format.encode_segment_header(header)


def is_packed_header(head: bytes) -> bool:
    """Whether the first bytes of a file are the valid header of a packed segment."""
    try:
        entry_format.decode_segment_header(head[:_START], entry_format.PACKED_VERSION)
    except (NotAnEntryError, NewerFormatError):
        return False
    return True


def compressor() -> "zstandard.ZstdCompressor":
    """A compressor for `pack_block`. The library is imported here: most processes meet no packed segment."""
    import zstandard  # noqa: PLC0415

    return zstandard.ZstdCompressor(level=LEVEL)


def pack_block(data: bytes | memoryview, using: "zstandard.ZstdCompressor") -> bytes:
    """The bytes to store for a block: a zstd frame, or the block itself if that is not larger."""
    packed = using.compress(data)
    return packed if len(packed) < len(data) else bytes(data)


def unpack_block(stored: bytes, block: Block, size: int) -> bytes:
    """The logical bytes of a block, `size` of them.

    Raises:
        BadBlockError: the stored bytes are not those that were written.
    """
    import zstandard  # noqa: PLC0415 - as above

    if len(stored) != block.length:
        raise BadBlockError("it runs past the end of the file")
    if crc32c(stored) != block.crc:
        raise BadBlockError("its checksum does not match")
    if block.length == size:
        return stored
    try:
        # The frame states its size, and that much memory is taken: it must be right.
        if zstandard.frame_content_size(stored) != size:
            raise BadBlockError("it has another size than the table states")
        data: bytes = zstandard.ZstdDecompressor().decompress(stored)
    except zstandard.ZstdError as error:
        raise BadBlockError(f"it can't be unpacked: {error}") from None
    if len(data) != size:
        raise BadBlockError("it has another size than the table states")
    return data
