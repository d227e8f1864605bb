"""Messages of the replicated log: their bytes. No I/O.

     0        4        8   10  11  12              28               36       40
     +--------+--------+----+---+---+---------------+----------------+--------+
     | "PSR1" | crc32c |rule|typ| 0 | daemon (16)   |     number     | count  |
     +--------+--------+----+---+---+---------------+----------------+--------+

All integers are little-endian; the crc32c covers what follows it. A message with stores goes on with its
requests, each a head, what it expects if it does, a table of its items, and their payloads. An item that was
refused before it came into the log has the kind 0 and no payload: it only takes its number.
"""

import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from itertools import accumulate, pairwise
from typing import NamedTuple, overload

from perstack_stored.errors import NewerFormatError
from perstack_stored.journal.entry_format import NO_SESSION, RecordBlock
from perstack_stored.journal.last_writers import Expectation
from perstack_stored.journal.log_place import DIGEST_BYTES, LogPlace
from perstack_stored.model.checksum import crc32c
from perstack_stored.model.kinds import Kind

MAGIC = b"PSR1"
RULE_VERSION = 2
"""Of the rules by which a store is judged. All daemons must know it before one of them writes it."""
_RULES_KNOWN = frozenset({1, RULE_VERSION})  # 1 is the same without stores that expect something

_HEAD = struct.Struct("<4sIHBB16sQI")
_AFTER_CRC = struct.Struct("<HBB16sQI")
_REQUEST = struct.Struct("<16sQQBBHI")  # session, seq, settled, flags, 0, 0, count of items
_ITEM = struct.Struct("<IB3x")  # length, kind
_KIND_AT = 4  # in an item
_EXPECT = struct.Struct("<QHH")  # position, bytes of the job's name and of the run's, which follow
_PLACE = struct.Struct("<QQ16s")  # sequence, position, digest
_CRC_START = 8
_ATOMIC, _EXPECTS = 1, 2
REFUSED = 0  # kind of an item that takes a number only
CURSOR = 255  # kind of an item that sets or deletes a named cursor
_KINDS = frozenset({REFUSED, CURSOR, *map(int, Kind)}) - {int(Kind.GAP)}
HEAD_BYTES, REQUEST_BYTES, ITEM_BYTES = _HEAD.size, _REQUEST.size, _ITEM.size

Payload = bytes | bytearray | memoryview


class BadMessageError(ValueError):
    """The bytes are no message of the log. The text says why."""


class MessageType(IntEnum):
    """What a message is."""

    STORES = 1
    BARRIER = 2  # nothing: who applies it has applied all before it
    BEACON = 3  # what its daemon has applied, for others to compare
    PIECE = 4  # of a message that is too large: see pieces.py. By itself it is nothing


class Head(NamedTuple):
    """The head of a message."""

    magic: bytes
    crc: int
    rule: int
    type: int
    zero: int
    daemon: bytes
    number: int
    count: int  # type: ignore[assignment]  # shadows tuple.count, which is unused


_TYPES = frozenset(map(int, MessageType))
_APART = frozenset({REFUSED, CURSOR, int(Kind.DELETION)})  # kinds of items that are not just records


class LoggedItems(Sequence[tuple[int, Payload]]):
    """Items of a request as they stand in a message: kind and payload of each, made when it is asked for.

    Attributes:
        block: all of them, as records.
        is_plain: each is a record; none only takes a number, sets a cursor, or deletes something.
    """

    __slots__ = ("_made", "block", "is_plain")

    def __init__(self, block: RecordBlock) -> None:
        self.block = block
        self.is_plain = _APART.isdisjoint(block.kinds)
        self._made: list[tuple[int, Payload]] | None = None

    def _all(self) -> list[tuple[int, Payload]]:
        if self._made is None:
            kinds, sizes, payload = self.block.kinds, self.block.sizes, self.block.payload
            places = pairwise(accumulate(sizes, initial=0))
            self._made = [
                (kind, payload[start:end]) for kind, (start, end) in zip(kinds, places, strict=True)
            ]
        return self._made

    def __len__(self) -> int:
        return len(self.block.kinds)

    def __iter__(self) -> Iterator[tuple[int, Payload]]:
        return iter(self._all())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._all() == list(other)

    __hash__ = None  # type: ignore[assignment]

    @overload
    def __getitem__(self, index: int) -> tuple[int, Payload]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[tuple[int, Payload]]: ...
    def __getitem__(self, index: int | slice) -> tuple[int, Payload] | Sequence[tuple[int, Payload]]:
        return self._all()[index]


class LoggedRequest(NamedTuple):
    """The stores of one client frame.

    Attributes:
        session: id of the session, 16 bytes; `NO_SESSION` for a cursor.
        seq: number of the first item in its session.
        settled: all numbers up to this are settled.
        atomic: all items are stored, or none.
        items: kind and payload of each.
        expect: that nobody else has stored for a job.
    """

    session: bytes
    seq: int
    settled: int
    atomic: bool
    items: Sequence[tuple[int, Payload]]
    expect: Expectation | None = None


class Message(NamedTuple):
    """A message of the log.

    Attributes:
        type: what it is.
        daemon: id of a daemon's process, 16 bytes.
        number: of the message among those of that process.
        crc: checksum of its bytes.
        requests: of a message with stores.
        place: of a beacon; its stream is left out.
    """

    type: MessageType
    daemon: bytes
    number: int
    crc: int
    requests: list[LoggedRequest]
    place: LogPlace | None


