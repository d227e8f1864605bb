"""Layout of the journal: segment headers and entries, as proto/journal.md draws them. No I/O here.

An entry holds the records of one client frame, so that a frame is journalled unmodified:

     0        4        8        12    14  15  16                24               32
     +--------+--------+--------+-----+---+---+-----------------+----------------+
     | "PSE1" | crc32c | length |count|typ|flg|    position     |    time (ms)   |
     +--------+--------+--------+-----+---+---+-----------------+----------------+
     |     synced      |       seq       |           session (16 bytes)          |
     +-----------------+-----------------+---------------------------------------+
   64| count x record: length u32, kind u8, flags u8, compression u8, reserved u8|
     +---------------------------------------------------------------------------+
     | payload bytes of the records, one after the other                         |
     +---------------------------------------------------------------------------+
     | zeros up to a multiple of 8                                               |
     +---------------------------------------------------------------------------+

All integers are little-endian. The crc32c covers the bytes after it up to `length`, and starts from the
salt of the segment; with the position inside, an old entry in a reused block is no entry.
"""

import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from itertools import accumulate
from typing import NamedTuple, Never, overload

from perstack_stored.errors import NewerFormatError
from perstack_stored.model.checksum import crc32c
from perstack_stored.model.kinds import Kind

ENTRY_MAGIC = b"PSE1"
SEGMENT_MAGIC = b"PSTKJNL1"
FORMAT_VERSION = 1
PACKED_VERSION = 2  # of the header of a packed segment's file; the segment in it is of version 1
ALIGNMENT = 8
NO_SESSION = bytes(16)
Buffer = bytes | bytearray | memoryview

_ENTRY = struct.Struct("<4sIIHBBQQQQ16s")
_AFTER_CRC = struct.Struct("<IHBBQQQQ16s")
_SEGMENT = struct.Struct("<8sHHI16sQQQI")
_RECORD = struct.Struct("<IBBBB")
_CRC = struct.Struct("<I")
_HEAD = struct.Struct("<4sI")
_AFTER_CRC_OF_ONE = struct.Struct(_AFTER_CRC.format + _RECORD.format[1:])
_PADDING = tuple([bytes(size) for size in range(8)])

ENTRY_HEADER_BYTES = _ENTRY.size
SEGMENT_HEADER_BYTES = _SEGMENT.size + _CRC.size
RECORD_BYTES = _RECORD.size
assert (ENTRY_HEADER_BYTES, SEGMENT_HEADER_BYTES, RECORD_BYTES) == (64, 64, 8)

CRC_START = 8  # magic and checksum are not covered
unpack_header = _ENTRY.unpack_from
"""Magic number and fields of an `EntryHeader`, untested, of the entry at an offset of some bytes."""


# A named tuple in a third of the time: these are made for each entry that is read.
_new_tuple = tuple.__new__
_KINDS = frozenset({int(kind) for kind in Kind})
_VALUES = bytes(_KINDS - {int(Kind.GAP), int(Kind.DELETION)})


class EntryType(IntEnum):
    """What an entry is."""

    RECORDS = 1
    SESSIONS = 2  # the sessions known when the segment was begun; takes no position
    MARK = 3  # states up to where the segment is synced, and may begin an epoch; takes no position
    PACKED_SESSIONS = 4  # as SESSIONS, in fewer bytes: see session_snapshot.py
    CURSORS = 5  # changes of named cursors, or all at the head: see cursors.py; takes no position
    GUARDS = 6  # deletions that old sessions must not undo: see deletion_guards.py
    LOG = 7  # place in a replicated log that is applied: see log_place.py; takes no position
    WRITERS = 8  # who stored last, in a replicated journal: see logged_writers.py; takes no position


