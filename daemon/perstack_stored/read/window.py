"""Read window: a bounded number of records after a position, and their jobs and runs.

It is read once and answers any number of subscribers: the item of a record is made once for all of them that
get it in the same form.
"""

import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from perstack_stored.errors import IndexUnusableError
from perstack_stored.index.value_lookup import ValueAddress, pieces_at
from perstack_stored.journal import entry_format
from perstack_stored.journal.reader import JournalReader, LogPosition
from perstack_stored.journal.segment_walk import Entry
from perstack_stored.model.gaps import GapRange
from perstack_stored.model.kinds import Kind
from perstack_stored.protocol import frames

from .record_filter import NO_RUN, Facts, Wanted, facts_of
from .record_form import Form

GAPS_MAX = 1024
"""Gaps that an answer names: at most 36 of the 64 KiB of its header."""
# The thread releases the interpreter's lock this often; else the loop waits 5 ms for it at each sync.
REST_EVERY_RECORDS = 256
REST_SECONDS = 0.0001


class Large(NamedTuple):
    """A record whose value is read in pieces."""

    position: int
    time_ms: int
    kind: int
    place: ValueAddress


class Taken(NamedTuple):
    """The records of a window for one subscriber: a JSON array, their count, the position to go on from.

    A large record comes alone, with an empty `body`.
    """

    body: bytes
    records: int
    next: int
    large: Large | None = None


Stored = tuple[int, int, int, memoryview | ValueAddress]  # position, time in ms, kind, payload


class JournalWindow:
    """Records up to `place`, without events that repeat an earlier one, and without lost ones."""

    def __init__(
        self,
        records: list[Stored],
        place: LogPosition,
        gaps: list[GapRange],
        large: dict[int, Facts] | None = None,
    ) -> None:
        """`large` gives the facts of large records by position; those of others stand in the value."""
        self.place = place
        self._records = records
        self._gaps = gaps
        self._large = large or {}
        self._facts: dict[int, Facts] = {}  # as far as a filter has needed them
        self._selected: dict[Wanted, list[int]] = {}
        self._groups: dict[tuple[str, str], list[int]] | None = None  # by job and run
        self._items: dict[tuple[int, Form], bytes] = {}
        self._taken: dict[tuple[Wanted, int, int, int], Taken] = {}

    def take(self, after: int, wanted: Wanted, limit: int, bytes_max: int) -> Taken:
        """Wanted records after `after`: at most `limit`, and at most `bytes_max` unless there is only one."""
        chosen = self._chosen(wanted)
        upto = reach(self.gaps(after, self.place.position), self.place.position)
        first, end = [
            bisect_right(chosen, position, key=lambda number: self._records[number][0])
            for position in (after, upto)
        ]
        key = (wanted, first, limit, upto)
        taken = self._taken.get(key)
        if taken is None:
            taken = self._taken[key] = self._collect(
                chosen[first : min(end, first + limit)], bytes_max, wanted.form
            )
            if taken.records == end - first:
                taken = self._taken[key] = taken._replace(next=upto)
        return taken

    def positions(self, wanted: Wanted) -> list[int]:
        """Positions of the wanted records."""
        return [self._records[number][0] for number in self._chosen(wanted)]

    def has(self, after: int, wanted: Wanted) -> bool:
        """Whether there is a wanted record after `after`."""
        chosen = self._chosen(wanted)
        return bool(chosen) and self._records[chosen[-1]][0] > after

    def gaps(self, after: int, last: int) -> list[GapRange]:
        """Positions after `after`, up to `last`, whose records were lost."""
        return clip(self._gaps, after, last)

    def _collect(self, chosen: list[int], bytes_max: int, form: Form) -> Taken:
        items: list[bytes] = []
        size = 0
        for number in chosen:
            position, time_ms, kind, payload = self._records[number]
            if isinstance(payload, ValueAddress):
                if items:
                    break
                return Taken(b"", 1, position, Large(position, time_ms, kind, payload))
            item = self._item(number, payload, form)
            size += len(item) + 1
            if items and size >= bytes_max:
                break
            items.append(item)
        last = self._records[chosen[len(items) - 1]][0] if items else 0
        return Taken(b"[" + b",".join(items) + b"]", len(items), last)

    def _item(self, number: int, payload: memoryview, form: Form) -> bytes:
        key = (number, form)
        item = self._items.get(key)
        if item is None:
            if form.omit and len(self._items) % REST_EVERY_RECORDS == 0:
                time.sleep(REST_SECONDS)
            item = self._items[key] = item_of(*self._records[number][:3], payload, form)
        return item

    def _chosen(self, wanted: Wanted) -> list[int]:
        """Indices of the wanted records."""
        which = wanted._replace(form=Form())
        chosen = self._selected.get(which)
        if chosen is None:
            chosen = self._selected[which] = self._select(wanted)
        return chosen

    def _select(self, wanted: Wanted) -> list[int]:
        records, kinds, types = self._records, wanted.kinds, wanted.types
        numbers: Iterable[int] = range(len(records))
        if wanted.job is not None:
            numbers = self._of_owner(wanted.job, wanted.run)
        if kinds is not None:  # known without a look into the values
            numbers = [number for number in numbers if records[number][2] in kinds]
        if wanted.deletion is not None:
            numbers = [number for number in numbers if self._is_deletion(number, wanted.deletion)]
        if types is not None:
            numbers = [
                number
                for number in numbers
                if records[number][2] != Kind.EVENT or self._facts_of(number).type in types
            ]
        return list(numbers)

    def _is_deletion(self, number: int, op: str) -> bool:
        """Whether a record is no deletion, or one by this operation."""
        _, _, kind, payload = self._records[number]
        return kind != Kind.DELETION or isinstance(payload, ValueAddress) or frames.op_of(kind, payload) == op

    def _of_owner(self, job: str, run: str | None) -> list[int]:
        if self._groups is None:
            self._groups = {}
            for number in range(len(self._records)):
                facts = self._facts_of(number)
                self._groups.setdefault((facts.job, facts.run), []).append(number)
        if run is not None:
            # A deletion of the whole job concerns each of its runs.
            of_job = self._groups.get((job, NO_RUN), [])
            deletions = [number for number in of_job if self._records[number][2] == Kind.DELETION]
            return sorted(self._groups.get((job, run), []) + deletions)
        return sorted(n for (name, _), group in self._groups.items() if name == job for n in group)

    def _facts_of(self, number: int) -> Facts:
        facts = self._facts.get(number)
        if facts is None:
            if len(self._facts) % REST_EVERY_RECORDS == 0:
                time.sleep(REST_SECONDS)
            position, _, kind, payload = self._records[number]
            if isinstance(payload, ValueAddress):
                facts = self._facts_of_large(position, kind, payload)
            else:
                facts = facts_of(kind, payload)
            self._facts[number] = facts
        return facts

    def _facts_of_large(self, position: int, kind: int, place: ValueAddress) -> Facts:
        facts = self._large.get(position)
        if facts is None or (kind == Kind.EVENT and not facts.type):
            raise IndexUnusableError(
                f"the index does not name the large record at segment {place.segment}, offset {place.offset}"
            )
        return facts


