"""Writes a complete segment again without what was deleted, and compares the result with it.

Each entry keeps its place, and all of its header but the checksum. The record that is erased becomes a gap of
the same length; sessions, guards, cursors and marks stay. The salt is another one, so the checksums are made
again, and a backup takes the segment for a new one. Memory is bounded by the largest entry, and a block.
"""

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest

import msgspec

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.errors import Refusal
from perstack_stored.model import gaps
from perstack_stored.model.erasures import Erasures
from perstack_stored.model.kinds import Kind

from . import entry_format, packed_format
from .entry_format import EntryFields, EntryType, NotAnEntryError, Record, SegmentHeader
from .packing import Logical, OnBytes, PackingError, end_to_pack, header_of, pack_pieces
from .segment_file import OpenSegment, PackedSegment, segment_of
from .segment_walk import BadEntryError, Entry, SegmentFile, walk

_WRITE_BYTES = 1 << 20
_START = entry_format.SEGMENT_HEADER_BYTES
_RECORDS = int(EntryType.RECORDS)

Blanks = Mapping[int, bytes]
"""What takes the place of records, by the offset of their payloads in the segment."""


class Source:
    """A complete segment as it is read, with the copies of entries that recovery left after its end."""

    def __init__(self, file: OpenSegment, number: int, end: int) -> None:
        """`end` is its logical end.

        Raises:
            PackingError: it has no valid header.
            OSError: it can't be read.
        """
        self.file, self.number = file, number
        self.header = header_of(file)
        self.end = end_to_pack(file, number, end)

    def entries(self) -> Iterator[Entry]:
        """All entries.

        Raises:
            PackingError: one is not valid.
        """
        return _entries(self.file, self.header, self.end)

    def has_left_overs(self) -> bool:
        """Whether bytes stand after the end that are no zeros: of a segment before it, or torn ones."""
        size, offset = self.file.size(), self.end
        while offset < size:
            data = self.file.read(min(_WRITE_BYTES, size - offset), offset)
            if not data or data.count(0) != len(data):
                return True
            offset += len(data)
        return False


def find_blanks(source: Source, erasures: Erasures, on_bytes: OnBytes) -> dict[int, bytes]:
    """What must be erased in a segment.

    Raises:
        PackingError: an entry is not valid.
    """
    blanks = {}
    for entry in source.entries():
        on_bytes(entry.header.length)
        if entry.header.type != _RECORDS:
            continue
        for position, place in enumerate(_places(entry), entry.header.position):
            payload = entry.data[place.start : place.start + place.length]
            try:
                gap = erasures.gap_for(position, place.kind, payload)
                if gap is not None:
                    blanks[entry.offset + place.start] = gaps.encode_padded(gap, place.length)
            except (ValueError, Refusal, msgspec.MsgspecError) as error:
                raise PackingError(f"the record at position {position} can't be erased: {error}") from None
    return blanks


def new_header(header: SegmentHeader, blanks: Blanks) -> SegmentHeader:
    """The header of the segment that is written again: no earlier entry matches its checksum there."""
    salt = header.salt
    while salt == header.salt:
        salt = secrets.randbits(32)
    flags = header.flags & ~entry_format.SEGMENT_RECYCLED
    return header._replace(salt=salt, flags=flags | (entry_format.SEGMENT_ERASED if blanks else 0))


def write_plain(
    files: FileSystem, fd: int, source: Source, header: SegmentHeader, blanks: Blanks, on_bytes: OnBytes
) -> int:
    """Write a segment into an empty file; returns its bytes. It is not synced.

    Args:
        files: the file system.
        fd: the new file.
        source: the segment.
        header: of the new one.
        blanks: what is erased.
        on_bytes: called on the way with the bytes that were written.

    Raises:
        PackingError: an entry is not valid.
        OSError: a file can't be read or written.
    """
    offset = 0
    for piece in _in_blocks(_buffers(source, header, blanks), _WRITE_BYTES):
        files.write(fd, [piece], offset)
        offset += len(piece)
        on_bytes(len(piece))
    return offset


def write_packed(
    files: FileSystem,
    fd: int,
    source: Source,
    logical: Logical,
    blanks: Blanks,
    on_bytes: OnBytes,
) -> int:
    """The same, packed."""
    pieces = _in_blocks(_buffers(source, logical.header, blanks), logical.block_bytes)
    return pack_pieces(files, fd, logical, pieces, on_bytes)