def encode(
    type: MessageType,
    daemon: bytes,
    number: int,
    requests: Sequence[LoggedRequest] = (),
    place: LogPlace | None = None,
) -> bytes:
    """The bytes of a message."""
    pieces: list[Payload] = []
    for session, seq, settled, atomic, items, expect in requests:
        flags = (_ATOMIC if atomic else 0) | (0 if expect is None else _EXPECTS)
        pieces.append(_REQUEST.pack(session, seq, settled, flags, 0, 0, len(items)))
        if expect is not None:
            job, run = (name.encode() for name in expect.owner)
            pieces.append(_EXPECT.pack(expect.position, len(job), len(run)) + job + run)
        table = [0] * (2 * len(items))
        table[1::2], payloads = zip(*items, strict=True)
        table[::2] = map(len, payloads)
        pieces.append(struct.pack(f"<{len(table)}I", *table))
        pieces += payloads
    if place is not None:
        pieces.append(_PLACE.pack(place.sequence, place.position, place.digest))
    return sealed(type, daemon, number, len(requests), pieces)


def sealed(type: MessageType, daemon: bytes, number: int, count: int, pieces: Sequence[Payload]) -> bytes:
    """The bytes of a message: its head, and what follows."""
    body = b"".join([_AFTER_CRC.pack(RULE_VERSION, type, 0, daemon, number, count), *pieces])
    return MAGIC + crc32c(body).to_bytes(4, "little") + body


def decode_head(data: bytes) -> Head:
    """The head of a message, untested."""
    return Head(*_HEAD.unpack_from(data))


def decode(data: bytes) -> Message:
    """Read a message.

    Raises:
        BadMessageError: it is damaged, or is no message of this log.
        NewerFormatError: a newer version wrote it.
    """
    if len(data) < HEAD_BYTES or not data.startswith(MAGIC):
        raise BadMessageError("it does not begin as a message does")
    _, crc, rule, type, _, daemon, number, count = decode_head(data)
    if crc32c(memoryview(data)[_CRC_START:]) != crc:
        raise BadMessageError("its checksum does not match")
    if rule not in _RULES_KNOWN or type not in _TYPES:
        raise NewerFormatError(
            f"a message of the log has type {type} and rules of version {rule}, which are not known here: "
            "upgrade this daemon; nothing was changed"
        )
    if type == MessageType.PIECE:
        return Message(MessageType.PIECE, b"", 0, crc, [], None)  # by itself it is nobody's
    view, offset = memoryview(data), HEAD_BYTES
    place = None
    try:
        requests: list[LoggedRequest] = []
        for _ in range(count):
            request, offset = _request(view, offset)
            requests.append(request)
        if type == MessageType.BEACON:
            sequence, position, digest = _PLACE.unpack_from(view, offset)
            place = LogPlace(NO_SESSION, sequence, position, digest)
            offset += _PLACE.size
    except struct.error:
        raise BadMessageError("it ends too early") from None
    if offset != len(data):
        raise BadMessageError("its requests don't fill it")
    return Message(MessageType(type), daemon, number, crc, requests, place)


def is_damaged(data: bytes) -> bool:
    """Whether the bytes were a message of this log, and have changed."""
    if not data.startswith(MAGIC):
        return False  # somebody else's
    return len(data) < HEAD_BYTES or crc32c(memoryview(data)[_CRC_START:]).to_bytes(4, "little") != data[4:8]


def _request(view: memoryview, offset: int) -> tuple[LoggedRequest, int]:
    session, seq, settled, flags, _, _, count = _REQUEST.unpack_from(view, offset)
    if not count:
        raise BadMessageError("it has a request without items")
    start = offset + REQUEST_BYTES
    expect = None
    if flags & _EXPECTS:
        expect, start = _expectation(view, start)
    end = start + count * ITEM_BYTES
    if end > len(view):
        raise BadMessageError("it ends too early")
    kinds = view[start + _KIND_AT : end : ITEM_BYTES].tobytes()
    # Most messages have many items: their table is read as a whole.
    sizes = _sizes(view, start, count)
    last = end + sum(sizes)
    if last > len(view) or not _KINDS.issuperset(kinds):
        _refuse_items(kinds, sizes, len(view) - end)
    items = LoggedItems(RecordBlock(kinds, sizes, view[end:last]))
    return LoggedRequest(session, seq, settled, bool(flags & _ATOMIC), items, expect), last


def _sizes(view: memoryview, start: int, count: int) -> Sequence[int]:
    """Bytes of each item of a table."""
    if count == 1:
        return _ITEM.unpack_from(view, start)[:1]
    return struct.unpack_from(f"<{2 * count}I", view, start)[::2]


def _refuse_items(kinds: bytes, sizes: Sequence[int], room: int) -> None:
    """Raise what the first item deserves that can't be read."""
    for kind, size in zip(kinds, sizes, strict=True):
        if kind not in _KINDS:
            raise NewerFormatError(f"a message of the log has an item of kind {kind}: upgrade this daemon")
        room -= size
        if room < 0:
            raise BadMessageError("it ends too early")


def _expectation(view: memoryview, offset: int) -> tuple[Expectation, int]:
    position, job_bytes, run_bytes = _EXPECT.unpack_from(view, offset)
    start = offset + _EXPECT.size
    middle, end = start + job_bytes, start + job_bytes + run_bytes
    if end > len(view):
        raise BadMessageError("it ends too early")
    try:
        owner = bytes(view[start:middle]).decode(), bytes(view[middle:end]).decode()
    except UnicodeDecodeError:
        raise BadMessageError("a name in it is no text") from None
    return Expectation(owner, position), end


assert _PLACE.size == 16 + DIGEST_BYTES
