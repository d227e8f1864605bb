"""The files of many records: events of many entries as columns, all others one by one."""

import sqlite3
import sys
from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple

from perstack_stored.index.writer import kind_name
from perstack_stored.journal import entry_format
from perstack_stored.journal.record_columns import RecordColumns
from perstack_stored.journal.segment_walk import Entry
from perstack_stored.model import values
from perstack_stored.model.kinds import Kind
from perstack_stored.process.worker_status import WorkerStatus

from .passed_over import PassedOver
from .record_files import RecordFiles, has_file
from .write import Write, event_name

_EVENT = int(Kind.EVENT)
_new_tuple = tuple.__new__  # a named tuple in half of the time
_TWINS = "SELECT position, n FROM twin WHERE position BETWEEN ? AND ?"


Piece = RecordColumns | Entry
"""Events of entries that hold nothing else, or one entry."""


class Wanted(NamedTuple):
    """The records of some entries that are written.

    Attributes:
        positions: records at other positions are left alone.
        replay_until: position up to which files may be torn; what is left out is put right if it is there.
        is_named: each record is described in the worker's status, so events are taken one by one too.
    """

    positions: range
    replay_until: int
    is_named: bool


class RecordWrites:
    """Makes the writes of records, which the index has already."""

    def __init__(
        self, index: sqlite3.Connection, records: RecordFiles, passed_over: PassedOver, status: WorkerStatus
    ) -> None:
        self._index = index
        self._records = records
        self._passed_over = passed_over
        self._status = status

    def pieces(self, entries: list[Entry], wanted: Wanted) -> list[Piece]:
        """Entries in their order, as columns where that is possible."""
        # A worker died at a record that is passed over, maybe while it was decoded.
        if wanted.is_named or any(map(wanted.positions.__contains__, self._passed_over.records)):
            return list(entries)
        return list(_in_columns(entries))

    def of(self, pieces: list[Piece], wanted: Wanted) -> list[Write]:
        """The writes of pieces, in the order of the records.

        Raises:
            Refusal: a record can't be decoded.
        """
        first, last = wanted.positions.start, wanted.positions.stop - 1
        numbers: dict[int, int] = dict(self._index.execute(_TWINS, (first, last)).fetchall())
        writes: list[Write] = []
        for piece in pieces:
            if isinstance(piece, Entry):
                writes.extend(self._of_entry(piece, wanted, numbers))
            else:
                self._add_events(piece, wanted, numbers, writes)
        self._status.at(0)
        return writes

    def _of_entry(self, entry: Entry, wanted: Wanted, numbers: dict[int, int]) -> Iterator[Write]:
        places = entry_format.record_places(entry.data, entry.header)
        for position, place in enumerate(places, entry.header.position):
            payload = entry.data[place.start : place.start + place.length]
            n = numbers.get(position, 1)
            if not n or position not in wanted.positions or not has_file(place.kind, payload):
                continue
            if position in self._passed_over.records:
                continue
            self._status.at(position)
            if wanted.is_named:
                self._status.describe(kind_name(place.kind))
            write = self._records.as_write(position, place.kind, payload, n)
            if not write.is_left_out or self._may_matter(position, wanted):
                yield write

    def _may_matter(self, position: int, wanted: Wanted) -> bool:
        """Whether an event without a file counts: by it an old job may come back."""
        return position <= wanted.replay_until or bool(self._records.left_out.jobs_until)

    def _add_events(
        self, events: RecordColumns, wanted: Wanted, numbers: dict[int, int], writes: list[Write]
    ) -> None:
        """Append the writes of events, in a fraction of the time of `_of_entry`."""
        start, stop = (
            bisect_left(events.positions, end) for end in (wanted.positions.start, wanted.positions.stop)
        )
        positions, payloads = events.positions[start:stop], events.payloads[start:stop]
        if not positions:
            return
        self._status.at(positions[0])
        left_out = self._records.left_out
        types = left_out.ever
        keeps_left_out = self._may_matter(positions[0], wanted)
        folders: dict[tuple[str, str], tuple[str, ...]] = {}
        new, add = _new_tuple, writes.append
        for position, event, payload in zip(positions, values.event_keys(payloads), payloads, strict=True):
            n = numbers.get(position, 1) if numbers else 1
            if not n:
                continue
            type, job, run = event.type, event.jobId, event.runId
            is_left_out = type in types and left_out.has_event(position, type)
            if is_left_out and not (keeps_left_out and self._may_matter(position, wanted)):
                continue
            of_run = folders.get((job, run))
            if of_run is None:
                of_run = folders[job, run] = ("jobs", job, "runs", run)
            name = event_name(event.timestamp, event.stepNumber, type, n)
            add(new(Write, (position, of_run, name, payload.tobytes, False, run, is_left_out)))


def _in_columns(entries: list[Entry]) -> Iterator[Piece]:
    number = 0
    while number < len(entries):
        columns = RecordColumns([], [], [])
        after = columns.take_entries(entries, number, _EVENT, sys.maxsize)
        if after == number:
            yield entries[number]
            number += 1
        else:
            yield columns
            number = after