def compare(
    files: FileSystem, fd: int, source: Source, header: SegmentHeader, blanks: Blanks, on_bytes: OnBytes
) -> None:
    """Compare a segment that was written again, as it is on disk, with the earlier one.

    Each entry must stand at its place with its header; each record that stays must have its bytes, each that
    is erased none of them.

    Args:
        files: the file system.
        fd: the new file, synced. It stays open.
        source: the earlier segment.
        header: what the header must be.
        blanks: what is erased.
        on_bytes: called for each entry with its bytes.

    Raises:
        PackingError: they differ.
        OSError: a file can't be read.
    """
    files.forget_cached(fd)
    file = segment_of(files, fd)
    try:
        if isinstance(file, PackedSegment) and (file.table is None or not file.table.is_sound):
            raise PackingError("its table can't be read back")
        if file.size() != source.end:
            raise PackingError(f"it has {file.size()} bytes, not {source.end}")
        if header_of(file) != header or header.salt == source.header.salt:
            raise PackingError("its header differs")
        if file.read(_START, 0) != entry_format.encode_segment_header(header):
            raise PackingError("its header differs")
        erased = 0
        for before, after in zip_longest(source.entries(), _entries(file, header, source.end)):
            if before is None or after is None:
                raise PackingError("it has another count of entries")
            erased += _compare_entry(before, after, blanks)
            on_bytes(after.header.length)
        if erased != len(blanks):
            raise PackingError(f"{erased} records are erased, not {len(blanks)}")
    finally:
        file.fd = -1  # the caller's


def _compare_entry(before: Entry, after: Entry, blanks: Blanks) -> int:
    """Compare two entries; returns how many records were erased."""
    where = f"the entry at offset {before.offset}"
    if after.offset != before.offset or after.header._replace(crc=0) != before.header._replace(crc=0):
        raise PackingError(f"{where} has another place or header")
    # As bytes: Python compares views item by item, five times slower.
    old_data, new_data = bytes(before.data), bytes(after.data)
    if before.header.type != _RECORDS:
        if new_data[entry_format.ENTRY_HEADER_BYTES :] != old_data[entry_format.ENTRY_HEADER_BYTES :]:
            raise PackingError(f"{where} differs")
        return 0
    erased = 0
    for old, new in zip(_places(before), _places(after), strict=True):
        payload = new_data[new.start : new.start + new.length]
        blank = blanks.get(before.offset + old.start)
        if blank is None:
            if new != old or payload != old_data[old.start : old.start + old.length]:
                raise PackingError(f"{where} has another record")
            continue
        if (new.kind, new.flags, new.start, new.length) != (Kind.GAP, 0, old.start, old.length):
            raise PackingError(f"{where} keeps a record that is erased")
        if payload != blank or len(blank) != old.length:
            raise PackingError(f"{where} keeps bytes that are erased")
        erased += 1
    return erased


def _buffers(source: Source, header: SegmentHeader, blanks: Blanks) -> Iterator[entry_format.Buffer]:
    """The logical bytes of the segment without what is erased."""
    yield entry_format.encode_segment_header(header)
    for entry in source.entries():
        yield from _encoded(entry, header.salt, blanks)


def _encoded(entry: Entry, salt: int, blanks: Blanks) -> Sequence[entry_format.Buffer]:
    found, data = entry.header, entry.data
    if found.type == _RECORDS:
        records = []
        for place in _places(entry):
            blank = blanks.get(entry.offset + place.start)
            if blank is None:
                payload = data[place.start : place.start + place.length]
                records.append(Record(place.kind, place.flags, payload))
            else:
                records.append(Record(Kind.GAP, 0, blank))
    else:
        _places(entry)  # refuses what a newer version wrote
        records = [Record(0, 0, data[entry_format.ENTRY_HEADER_BYTES :])]
    fields = EntryFields(
        found.position,
        found.time_ms,
        found.synced,
        found.seq,
        found.session,
        EntryType(found.type),
        found.flags,
    )
    return entry_format.encode_entry(salt, records, fields)[0]


def _in_blocks(buffers: Iterable[entry_format.Buffer], size: int) -> Iterator[bytes]:
    """The bytes of some buffers in pieces of this size; the last one has the rest."""
    waiting = bytearray()
    for buffer in buffers:
        view = memoryview(buffer)
        while len(waiting) + len(view) >= size:
            taken = size - len(waiting)
            waiting += view[:taken]
            view = view[taken:]
            yield bytes(waiting)
            waiting.clear()
        waiting += view
    if waiting:
        yield bytes(waiting)


def _entries(file: OpenSegment, header: SegmentHeader, end: int) -> Iterator[Entry]:
    try:
        yield from walk(SegmentFile(file, header.salt, header.number), _START, end)
    except BadEntryError as error:
        raise PackingError(f"at offset {error.offset}: {error.reason}") from None


def _places(entry: Entry) -> list[entry_format.RecordPlace]:
    try:
        return entry_format.record_places(entry.data, entry.header)
    except NotAnEntryError as error:
        raise PackingError(f"at offset {entry.offset}: {error}") from None


def block_bytes_of(file: PackedSegment) -> int:
    """The size of blocks of a segment that is packed already."""
    return packed_format.BLOCK_BYTES if file.table is None else file.table.block_bytes
