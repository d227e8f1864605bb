"""Walks the entries of one segment, and tests the checksum of each."""

from collections.abc import Iterator
from typing import NamedTuple

from perstack_stored.model.checksum import crc32c

from . import entry_format
from .entry_format import EntryHeader, NotAnEntryError, unpack_header
from .segment_file import OpenSegment

READ_BYTES = 1 << 17  # more leaves the processor's cache before it is used
LARGE_BYTES = 1 << 20  # of an entry whose value is read in pieces
_PROBE_BYTES = 4096
_ENTRIES_AT_ONCE = 32  # tested before the caller asks for the next ones
_HEADER_BYTES = entry_format.ENTRY_HEADER_BYTES
# Names of the module are found faster.
_MAGIC = entry_format.ENTRY_MAGIC
_RECORD_BYTES = entry_format.RECORD_BYTES
_CRC_START = entry_format.CRC_START
_ALIGNMENT = entry_format.ALIGNMENT
_new_tuple = tuple.__new__  # a named tuple in half of the time


class Entry(NamedTuple):
    """An entry whose checksum was tested, with its place. `data` is the whole entry without padding.

    Of a large entry that is read with `split_large`, `data` is the part before the payload of its only
    record; `payload_crc` is the checksum of the payload.
    """

    segment: int
    offset: int
    header: EntryHeader
    data: memoryview
    payload_crc: int | None = None


class BadEntryError(Exception):
    """The bytes at `offset` are no valid entry; found while walking a segment."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(reason)
        self.offset = offset
        self.reason = reason


def is_large(header: EntryHeader) -> bool:
    """Whether an entry's value may be read separately (`split_large`)."""
    return header.count == 1 and header.length > LARGE_BYTES


class SegmentFile(NamedTuple):
    """A segment that is open for reading, with what its entries' checksums need."""

    file: OpenSegment
    salt: int
    number: int


def walk(
    segment: SegmentFile, start: int, end: int, *, read_bytes: int = READ_BYTES, split_large: bool = False
) -> Iterator[Entry]:
    """Read the entries of a segment in order, and test the checksum of each.

    Args:
        segment: the segment.
        start: offset of the first entry.
        end: every entry ends at or before this offset.
        read_bytes: bytes that are read at a time.
        split_large: of a large entry only the head is returned; its value is not held in memory.

    Raises:
        BadEntryError: the first place before `end` holds no valid entry.
    """
    for some in walk_some(segment, start, end, read_bytes=read_bytes, split_large=split_large):
        yield from some


def walk_some(
    segment: SegmentFile, start: int, end: int, *, read_bytes: int = READ_BYTES, split_large: bool = False
) -> Iterator[list[Entry]]:
    """Read entries as `walk` does, some at a time: a step of an iterator costs as much as a checksum.

    Raises:
        BadEntryError: the first place before `end` holds no valid entry; those before it were returned.
    """
    file, _, number = segment
    data = b""
    base = offset = start
    read_to = start  # where `data` ends
    while offset < end:
        try:
            if offset + _HEADER_BYTES > read_to:
                data = file.read(min(read_bytes, end - offset), offset)
                base, read_to = offset, offset + len(data)
            header = entry_format.decode_header(data, offset - base)
            length = header.length
            if offset + length > end:
                raise NotAnEntryError("it runs past the end")
            if split_large and is_large(header):
                yield [_tested_large(segment, Entry(number, offset, header, memoryview(b"")))]
                offset += entry_format.padded(length)
                continue
            if offset + length > read_to:
                data = file.read(max(min(read_bytes, end - offset), length), offset)
                base, read_to = offset, offset + len(data)
            found = _tested(segment, data, base, offset)
            if not found:
                raise NotAnEntryError("its checksum does not match")
        except NotAnEntryError as error:
            raise BadEntryError(offset, str(error)) from None
        yield found
        offset = found[-1].offset + entry_format.padded(found[-1].header.length)


def _tested(segment: SegmentFile, data: bytes, base: int, offset: int) -> list[Entry]:
    """The entries from an offset on, at most some, up to the first that is not whole and valid in `data`.

    `base` is the offset of `data`. Large ones are the caller's, but for the first.
    """
    salt, number = segment.salt, segment.number
    view, size = memoryview(data), len(data)
    found: list[Entry] = []
    start = offset - base
    while start + _HEADER_BYTES <= size and len(found) < _ENTRIES_AT_ONCE:
        fields = unpack_header(data, start)
        length = fields[2]
        stop = start + length
        if (
            fields[0] != _MAGIC
            or stop > size
            or length < _HEADER_BYTES + fields[3] * _RECORD_BYTES
            or (found and length > LARGE_BYTES)
            or crc32c(view[start + _CRC_START : stop], salt) != fields[1]
        ):
            break
        header = _new_tuple(EntryHeader, fields[1:])
        found.append(_new_tuple(Entry, (number, base + start, header, view[start:stop], None)))
        start = stop + -length % _ALIGNMENT
    return found


def _tested_large(segment: SegmentFile, entry: Entry) -> Entry:
    """Test a large entry of one record, read in pieces.

    Raises:
        NotAnEntryError: its checksum does not match.
    """
    file, salt, _ = segment
    header, start = entry.header, entry_format.ENTRY_HEADER_BYTES + entry_format.RECORD_BYTES
    head = file.read(start, entry.offset)
    crc, payload_crc = entry_format.crc_of_head(head, salt), 0
    piece = b""
    while start < header.length:
        crc = crc32c(piece, crc)
        piece = file.read(min(READ_BYTES, header.length - start), entry.offset + start)
        if not piece:
            raise NotAnEntryError("it runs past the end of the file")
        payload_crc = crc32c(piece, payload_crc)
        start += len(piece)
    if crc32c(piece, crc) != header.crc:
        raise NotAnEntryError("its checksum does not match")
    return entry._replace(data=memoryview(head), payload_crc=payload_crc)


def find_entry(
    segment: SegmentFile, start: int, end: int, *, least_position: int = 0
) -> Iterator[tuple[int, EntryHeader]]:
    """Find valid entries at any offset from `start` on, which a walk can't reach after a bad place.

    Entries with a position below `least_position` are passed over without a look at their checksum.
    """
    offset = start
    overlap = len(entry_format.ENTRY_MAGIC) - 1
    while offset < end:
        data = segment.file.read(min(READ_BYTES + overlap, end - offset), offset)
        found = data.find(entry_format.ENTRY_MAGIC)
        while found >= 0:
            place = offset + found
            if place % entry_format.ALIGNMENT == 0 and not _is_before(data, found, least_position):
                try:
                    entry = next(walk(segment, place, end, read_bytes=_PROBE_BYTES))
                except (BadEntryError, StopIteration):
                    pass
                else:
                    yield place, entry.header
            found = data.find(entry_format.ENTRY_MAGIC, found + 1)
        offset += READ_BYTES


def _is_before(data: bytes, offset: int, position: int) -> bool:
    """Whether the whole header of an entry at an offset states a position below this one."""
    if not position or offset + entry_format.ENTRY_HEADER_BYTES > len(data):
        return False
    try:
        return entry_format.decode_header(data, offset).position < position
    except NotAnEntryError:
        return False
