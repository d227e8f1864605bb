"""Event blocks: up to `EVENTS_MAX` events of a run in one row of the index, as packed columns. No I/O.

     0         4        6         8          16           24         32
     +---------+--------+---------+----------+------------+----------+-------------+-- … --+
     | crc32c  | count  | types   | position | timestamp  | step     | segment     | body  |
     +---------+--------+---------+----------+------------+----------+-------------+-- … --+

Numbers are little-endian. `types` is the size in bytes of the distinct event types, which begin the body,
separated by line feeds. Columns of `count` unsigned 32-bit numbers follow: position, timestamp and step, each
less its first one in the header, then offset, length and crc32c of the value in the journal; then a byte for
each event, the number of its type, and a byte for each, its n. The checksum covers all after itself.

In a block, positions increase, timestamps and steps never decrease, and timestamps are whole. All values
stand in one journal segment.
"""

import struct
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from perstack_stored.model.checksum import crc32c

EVENTS_MAX = 144
"""A full block takes just a page of SQLite: it is written again each time that its run goes on."""
assert bytes((EVENTS_MAX - 1,))  # the number of a type has a byte
N_MAX = 255
_U32 = 1 << 32
_HEAD = struct.Struct("<IHHQQQQ")
_CRC_BYTES = 4
_COLUMNS = 6


EventRow = tuple[int, int, int, int, int, int, str, int]
"""An event: position, timestamp in ms since 1970, step, offset and length and crc32c of its value, type, n.

Events with the same timestamp, step and type differ in n: 1, 2, 3, …

A plain tuple: thousands are made at a time.
"""


class EventColumns(NamedTuple):
    """The members of events, a list for each, in the order of a row."""

    positions: list[int]
    timestamps: list[int]
    steps: list[int]
    offsets: list[int]
    lengths: list[int]
    crcs: list[int]
    types: list[str]
    ns: list[int]

    @classmethod
    def of(cls, rows: Sequence[EventRow]) -> "EventColumns":
        """The columns of one event or more."""
        return cls._make(map(list, zip(*rows, strict=True)))

    def part(self, start: int, stop: int) -> "EventColumns":
        """The events from index `start` to before `stop`."""
        return EventColumns._make([column[start:stop] for column in self])

    def append(self, more: "EventColumns") -> None:
        """Append events to the lists of these."""
        positions, timestamps, steps, offsets, lengths, crcs, types, ns = more
        self.positions.extend(positions)
        self.timestamps.extend(timestamps)
        self.steps.extend(steps)
        self.offsets.extend(offsets)
        self.lengths.extend(lengths)
        self.crcs.extend(crcs)
        self.types.extend(types)
        self.ns.extend(ns)


class BadBlockError(Exception):
    """The bytes are no event block, or have changed."""