_OF_RECORDS = EntryType.RECORDS  # a name of the module is found faster
_RECORDS = int(EntryType.RECORDS)
SNAPSHOTS = frozenset({int(EntryType.SESSIONS), int(EntryType.PACKED_SESSIONS)})
BEFORE_NEXT = SNAPSHOTS | {
    int(EntryType.GUARDS),
    int(EntryType.CURSORS),
    int(EntryType.LOG),
    int(EntryType.WRITERS),
}
"""Types of entries that have the position of the record after them."""
_TYPES = frozenset({int(type) for type in EntryType})
ATOMIC = 1  # flag of an entry: its records were stored all or none, and are restored all or none
FLAG_IMPORTED = 1  # imported from an existing tree: a run setting counts as it is
SEGMENT_RECYCLED = 1  # flag of a segment: the file held an older one, whose bytes lie after the end
SEGMENT_ERASED = 2  # flag of a segment: it was written again without deleted records
FLAG_RESTORED = 2  # restored from the tree by a repair: likewise, and time and session may be unknown


class Record(NamedTuple):
    """One stored value: its kind, its flags and its bytes as sent."""

    kind: int
    flags: int
    payload: bytes | bytearray | memoryview


class EntryHeader(NamedTuple):
    """The first 64 bytes of an entry. `length` counts header, table and payload in bytes, not the padding."""

    crc: int
    length: int
    count: int  # type: ignore[assignment]  # shadows tuple.count, which is unused
    type: int
    flags: int
    position: int
    time_ms: int
    synced: int
    seq: int
    session: bytes


class SegmentHeader(NamedTuple):
    """The first 64 bytes of a segment; see proto/journal.md."""

    number: int
    store: bytes
    first_position: int
    previous_end: int
    proven: int
    salt: int
    flags: int = 0


class NotAnEntryError(ValueError):
    """The bytes are no entry of this segment. The message says why."""


def _refuse_newer(what: str) -> Never:
    raise NewerFormatError(
        f"{what} is not known to this perstack-stored: use the version that wrote it; nothing was changed"
    )


