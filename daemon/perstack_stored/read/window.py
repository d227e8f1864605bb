"""Read window: a bounded number of records after a position, and their jobs and runs.

It is read once and answers any number of subscribers: the item of a record is made once for all of them, and
once more if some of them get secrets masked.
"""

import sqlite3
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec

from perstack_storage.protocol import ErrorCode
from perstack_stored.errors import DamageError, IndexUnusableError, Refusal
from perstack_stored.index.deletions import Removals
from perstack_stored.index.value_lookup import ValueAddress, pieces_at
from perstack_stored.journal import entry_format
from perstack_stored.journal.reader import Entry, JournalReader, LogPosition, segment_number
from perstack_stored.model import values
from perstack_stored.model.edits import joined
from perstack_stored.model.gaps import GapRange
from perstack_stored.model.kinds import Kind
from perstack_stored.model.masking import mask, mask_pieces
from perstack_stored.protocol import frames

RECORDS_MAX = 10_000
GAPS_MAX = 1024
"""Gaps that an answer names: at most 36 of the 64 KiB of its header."""
BYTES_MAX = 8 << 20
# The thread releases the interpreter's lock this often; else the loop waits 5 ms for it at each sync.
_REST_EVERY_RECORDS = 256
_REST_SECONDS = 0.0001


class Wanted(NamedTuple):
    """Filter of records: all, those of a job, or those of a run of it."""

    job: str | None
    run: str | None
    masked: bool = False  # secrets of run settings are hidden


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


_Stored = tuple[int, int, int, memoryview | ValueAddress]  # position, time in ms, kind, payload
_NO_RUN = ""


class _Ids(msgspec.Struct, gc=False):
    """Fields of a value by which its job and run are known."""

    id: str = ""
    jobId: str = ""  # noqa: N815 - as in the values
    runId: str = ""  # noqa: N815


_ids = msgspec.json.Decoder(_Ids)


class JournalWindow:
    """Records up to `place`, without events that repeat an earlier one, and without lost ones."""

    def __init__(
        self,
        records: list[_Stored],
        place: LogPosition,
        gaps: list[GapRange],
        owners: dict[int, tuple[str, str]] | None = None,
    ) -> None:
        """`owners` gives job and run of large records by position; for others the value does."""
        self.place = place
        self._records = records
        self._gaps = gaps
        self._owners = owners or {}
        self._groups: dict[tuple[str, str], list[int]] | None = None  # by job and run
        self._items: dict[tuple[int, bool], bytes] = {}
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
                chosen[first : min(end, first + limit)], bytes_max, masked=wanted.masked
            )
            if taken.records == end - first:
                taken = self._taken[key] = taken._replace(next=upto)
        return taken

    def gaps(self, after: int, last: int) -> list[GapRange]:
        """Positions after `after`, up to `last`, whose records were lost."""
        return clip(self._gaps, after, last)

    def _collect(self, chosen: list[int], bytes_max: int, *, masked: bool) -> Taken:
        items: list[bytes] = []
        size = 0
        for number in chosen:
            position, time_ms, kind, payload = self._records[number]
            if isinstance(payload, ValueAddress):
                if items:
                    break
                return Taken(b"", 1, position, Large(position, time_ms, kind, payload))
            item = self._item(number, payload, masked=masked)
            size += len(item) + 1
            if items and size >= bytes_max:
                break
            items.append(item)
        last = self._records[chosen[len(items) - 1]][0] if items else 0
        return Taken(b"[" + b",".join(items) + b"]", len(items), last)

    def _item(self, number: int, payload: memoryview, *, masked: bool) -> bytes:
        key = (number, masked)
        item = self._items.get(key)
        if item is None:
            item = self._items[key] = item_of(*self._records[number][:3], payload, masked=masked)
        return item

    def _chosen(self, wanted: Wanted) -> list[int]:
        """Indices of the wanted records."""
        if wanted.job is None:
            return list(range(len(self._records)))
        if self._groups is None:
            self._groups = self._by_run()
        if wanted.run is not None:
            of_run = self._groups.get((wanted.job, wanted.run), [])
            return sorted(of_run + self._deletions_of_job(wanted.job))
        return sorted(n for (job, _), group in self._groups.items() if job == wanted.job for n in group)

    def _deletions_of_job(self, job: str) -> list[int]:
        """Deletions of a whole job: they concern each of its runs."""
        assert self._groups is not None
        of_job = self._groups.get((job, _NO_RUN), [])
        return [number for number in of_job if self._records[number][2] == Kind.DELETION]

    def _by_run(self) -> dict[tuple[str, str], list[int]]:
        groups: dict[tuple[str, str], list[int]] = {}
        for number, (position, _, kind, payload) in enumerate(self._records):
            if number % _REST_EVERY_RECORDS == 0:
                time.sleep(_REST_SECONDS)
            key = (
                self._owner_of(position, payload)
                if isinstance(payload, ValueAddress)
                else owner_of(kind, payload)
            )
            group = groups.get(key)
            if group is None:
                group = groups[key] = []
            group.append(number)
        return groups

    def _owner_of(self, position: int, place: ValueAddress) -> tuple[str, str]:
        owner = self._owners.get(position)
        if owner is None:
            raise IndexUnusableError(
                f"the index does not name the large record at segment {place.segment}, offset {place.offset}"
            )
        return owner


