"""Events that are indexed together: columns of what the index needs of each, in the order of the journal.

Whole columns are made, cut and compared in a call each, which takes a fraction of a step for each event.
"""

from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import NamedTuple

from perstack_stored.index.event_blocks import EventColumns
from perstack_stored.journal.record_columns import RecordColumns
from perstack_stored.journal.segment_walk import Entry
from perstack_stored.model import values
from perstack_stored.model.checksum import crc32c
from perstack_stored.model.kinds import Kind

OFFSET_MAX = (1 << 32) - 1
"""The greatest offset in a segment of a value in an event block."""
_EVENT = int(Kind.EVENT)


class EventGroup(NamedTuple):
    """The events of one run, in order: timestamps and steps may be floats, each n is 1."""

    job: str
    run: str
    events: EventColumns
    payloads: list[memoryview]


class EventBatch:
    """Collects events of one journal segment. All of it waits in memory, as long as the caller's entries do.

    Attributes:
        segment: number of the segment.
    """

    def __init__(self) -> None:
        self.segment = 0
        self._records = RecordColumns([], [], [])

    def __bool__(self) -> bool:
        return bool(self._records.positions)

    def add(self, position: int, offset: int, payload: memoryview) -> None:
        """Add an event: its position, its offset in the segment, and its bytes."""
        self._records.positions.append(position)
        self._records.offsets.append(offset)
        self._records.payloads.append(payload)

    def add_entries(self, entries: Sequence[Entry], start: int) -> int:
        """Add the events of entries from index `start` on, as far as they hold nothing else.

        Returns:
            The index of the first entry that was not added, or the count of the entries.
        """
        return self._records.take_entries(entries, start, _EVENT, OFFSET_MAX)

    def clear(self) -> None:
        """Drop all events."""
        self._records = RecordColumns([], [], [])

    def take(self) -> Iterator[EventGroup]:
        """Take the events out, by run: first the run whose event came first.

        Raises:
            Refusal: BAD_JSON or BAD_VALUE.
        """
        positions, offsets, payloads = self._records
        self.clear()
        keys = values.event_keys(payloads)
        events = EventColumns(
            positions,
            [key.timestamp for key in keys],  # type: ignore[misc]  # see `EventGroup`
            [key.stepNumber for key in keys],  # type: ignore[misc]
            offsets,
            list(map(len, payloads)),
            list(map(crc32c, payloads)),
            [key.type for key in keys],
            [1] * len(keys),
        )
        numbers: dict[tuple[str, str], list[int]] = {}
        for number, key in enumerate(keys):
            name = (key.jobId, key.runId)
            if name in numbers:
                numbers[name].append(number)
            else:
                numbers[name] = [number]
        for (job, run), chosen in numbers.items():
            start, stop = chosen[0], chosen[-1] + 1
            if stop - start == len(chosen):
                yield EventGroup(job, run, events.part(start, stop), payloads[start:stop])
            else:
                pick = itemgetter(*chosen)
                some = EventColumns._make([list(pick(column)) for column in events])
                yield EventGroup(job, run, some, list(pick(payloads)))