def padded(length: int) -> int:
    """Bytes that an entry of `length` takes in its segment, with padding."""
    return -(-length // ALIGNMENT) * ALIGNMENT


class RecordBlock(Sequence[Record]):
    """Records without flags whose payloads follow each other: they are written without a look at each.

    Attributes:
        kinds: one byte for each record.
        sizes: bytes of each payload.
        payload: all payloads.
    """

    __slots__ = ("kinds", "payload", "sizes")

    def __init__(self, kinds: bytes, sizes: Sequence[int], payload: memoryview) -> None:
        self.kinds = kinds
        self.sizes = sizes
        self.payload = payload

    def __len__(self) -> int:
        return len(self.kinds)

    def __iter__(self) -> Iterator[Record]:
        end = 0
        for kind, size in zip(self.kinds, self.sizes, strict=True):
            start, end = end, end + size
            yield Record(kind, 0, self.payload[start:end])

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        return list(self)[index]


def entry_size(records: Sequence[Record]) -> int:
    """Bytes that an entry of these records takes in its segment."""
    if type(records) is RecordBlock:
        size = len(records.payload)
    else:
        size = sum([len(payload) for _, _, payload in records])
    return padded(ENTRY_HEADER_BYTES + RECORD_BYTES * len(records) + size)


class EntryFields(NamedTuple):
    """Header fields of an entry that don't follow from its records.

    Attributes:
        position: of its first record.
        time_ms: when it is written, in milliseconds since 1970.
        synced: offset in its segment up to which everything is synced.
        seq: number of the first record in its session; 0 without a session.
        session: id of the session, 16 bytes.
        type: what the entry is.
        flags: `ATOMIC`, or 0.
    """

    position: int
    time_ms: int
    synced: int = 0
    seq: int = 0
    session: bytes = NO_SESSION
    type: EntryType = EntryType.RECORDS
    flags: int = 0


def encode_entry(
    salt: int, records: Sequence[Record], fields: EntryFields
) -> tuple[list[bytes | bytearray | memoryview], int]:
    """Encode an entry. Returns its buffers, ready to be written, and its padded size in bytes."""
    position, time_ms, synced, seq, session, type, flags = fields
    if type is _OF_RECORDS and len(records) == 1:  # as most are
        kind, record_flags, payload = records[0]
        size = len(payload)
        length = ENTRY_HEADER_BYTES + RECORD_BYTES + size
        covered = _AFTER_CRC_OF_ONE.pack(
            length,
            1,
            _RECORDS,
            flags,
            position,
            time_ms,
            synced,
            seq,
            session,
            size,
            kind,
            record_flags,
            0,
            0,
        )
        head = _HEAD.pack(ENTRY_MAGIC, crc32c(payload, crc32c(covered, salt))) + covered
        padding = -length % ALIGNMENT
        return [head, payload, _PADDING[padding]] if padding else [head, payload], length + padding
    payloads: Sequence[bytes | bytearray | memoryview]
    kinds: Sequence[int]
    if isinstance(records, RecordBlock):
        payloads, sizes, kinds = [records.payload], records.sizes, records.kinds
    else:
        payloads = [payload for _, _, payload in records]
        sizes, kinds = list(map(len, payloads)), [kind | flags << 8 for kind, flags, _ in records]
    if type is _OF_RECORDS:
        count = len(records)
        fields_of_records = [0] * (2 * count)
        fields_of_records[::2] = sizes
        fields_of_records[1::2] = kinds
        table = struct.pack(f"<{2 * count}I", *fields_of_records)
    else:
        count, table = 0, b""
    length = ENTRY_HEADER_BYTES + len(table) + sum(sizes)
    covered = _AFTER_CRC.pack(length, count, type, flags, position, time_ms, synced, seq, session) + table
    crc = crc32c(covered, salt)
    for payload in payloads:
        crc = crc32c(payload, crc)
    buffers: list[bytes | bytearray | memoryview] = [ENTRY_MAGIC + _CRC.pack(crc) + covered, *payloads]
    size = padded(length)
    if size > length:
        buffers.append(bytes(size - length))
    return buffers, size


def decode_header(data: bytes | memoryview, offset: int = 0) -> EntryHeader:
    """Decode the header of the entry at `offset`. Its checksum is not tested here.

    Raises:
        NotAnEntryError: too few bytes, no magic, or an impossible length.
    """
    if len(data) - offset < ENTRY_HEADER_BYTES:
        raise NotAnEntryError("it ends in the header")
    fields = _ENTRY.unpack_from(data, offset)
    if fields[0] != ENTRY_MAGIC:
        raise NotAnEntryError("it has no magic number")
    if fields[2] < ENTRY_HEADER_BYTES + fields[3] * RECORD_BYTES:
        raise NotAnEntryError("its length is too small")
    return _new_tuple(EntryHeader, fields[1:])


def entry_matches(data: bytes | memoryview, header: EntryHeader, salt: int, offset: int = 0) -> bool:
    """Whether the bytes of the whole entry at `offset` match its checksum."""
    length = header.length
    if type(data) is bytes:
        data = memoryview(data)
    view = data[offset + CRC_START : offset + length]
    return len(view) == length - CRC_START and crc32c(view, salt) == header.crc


def crc_of_head(head: bytes, salt: int) -> int:
    """Checksum of an entry as far as `head`, its first bytes."""
    return crc32c(memoryview(head)[CRC_START:], salt)


class RecordPlace(NamedTuple):
    """A record inside an entry: kind, flags, and where its payload lies, counted from the entry's start."""

    kind: int
    flags: int
    start: int
    length: int


def record_places(data: bytes | memoryview, header: EntryHeader, offset: int = 0) -> list[RecordPlace]:
    """Return the records of an entry whose checksum was tested.

    Raises:
        NotAnEntryError: table and length don't agree.
        NewerFormatError: it needs a newer version of this program.
    """
    count = header.count
    start = ENTRY_HEADER_BYTES + count * RECORD_BYTES
    places = []
    for at in range(offset + ENTRY_HEADER_BYTES, offset + start, RECORD_BYTES):
        length, kind, flags, compression, _ = _RECORD.unpack_from(data, at)
        if compression or kind not in _KINDS:
            _refuse_newer(f"compression {compression}" if compression else f"a record of the kind {kind}")
        places.append(_new_tuple(RecordPlace, (kind, flags, start, length)))
        start += length
    if header.type == _RECORDS and start != header.length:
        raise NotAnEntryError("its records don't fill it")
    if header.type not in _TYPES or header.flags & ~(ATOMIC if header.type == _RECORDS else 0):
        _refuse_newer(f"an entry of the type {header.type} with flags {header.flags}")
    return places


def are_values(data: bytes | memoryview, header: EntryHeader) -> bool:
    """Whether an entry has values only, no gaps and no deletions, as almost all have.

    It goes by columns of the table, in a fifth of the time of `record_places`. False where that refuses.
    """
    end = ENTRY_HEADER_BYTES + header.count * RECORD_BYTES
    table = memoryview(data)[ENTRY_HEADER_BYTES:end]
    kinds, compressions = bytes(table[4::RECORD_BYTES]), bytes(table[6::RECORD_BYTES])
    if kinds.strip(_VALUES) or any(compressions):
        return False
    length = end + sum(struct.unpack(f"<{2 * header.count}I", table)[::2])
    return header.type == _RECORDS and length == header.length and not header.flags & ~ATOMIC


def places_of_kind(
    data: bytes | memoryview, header: EntryHeader, kind: int
) -> tuple[Sequence[int], Sequence[int]] | None:
    """Return starts and lengths of the records of an entry whose checksum was tested.

    None if one of them has another kind, or flags, or is refused: `record_places` says more.
    """
    count = header.count
    if header.type != _RECORDS or header.flags & ~ATOMIC or not count:
        return None
    table = struct.unpack_from(f"<{2 * count}I", data, ENTRY_HEADER_BYTES)
    lengths, rest = table[::2], table[1::2]  # kind, flags, compression and a reserved byte as one number
    *starts, end = accumulate(lengths, initial=ENTRY_HEADER_BYTES + count * RECORD_BYTES)
    return (starts, lengths) if rest.count(kind) == count and end == header.length else None


def encode_segment_header(header: SegmentHeader, version: int = FORMAT_VERSION) -> bytes:
    """The first 64 bytes of a segment."""
    data = _SEGMENT.pack(
        SEGMENT_MAGIC,
        version,
        header.flags,
        header.number,
        header.store,
        header.first_position,
        header.previous_end,
        header.proven,
        header.salt,
    )
    return data + _CRC.pack(crc32c(data))


def decode_segment_header(data: bytes, expected: int = FORMAT_VERSION) -> SegmentHeader:
    """Read the first 64 bytes of a segment; `expected` is the only version that is accepted.

    Raises:
        NotAnEntryError: it is not a segment header, or is damaged.
        NewerFormatError: a newer version wrote it.
    """
    if len(data) < SEGMENT_HEADER_BYTES or not data.startswith(SEGMENT_MAGIC):
        raise NotAnEntryError("it does not begin as a segment does")
    _, version, flags, number, store, first, previous_end, proven, salt = _SEGMENT.unpack_from(data)
    if crc32c(data[: _SEGMENT.size]) != _CRC.unpack_from(data, _SEGMENT.size)[0]:
        raise NotAnEntryError("the checksum of the segment's header does not match")
    if version != expected:
        _refuse_newer(f"version {version} of the journal's format")
    return SegmentHeader(number, store, first, previous_end, proven, salt, flags)


def salt_of(data: bytes) -> int:
    """The salt in the first bytes of a segment, untested."""
    return int.from_bytes(data[56:60], "little")


def version_of(data: bytes) -> int:
    """The version in the first bytes of a segment, untested; 0 if there are too few."""
    return int.from_bytes(data[8:10], "little") if len(data) >= SEGMENT_HEADER_BYTES else 0
