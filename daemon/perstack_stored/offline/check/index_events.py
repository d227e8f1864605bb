"""Compares the events of a run in two indexes, whatever their blocks. Reads only."""

import sqlite3
from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import groupby
from typing import Any

from perstack_stored.index.event_reader import IndexedEvent, block_events, row_events
from perstack_stored.journal.reader import JournalReader
from perstack_stored.model.checksum import crc32c

_VALUES = ("at", "position", "length", "crc")
# Errors of an invalid address: of another type, negative, or out of bounds.
_NO_ADDRESS = (OSError, TypeError, ValueError, OverflowError)

Name = tuple[Any, ...]


class EventComparison:
    """The events of a run in the index `main` and in the attached `copy`.

    Attributes:
        differences: name of the finding, the event, and the columns that differ.
    """

    def __init__(self, database: sqlite3.Connection, run: int) -> None:
        self._database = database
        self._run = run
        self.differences: list[tuple[str, IndexedEvent, Sequence[str]]] = []

    def run(self, reader: JournalReader) -> int:
        """Compare; return the count of events in the copy.

        Raises:
            IndexUnusableError: a block is damaged; the events before it are compared.
        """
        count = 0
        missing: dict[Name, IndexedEvent] = {}
        extra: dict[Name, IndexedEvent] = {}
        sides = self._events("main", 0), self._events("copy", 1)
        try:
            for _, group in groupby(merge(*sides, key=_order), key=_order):
                events: list[dict[Name, IndexedEvent]] = [{}, {}]
                for event, side in group:
                    events[side][_name(event)] = event
                count += len(events[1])
                for name, event in events[0].items():
                    found = events[1].pop(name, None)
                    if found is None:
                        missing[name] = event
                    else:
                        self._compare(event, found, reader)
                extra.update(events[1])
        finally:
            for name, event in missing.items():
                found = extra.pop(name, None)
                if found is None:
                    self.differences.append(("index_missing_record", event, ()))
                else:
                    self._compare(event, found, reader)
            self.differences += [("index_extra_record", event, ()) for event in extra.values()]
        return count

    def _events(self, schema: str, side: int) -> Iterator[tuple[IndexedEvent, int]]:
        """All events by position, each with the number of its side."""
        blocks = block_events(self._database, self._run, schema)
        rows = row_events(self._database, self._run, schema)
        for event in merge(blocks, rows, key=_position):
            yield event, side

    def _compare(self, wanted: IndexedEvent, found: IndexedEvent, reader: JournalReader) -> None:
        differing = [column for column in _VALUES if getattr(wanted, column) != getattr(found, column)]
        if differing:
            self.differences.append(("index_wrong", wanted, differing))
        elif wanted[7:9] != found[7:9] and not _has_value(found, reader):
            self.differences.append(("index_wrong", wanted, ("segment, offset",)))


def _position(event: IndexedEvent) -> int:
    return event.position


def _order(item: tuple[IndexedEvent, int]) -> int:
    return item[0].position


def _name(event: IndexedEvent) -> Name:
    return event[1:5]


def _has_value(event: IndexedEvent, reader: JournalReader) -> bool:
    """Whether the journal has the bytes at the event's address: recovery may have written them twice."""
    try:
        return crc32c(reader.payload(event.segment, event.offset, event.length)) == event.crc
    except _NO_ADDRESS:
        return False
