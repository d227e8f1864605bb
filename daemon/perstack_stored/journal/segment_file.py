"""A segment that is open for reading. Plain or packed, it is read at logical offsets, those of the plain one.

Every reader of segments opens them here. Of a packed segment, blocks that were read are kept in one cache
for the whole process. A block that does not match its checksum reads as zeros of its size: so the entries in
it are found to be bad, and those after it are found.
"""

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.errors import NewerFormatError

from . import entry_format, packed_format
from .entry_format import NotAnEntryError
from .packed_format import BadBlockError, NotPackedError, Table

CACHE_BYTES_MAX = 16 << 20
_HEAD_BYTES = packed_format.table_bytes(0)


class BadPlace(NamedTuple):
    """Logical bytes of a packed segment that can't be read; `end` 0: of its header or table."""

    start: int
    end: int
    reason: str


class BlockCache:
    """Unpacked blocks, least recently used first, bounded in bytes. Threads share it."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._blocks: OrderedDict[tuple[int, ...], bytes] = OrderedDict()
        self._lock = threading.Lock()
        self.bytes = 0

    def clear(self) -> None:
        """Drop all blocks."""
        with self._lock:
            self._blocks.clear()
            self.bytes = 0

    def get(self, key: tuple[int, ...]) -> bytes | None:
        """The block of this key, None if it is not kept."""
        with self._lock:
            block = self._blocks.get(key)
            if block is not None:
                self._blocks.move_to_end(key)
            return block

    def put(self, key: tuple[int, ...], block: bytes) -> None:
        """Keep a block, and drop the oldest that have no room beside it."""
        with self._lock:
            if key in self._blocks or len(block) > self._bytes_max:
                return
            self._blocks[key] = block
            self.bytes += len(block)
            while self.bytes > self._bytes_max:
                self.bytes -= len(self._blocks.popitem(last=False)[1])


_cache = BlockCache(CACHE_BYTES_MAX)


def drop_blocks() -> None:
    """Drop all unpacked blocks of this process: some may be of a segment that was erased."""
    _cache.clear()


class OpenSegment:
    """A plain segment.

    Attributes:
        is_packed: whether the file is packed.
        salt: that of the segment in this file, once a reader of a journal has opened it; erasing changes it.
        closes_itself: whether the descriptor closes with the last reference to this object, too: another
            thread, which nobody waits for, may read the file.
    """

    is_packed = False

    def __init__(self, files: FileSystem, fd: int) -> None:
        self._files = files
        self.fd = fd
        self.salt: int | None = None
        self.closes_itself = False

    def size(self) -> int:
        """Bytes that can be read."""
        return self._files.size(self.fd)

    def file_bytes(self) -> int:
        """Size of the file."""
        return self._files.size(self.fd)

    def read(self, length: int, offset: int) -> bytes:
        """Read up to `length` bytes; fewer only at the end.

        Raises:
            OSError: the file can't be read.
        """
        return self._files.read(self.fd, length, offset)

    def read_file(self, length: int, offset: int) -> bytes:
        """Read bytes of the file as they stand there, packed or not."""
        return self._files.read(self.fd, length, offset)

    def bad_places(self) -> Iterator[BadPlace]:
        """What of the packing is damaged. A plain segment has its entries' checksums only."""
        return iter(())

    def forget_cached(self) -> None:
        """Drop the page cache of the file: reads then return what is on disk."""
        self._files.forget_cached(self.fd)

    def close(self) -> None:
        """Close the file."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            self._files.close(fd)

    def __del__(self) -> None:
        if self.closes_itself:
            with contextlib.suppress(OSError):  # nobody is left to hear of it
                self.close()


class PackedSegment(OpenSegment):
    """A packed segment. Without a table, nothing of it can be read."""

    is_packed = True

    def __init__(self, files: FileSystem, fd: int, head: bytes, table: Table | None, reason: str) -> None:
        super().__init__(files, fd)
        self._head = packed_format.logical_header(head) if packed_format.is_packed_header(head) else b""
        self._table = table
        self._reason = reason
        # Equal keys mean equal blocks, whichever file they stand in: salt and number are in the header.
        self._key = hash((head[: entry_format.SEGMENT_HEADER_BYTES], table and table.size))

    @property
    def table(self) -> Table | None:
        """The table of blocks; None if it can't be used."""
        return self._table

    def size(self) -> int:
        """Bytes that can be read: the logical size."""
        return 0 if self._table is None else self._table.size

    def read(self, length: int, offset: int) -> bytes:
        """Read up to `length` logical bytes; fewer only at the end. Blocks that are damaged read as zeros.

        Raises:
            OSError: the file can't be read.
        """
        if self._head and offset + length <= len(self._head):
            return self._head[offset : offset + length]
        table = self._table
        if table is None:
            return b""
        end = min(offset + length, table.size)
        pieces = []
        while offset < end:
            number, start = divmod(offset, table.block_bytes)
            block = self._block(table, number)
            piece = block if not start and end - offset >= len(block) else block[start : start + end - offset]
            pieces.append(piece)
            offset += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def bad_places(self) -> Iterator[BadPlace]:
        """What of the packing is damaged: header or table, and blocks.

        Raises:
            OSError: the file can't be read.
        """
        if self._table is None or not self._table.is_sound or not self._head:
            yield BadPlace(0, 0, self._reason or "the table of its blocks does not match its checksum")
        if self._table is not None:
            for number in range(len(self._table.blocks)):
                start = number * self._table.block_bytes
                try:
                    self.unpack(number)
                except BadBlockError as error:
                    end = start + self._table.size_of(number)
                    yield BadPlace(start, end, f"the packed block of the bytes {start} to {end}: {error}")

    def stored(self, number: int) -> bytes:
        """The stored bytes of a block, untested."""
        assert self._table is not None
        block = self._table.blocks[number]
        # A table that is damaged may state any length.
        length = min(block.length, self._table.size_of(number) + 1)
        return self._files.read(self.fd, length, min(block.offset, self.file_bytes()))

    def unpack(self, number: int) -> bytes:
        """The logical bytes of a block, read from the file.

        Raises:
            BadBlockError: they can't be read.
            OSError: the file can't be read.
        """
        assert self._table is not None
        return packed_format.unpack_block(
            self.stored(number), self._table.blocks[number], self._table.size_of(number)
        )

    def _block(self, table: Table, number: int) -> bytes:
        key = (self._key, number, table.blocks[number].crc)
        block = _cache.get(key)
        if block is None:
            try:
                block = self.unpack(number)
            except BadBlockError:
                return bytes(table.size_of(number))
            _cache.put(key, block)
        return block