def owner_of(kind: int, payload: memoryview) -> tuple[str, str]:
    """Job and run that a value belongs to."""
    try:
        ids = _ids.decode(payload)
    except (msgspec.DecodeError, RecursionError):  # legal JSON that msgspec refuses
        value = values.decode(kind, payload)
        return (value.id, _NO_RUN) if isinstance(value, values.Job) else (value.jobId, value.runId)
    return (ids.id, _NO_RUN) if kind == Kind.JOB else (ids.jobId, ids.runId)


def item_of(position: int, time_ms: int, kind: int, payload: memoryview, *, masked: bool) -> bytes:
    """A record as an item of `readAll`."""
    value: bytes | memoryview = payload
    if masked and kind == Kind.RUN_SETTING:
        value = mask(bytes(payload))
    return b"".join((_head(position, time_ms, frames.op_of(kind, payload)), value, b"}"))


def _head(position: int, time_ms: int, op: str) -> bytes:
    return b'{"position":%d,"time":%d,"op":"%s","value":' % (position, time_ms, op.encode())


def pieces_of(
    large: Large, reader: JournalReader, indexed: Callable[[], LogPosition], *, masked: bool
) -> Iterator[bytes | memoryview]:
    """A large record as an item of `readAll`, in pieces."""
    yield _head(large.position, large.time_ms, frames.STORE_OPS[large.kind])
    if masked and large.kind == Kind.RUN_SETTING:
        yield from mask_pieces(joined(pieces_at(reader, large.place, indexed), large.place.length))
    else:
        yield from pieces_at(reader, large.place, indexed)
    yield b"}"


def large_of(entry: Entry) -> Large:
    """The record of an entry of which `split_large` has read the head only."""
    (item,) = entry_format.record_places(entry.data, entry.header)
    assert entry.payload_crc is not None
    place = ValueAddress(entry.segment, entry.offset + item.start, item.length, entry.payload_crc)
    return Large(entry.header.position, entry.header.time_ms, item.kind, place)


def read(
    database: sqlite3.Connection,
    reader: JournalReader,
    after: int,
    until: LogPosition,
    near: LogPosition | None = None,
) -> JournalWindow:
    """Read the window after `after`, up to `until`, which the index has reached.

    Args:
        database: the index.
        reader: of the journal.
        after: position before the first record of the window.
        until: log position at which the window ends at the latest.
        near: a log position known to the caller; saves some reading if it lies closely before `after`.

    Raises:
        Refusal: DAMAGED.
        IndexUnusableError: the index is damaged, and not the journal.
    """
    place = until
    records: list[_Stored] = []
    size = rested = 0
    for entry in entries(database, reader, after, until, near):
        header, data = entry.header, entry.data
        position, time_ms = header.position, header.time_ms
        if position + header.count <= after + 1:
            continue
        size += header.length
        if entry.payload_crc is not None:
            large = large_of(entry)
            if large.kind != Kind.GAP:
                records.append(large)
            place = reader.place_after(entry)
            break
        for kind, _, start, length in entry_format.record_places(data, header):
            if position > after and kind != Kind.GAP:
                records.append((position, time_ms, kind, data[start : start + length]))
            position += 1
        if len(records) - rested >= _REST_EVERY_RECORDS:
            rested = len(records)
            time.sleep(_REST_SECONDS)
        if len(records) >= RECORDS_MAX or size >= BYTES_MAX:
            place = reader.place_after(entry)
            break
    repeats = repeats_between(database, after, place.position)
    if repeats:
        records = [stored for stored in records if stored[0] not in repeats]
    gaps = gaps_between(database, after, place.position)
    owners = owners_between(database, after, place.position)
    removals = Removals(database, after)
    if removals:
        records = _not_removed(records, removals, owners)
    return JournalWindow(records, place, gaps, owners)