def item_of(position: int, time_ms: int, kind: int, payload: memoryview, form: Form) -> bytes:
    """A record as an item of `readAll`."""
    head = _head(position, time_ms, frames.op_of(kind, payload))
    return b"".join((head, form.value(kind, payload), b"}"))


def _head(position: int, time_ms: int, op: str) -> bytes:
    return b'{"position":%d,"time":%d,"op":"%s","value":' % (position, time_ms, op.encode())


def pieces_of(
    large: Large, reader: JournalReader, indexed: Callable[[], LogPosition], form: Form
) -> Iterator[bytes | memoryview]:
    """A large record as an item of `readAll`, in pieces."""
    yield _head(large.position, large.time_ms, frames.STORE_OPS[large.kind])
    yield from form.pieces(large.kind, pieces_at(reader, large.place, indexed), large.place.length)
    yield b"}"


def large_of(entry: Entry) -> Large:
    """The record of an entry of which `split_large` has read the head only."""
    (item,) = entry_format.record_places(entry.data, entry.header)
    assert entry.payload_crc is not None
    place = ValueAddress(entry.segment, entry.offset + item.start, item.length, entry.payload_crc)
    return Large(entry.header.position, entry.header.time_ms, item.kind, place)


def clip(gaps: list[GapRange], after: int, last: int) -> list[GapRange]:
    """The parts of gaps after `after`, up to `last`."""
    return [
        GapRange(max(gap.first, after + 1), min(gap.last, last))
        for gap in gaps
        if gap.last > after and gap.first <= last
    ]


def reach(gaps: list[GapRange], last: int) -> int:
    """The position up to which an answer may go: a header has room for `GAPS_MAX` gaps."""
    return gaps[GAPS_MAX - 1].last if len(gaps) >= GAPS_MAX else last


def answer_fields(following: int, gaps: list[GapRange]) -> dict[str, object]:
    """Header fields of an answer: where to go on, and which records before that were lost."""
    return {"next": following, "gaps": gaps} if gaps else {"next": following}