def open_segment(files: FileSystem, name: str, *, dir_fd: int) -> OpenSegment:
    """Open a segment, plain or packed, for reading.

    Raises:
        OSError: it can't be opened or read.
    """
    fd = files.open(name, dir_fd=dir_fd)
    try:
        return segment_of(files, fd)
    except BaseException:
        files.close(fd)
        raise


def segment_of(files: FileSystem, fd: int) -> OpenSegment:
    """The segment in an open file; it takes the descriptor over.

    Raises:
        OSError: the file can't be read; the descriptor stays the caller's.
    """
    head = files.read(fd, _HEAD_BYTES, 0)
    if _is_plain(head):
        return OpenSegment(files, fd)
    size = files.size(fd)
    try:
        needed = packed_format.table_bytes(packed_format.blocks_stated(head))
        if len(head) < needed <= size:
            head = files.read(fd, needed, 0)
        table = packed_format.decode_table(head, size)
    except NotPackedError as error:
        if _states_packed(head):
            return PackedSegment(files, fd, head, None, str(error))
        return OpenSegment(files, fd)
    if not _states_packed(head) and not _fits(table, size):
        return OpenSegment(files, fd)
    return PackedSegment(files, fd, head, table, "")


def _is_plain(head: bytes) -> bool:
    """Whether a file begins with a valid header of a version that is read as it is, or refused."""
    try:
        entry_format.decode_segment_header(head)
    except NotAnEntryError:
        return False
    except NewerFormatError:
        return not packed_format.is_packed_header(head)
    return True


def _states_packed(head: bytes) -> bool:
    """Whether the version in a header, which may be damaged, is that of a packed segment."""
    return entry_format.version_of(head) == entry_format.PACKED_VERSION


def _fits(table: Table, file_bytes: int) -> bool:
    """Whether the blocks of a table fill a file: then it is packed, whatever its header says."""
    offset = packed_format.table_bytes(len(table.blocks))
    for block in table.blocks:
        if block.offset != offset:
            return False
        offset += block.length
    return offset == file_bytes