class EventBlock:
    """Columns of some events of a run.

    Attributes:
        segment: number of the journal segment with the values.
        position, timestamp, step: of the first event.
        types: the distinct event types.
        columns: position, timestamp, step (each less that of the first event), offset, length, crc32c.
        type_numbers: for each event, where its type stands in `types`.
        ns: for each event, which one of its name it is.
    """

    __slots__ = ("columns", "ns", "position", "segment", "step", "timestamp", "type_numbers", "types")

    def __init__(self, segment: int, position: int, timestamp: int, step: int) -> None:
        self.segment = segment
        self.position = position
        self.timestamp = timestamp
        self.step = step
        self.types: list[str] = []
        self.columns = [array("I") for _ in range(_COLUMNS)]
        self.type_numbers = bytearray()
        self.ns = bytearray()

    def __len__(self) -> int:
        return len(self.type_numbers)

    @property
    def last(self) -> tuple[int, int, int]:
        """Step, timestamp and position of the last event."""
        positions, timestamps, steps = self.columns[:3]
        return self.step + steps[-1], self.timestamp + timestamps[-1], self.position + positions[-1]

    def extend(self, events: EventColumns, start: int = 0) -> int:
        """Append events from index `start` on, which follow the last one; return the count that fit."""
        stop = min(len(events.positions), start + EVENTS_MAX - len(self))
        while stop > start and not self._spans(events, stop - 1):
            stop = start + (stop - start) // 2
        if stop <= start:
            return 0
        if stop - start < len(events.positions):
            events = events.part(start, stop)
        positions, timestamps, steps, offsets, lengths, crcs, types, ns = events
        first_position, first_timestamp, first_step = self.position, self.timestamp, self.step
        columns = self.columns
        columns[0].extend([value - first_position for value in positions])
        columns[1].extend([value - first_timestamp for value in timestamps])
        columns[2].extend([value - first_step for value in steps])
        columns[3].extend(offsets)
        columns[4].extend(lengths)
        columns[5].extend(crcs)
        self.type_numbers += self._number(types)
        self.ns += bytes(ns)
        return stop - start

    def _number(self, types: Sequence[str]) -> bytes:
        """The numbers of the types of events."""
        known = self.types
        if len(known) == 1 and types.count(known[0]) == len(types):  # as of streamed text
            return bytes(len(types))
        numbers = {name: number for number, name in enumerate(known)}
        for name in types:
            if name not in numbers:
                numbers[name] = len(numbers)
                known.append(name)
        return bytes([numbers[name] for name in types])

    def _spans(self, events: EventColumns, number: int) -> bool:
        """Whether the differences of an event to the first one fit into 32 bits."""
        return (
            events.positions[number] - self.position < _U32
            and events.timestamps[number] - self.timestamp < _U32
            and events.steps[number] - self.step < _U32
        )

    def encode(self) -> bytes:
        """The block as bytes."""
        types = "\n".join(self.types).encode()
        head = _HEAD.pack(0, len(self), len(types), self.position, self.timestamp, self.step, self.segment)
        rest = b"".join([head[_CRC_BYTES:], types, *_little_endian(self.columns), self.type_numbers, self.ns])
        return crc32c(rest).to_bytes(_CRC_BYTES, "little") + rest

    def rows(self, start: int = 0, stop: int | None = None) -> list[EventRow]:
        """The events from index `start` to before `stop`."""
        part = slice(start, stop)
        positions, timestamps, steps, offsets, lengths, crcs = [column[part] for column in self.columns]
        position, timestamp, step, types = self.position, self.timestamp, self.step, self.types
        return list(
            zip(
                [value + position for value in positions],
                [value + timestamp for value in timestamps],
                [value + step for value in steps],
                offsets,
                lengths,
                crcs,
                [types[number] for number in self.type_numbers[part]],
                self.ns[part],
                strict=True,
            )
        )

    def metas(self, stop: int) -> list[tuple[int, int, int, str]]:
        """Step, position, timestamp and type of the events before index `stop`."""
        positions, timestamps, steps = [column[:stop] for column in self.columns[:3]]
        position, timestamp, step, types = self.position, self.timestamp, self.step, self.types
        return list(
            zip(
                [value + step for value in steps],
                [value + position for value in positions],
                [value + timestamp for value in timestamps],
                [types[number] for number in self.type_numbers[:stop]],
                strict=True,
            )
        )

    def upto(self, position: int) -> int:
        """Count of the events up to a position."""
        return bisect_right(self.columns[0], position - self.position)

    def named(self, timestamp: int, step: int, type: str) -> list[EventRow]:
        """The events with a name."""
        timestamps = self.columns[1]
        wanted = timestamp - self.timestamp
        end = bisect_right(timestamps, wanted)
        same_time = self.rows(bisect_left(timestamps, wanted), end)
        return [row for row in same_time if (row[2], row[6]) == (step, type)]


def decode(data: bytes) -> EventBlock:
    """Decode a block.

    Raises:
        BadBlockError: the bytes have changed.
    """
    if len(data) < _HEAD.size:
        raise BadBlockError("an event block is too short")
    crc, count, types_bytes, position, timestamp, step, segment = _HEAD.unpack_from(data)
    body = memoryview(data)[_HEAD.size :]
    if crc32c(memoryview(data)[_CRC_BYTES:]) != crc:
        raise BadBlockError("the checksum of an event block does not match")
    column_bytes = 4 * count
    if len(body) != types_bytes + _COLUMNS * column_bytes + 2 * count or not count:
        raise BadBlockError("an event block has another size than it says")
    block = EventBlock(segment, position, timestamp, step)
    block.types = bytes(body[:types_bytes]).decode().split("\n")
    start = types_bytes
    for column in block.columns:
        column.frombytes(body[start : start + column_bytes])
        if sys.byteorder == "big":
            column.byteswap()
        start += column_bytes
    block.type_numbers = bytearray(body[start : start + count])
    block.ns = bytearray(body[start + count :])
    return block


def _little_endian(columns: "list[array[int]]") -> "list[array[int]]":
    if sys.byteorder == "big":
        columns = [column[:] for column in columns]
        for column in columns:
            column.byteswap()
    return columns