def _not_removed(
    records: list[_Stored], removals: Removals, owners: dict[int, tuple[str, str]]
) -> list[_Stored]:
    """The records that no deletion removed."""
    wanted = []
    for number, stored in enumerate(records):
        if number % _REST_EVERY_RECORDS == 0:
            time.sleep(_REST_SECONDS)
        position, _, kind, payload = stored
        if isinstance(payload, ValueAddress):
            if not is_large_removed(removals, position, owners):
                wanted.append(stored)
        elif not is_removed(removals, position, kind, payload):
            wanted.append(stored)
    return wanted


def is_removed(removals: Removals, position: int, kind: int, payload: memoryview) -> bool:
    """Whether a deletion removed a record."""
    return kind != Kind.DELETION and removals.has(position, *owner_of(kind, payload))


def is_large_removed(removals: Removals, position: int, owners: dict[int, tuple[str, str]]) -> bool:
    """Whether a deletion removed a large record: then the index does not name its owner any more."""
    owner = owners.get(position)
    return owner is None or removals.has(position, *owner)


def entries(
    database: sqlite3.Connection,
    reader: JournalReader,
    after: int,
    until: LogPosition,
    near: LogPosition | None = None,
) -> Iterator[Entry]:
    """Read the entries from one at or before the record after `after`, up to `until`, without a hole.

    Of a large value only the head of its entry is read.

    Raises:
        Refusal: DAMAGED.
        IndexUnusableError: the index is damaged, and not the journal.
    """
    place = _start_of(database, after)
    if near is not None and place.position < near.position <= after:
        place = near
    following = after + 1
    try:
        for entry in reader.entries(place, until, split_large=True):
            if entry.header.position > following:
                raise _led_astray(place)
            following = entry.header.position + entry.header.count
            yield entry
    except DamageError as error:
        if reader.is_sound(segment_number(error.segment), error.offset, until):
            raise _led_astray(place) from None
        raise Refusal(ErrorCode.DAMAGED, str(error)) from None
    if following <= until.position:
        raise _led_astray(place)


def _start_of(database: sqlite3.Connection, after: int) -> LogPosition:
    """A log position at or before the record after `after`."""
    row = database.execute(
        "SELECT position, segment, offset FROM place WHERE position <= ? ORDER BY position DESC LIMIT 1",
        (after + 1,),
    ).fetchone()
    if row is None:
        raise IndexUnusableError("the index has no place in the journal from which to read")
    position, segment, offset = row
    place = LogPosition(position - 1, segment, offset)
    if (
        not all(isinstance(part, int) for part in row)
        or segment < 1
        or offset < entry_format.SEGMENT_HEADER_BYTES
    ):
        raise _led_astray(place)
    return place


def _led_astray(place: LogPosition) -> IndexUnusableError:
    return IndexUnusableError(
        f"the index names a place where there is no entry: segment {place.segment}, offset {place.offset}"
    )


def repeats_between(database: sqlite3.Connection, after: int, last: int) -> set[int]:
    """Positions after `after`, up to `last`, of events that repeat an earlier one."""
    return {
        position
        for (position,) in database.execute(
            "SELECT position FROM twin WHERE n = 0 AND position > ? AND position <= ?", (after, last)
        )
    }


def owners_between(database: sqlite3.Connection, after: int, last: int) -> dict[int, tuple[str, str]]:
    """Job and run of large records after `after`, up to `last`, by position."""
    rows = database.execute(
        "SELECT position, job, run FROM large WHERE position > ? AND position <= ?", (after, last)
    )
    return {position: (job, run) for position, job, run in rows}


def gaps_between(database: sqlite3.Connection, after: int, last: int) -> list[GapRange]:
    """Positions after `after`, up to `last`, whose records were lost."""
    rows = database.execute(
        "SELECT first, last FROM gap WHERE last > ? AND first <= ? ORDER BY first", (after, last)
    )
    return clip([GapRange(*row) for row in rows], after, last)


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
