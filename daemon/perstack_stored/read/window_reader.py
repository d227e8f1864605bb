"""Reads windows for `readAll`: from a position on, of one job by the index, or the last records."""

import sqlite3
import time
from collections.abc import Iterator

from perstack_storage.protocol import ErrorCode
from perstack_stored.errors import DamageError, IndexUnusableError, Refusal
from perstack_stored.index.deletions import Removals
from perstack_stored.index.schema import SPAN_POSITIONS
from perstack_stored.index.value_lookup import ValueAddress
from perstack_stored.journal import entry_format
from perstack_stored.journal.reader import JournalReader, LogPosition
from perstack_stored.journal.segment_names import segment_number
from perstack_stored.journal.segment_walk import Entry
from perstack_stored.model import deletions
from perstack_stored.model.gaps import GapRange
from perstack_stored.model.kinds import Kind
from perstack_stored.read.source import Source

from .record_filter import Facts, Wanted, facts_of
from .window import GAPS_MAX, REST_EVERY_RECORDS, REST_SECONDS, JournalWindow, Stored, clip, large_of

RECORDS_MAX = 10_000
BYTES_MAX = 8 << 20
_SPANS_MAX = 256  # of a job, in one window
# A large event is always a row of its own.
_FACTS_OF_LARGE = (
    "SELECT position, job, run, (SELECT event.type FROM run JOIN event INDEXED BY event_order"
    " ON event.run = run.id WHERE run.job = large.job AND run.name = large.run"
    " AND event.position = large.position) FROM large WHERE position > ? AND position <= ?"
)


class _Reading:
    """Records that a window collects, up to its bounds."""

    def __init__(self) -> None:
        self.records: list[Stored] = []
        self.large: dict[int, Facts] = {}
        self.size = self._rested = 0  # bytes that were read
        self._ends = False

    @property
    def is_full(self) -> bool:
        """Whether the window has as much as it may."""
        return self._ends or len(self.records) >= RECORDS_MAX or self.size >= BYTES_MAX

    def add(self, entry: Entry, after: int) -> None:
        """Add the records of an entry after a position."""
        header, data = entry.header, entry.data
        position, time_ms, records = header.position, header.time_ms, self.records
        self.size += header.length
        if position + header.count <= after + 1:
            return
        if entry.payload_crc is not None:
            large = large_of(entry)
            if large.kind != Kind.GAP:
                records.append(large)
            self._ends = True
            return
        for kind, _, start, length in entry_format.record_places(data, header):
            if position > after and kind != Kind.GAP:
                records.append((position, time_ms, kind, data[start : start + length]))
            position += 1
        if len(records) - self._rested >= REST_EVERY_RECORDS:
            self._rested = len(records)
            time.sleep(REST_SECONDS)

    def finish(self, database: sqlite3.Connection, start: int, after: int, last: int) -> None:
        """Leave out repeats, and learn the owners of large records.

        Of the records from index `start` on, which are those after `after`, up to `last`.
        """
        found = self.records[start:]
        repeats = repeats_between(database, after, last)
        if repeats:
            found = [stored for stored in found if stored[0] not in repeats]
        self.large |= facts_of_large(database, after, last)
        self.records[start:] = found

    def leave_out_removed(self, database: sqlite3.Connection, after: int) -> None:
        """Leave out what was deleted, of all records, which are those after `after`.

        The index is seen in one state for all of them: a deletion that comes meanwhile takes a job or run
        whole, or not at all.
        """
        database.execute("BEGIN")
        with database:
            removals = Removals(database, after)
            if removals:
                self.records[:] = _not_removed(self.records, removals, self.large)


def _not_removed(records: list[Stored], removals: Removals, large: dict[int, Facts]) -> list[Stored]:
    """The records that no deletion removed."""
    wanted = []
    for number, stored in enumerate(records):
        if number % REST_EVERY_RECORDS == 0:
            time.sleep(REST_SECONDS)
        position, _, kind, payload = stored
        if isinstance(payload, ValueAddress):
            if not is_large_removed(removals, position, kind, large):
                wanted.append(stored)
        elif not is_removed(removals, position, kind, payload):
            wanted.append(stored)
    return wanted


def is_removed(removals: Removals, position: int, kind: int, payload: memoryview) -> bool:
    """Whether a deletion removed a record."""
    is_setting = kind == Kind.RUN_SETTING
    if kind == Kind.DELETION:
        is_setting = deletions.decode(payload).is_redaction
        if not is_setting:
            return False
    facts = facts_of(kind, payload)
    return removals.has(position, facts.job, facts.run, is_setting=is_setting)


def is_large_removed(removals: Removals, position: int, kind: int, large: dict[int, Facts]) -> bool:
    """Whether a deletion removed a large record: then the index does not name its owner any more."""
    facts = large.get(position)
    is_setting = kind == Kind.RUN_SETTING
    return facts is None or removals.has(position, facts.job, facts.run, is_setting=is_setting)


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
    reading, place = _Reading(), until
    for entry in entries(database, reader, after, until, near):
        reading.add(entry, after)
        if reading.is_full:
            place = reader.place_after(entry)
            if place.position > after:
                break
            place = until
    reading.finish(database, 0, after, place.position)
    reading.leave_out_removed(database, after)
    gaps = gaps_between(database, after, place.position)
    return JournalWindow(reading.records, place, gaps, reading.large)


def read_of_job(
    database: sqlite3.Connection, reader: JournalReader, after: int, until: LogPosition, job: str
) -> JournalWindow:
    """Read the window after `after` of the spans in which a job has records; others are passed over.

    Arguments and errors are those of `read`. The window has records of other jobs too.
    """
    reading, reached = _Reading(), after
    spans = _spans_after(database, job, after)
    for first, last in spans:
        start, begun = max(after, first - 1, reached), len(reading.records)
        reached = min(last, until.position)
        if start >= reached:
            continue
        for entry in entries(database, reader, start, until):
            reading.add(entry, start)
            reached = reader.place_after(entry).position
            if reached >= min(last, until.position) or (reading.is_full and reached > after):
                break
        is_full = reading.is_full  # before repeats are left out
        reading.finish(database, begun, start, reached)
        if is_full:
            break
    else:
        if len(spans) < _SPANS_MAX:
            reached = until.position
    reading.leave_out_removed(database, after)
    gaps = gaps_between(database, after, reached, GAPS_MAX)
    return JournalWindow(reading.records, until._replace(position=reached), gaps, reading.large)


def before_last(source: Source, until: LogPosition, wanted: Wanted, count: int) -> int:
    """The position before the last `count` wanted records.

    It looks back over 10,000 records or 8 MiB of the journal at most; if they have fewer, over these. Raises
    as `read`.
    """
    database, reader = source.database, source.reader
    found: list[int] = []
    end, looked, size = until.position, 0, 0
    while end > 0 and len(found) < count and looked < RECORDS_MAX and size < BYTES_MAX:
        first = 1
        if wanted.job is not None:
            span = _span_upto(database, wanted.job, end)
            if span is None:
                return found[0] - 1 if found else until.position
            first = span * SPAN_POSITIONS
            end = min(end, first + SPAN_POSITIONS - 1)
        start = max(_start_of(database, end - 1).position, first - 1)
        reading = _Reading()
        for entry in entries(database, reader, start, until):
            reading.add(entry, start)
            if entry.header.position + entry.header.count > end:
                break
        reading.finish(database, 0, start, end)
        reading.leave_out_removed(database, start)
        window = JournalWindow(reading.records, until, [], reading.large)
        found = [position for position in window.positions(wanted) if position <= end] + found
        looked, size = looked + len(reading.records), size + reading.size
        end = start
    return found[-count] - 1 if len(found) >= count > 0 else end


def _span_upto(database: sqlite3.Connection, job: str, position: int) -> int | None:
    """The last span up to a position with records of a job."""
    (span,) = database.execute(
        "SELECT max(span) FROM job_span WHERE job = ? AND span <= ?",
        (job, position // SPAN_POSITIONS),
    ).fetchone()
    return None if span is None else int(span)


def _spans_after(database: sqlite3.Connection, job: str, after: int) -> list[tuple[int, int]]:
    """First and last position of the next spans with records of a job."""
    rows = database.execute(
        "SELECT span FROM job_span WHERE job = ? AND span >= ? ORDER BY span LIMIT ?",
        (job, (after + 1) // SPAN_POSITIONS, _SPANS_MAX),
    ).fetchall()
    return [(span * SPAN_POSITIONS, (span + 1) * SPAN_POSITIONS - 1) for (span,) in rows]


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


def facts_of_large(database: sqlite3.Connection, after: int, last: int) -> dict[int, Facts]:
    """Facts of large records after `after`, up to `last`, by position."""
    rows = database.execute(_FACTS_OF_LARGE, (after, last))
    return {position: Facts(job, run, type or "") for position, job, run, type in rows}


def gaps_between(database: sqlite3.Connection, after: int, last: int, ranges_max: int = -1) -> list[GapRange]:
    """Positions after `after`, up to `last`, whose records were lost: all ranges, or the first ones."""
    rows = database.execute(
        "SELECT first, last FROM gap WHERE last > ? AND first <= ? ORDER BY first LIMIT ?",
        (after, last, ranges_max),
    )
    return clip([GapRange(*row) for row in rows], after, last)
