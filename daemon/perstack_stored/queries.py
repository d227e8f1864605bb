"""The reads: the index is asked where, the journal for the bytes.

A query gives pieces of a JSON text, lazily, so that an answer of any size needs memory for a part of it
only. Each SQL statement gives one row, a JSON text: the interpreter's lock is taken once, not once a row.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from perstack_storage._errors import ErrorCode

from . import record, stretch
from .errors import Refusal
from .index import read_cursor, setting_text, with_defaults
from .listings import START, Cursor, Listing, Listings, Page
from .masking import mask
from .places import PIECE_BYTES, Place, value_at, values_at
from .segments import JournalReader, Mark

LIMIT_MAX = 10_000  # items that a client gets at most where it asks for a limit
PAGE_ROWS = 16_384  # of texts asked for at a time; a run of 10,000 events takes one question
PLACES_ROWS = 2048  # of places: as many objects are made at a time, holding the interpreter's lock
READ_ALL_RECORDS_MAX = 10_000
STRETCH_ANSWER_BYTES = 1 << 20


class Answer(NamedTuple):
    """Result of a query: fields for the header, and the pieces of the body."""

    fields: dict[str, object]
    pieces: Iterator[bytes]


@dataclass(frozen=True, slots=True)
class Source:
    """What a query reads from: the index, the journal, and listings of before; all of the calling thread."""

    database: sqlite3.Connection
    reader: JournalReader
    listings: Listings = field(default_factory=lambda: Listings(0))
    generation: int = 0  # of the index; a later one may be another file

    def indexed(self) -> Mark:
        """The place up to which the index is complete.

        Raises:
            IndexUnusableError: it is damaged.
        """
        return read_cursor(self.database)


def _array(items: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """Pieces of a JSON array of the items."""
    pieces: list[bytes | memoryview] = [b"["]
    size = 0
    comma = False
    for item in items:
        if comma:
            pieces.append(b",")
        comma = True
        pieces.append(item)
        size += len(item)
        if size >= PIECE_BYTES:
            yield b"".join(pieces)
            pieces, size = [], 0
    pieces.append(b"]")
    yield b"".join(pieces)


# --- rows from the index ---------------------------------------------------------------------------


def _rows(
    source: Source, names: str, query: str, bound: dict[str, Any], limit: int | None
) -> list[list[Any]]:
    """Rows of a query as lists. `names` are the columns that `query` selects."""
    sql = f"SELECT json_group_array(json_array({names})) FROM ({query} LIMIT :limit)"  # noqa: S608 - constants
    (text,) = source.database.execute(sql, {**bound, "limit": -1 if limit is None else limit}).fetchone()
    return list(msgspec.json.decode(text))


def _exactly(column: str) -> str:
    """A number with all its digits: SQLite's way to JSON keeps 15, and a cursor would miss its row."""
    return f"CASE typeof({column}) WHEN 'real' THEN json(printf('%!.17g', {column})) ELSE {column} END"


def _limited(rows: list[list[Any]], limit: int | None) -> tuple[list[list[Any]], bool]:
    """The rows within the limit, and whether there were more."""
    if limit is None or len(rows) <= limit:
        return rows, False
    return rows[:limit], True


def _one_more(arguments: dict[str, Any]) -> int | None:
    limit = arguments.get("limit")
    return None if limit is None else limit + 1


def _after(arguments: dict[str, Any], *types: type | tuple[type, ...]) -> list[Any] | None:
    """The cursor of a listing, if there is one of the right shape."""
    cursor = arguments.get("after")
    if cursor is None:
        return None
    if len(cursor) != len(types) or not all(map(isinstance, cursor, types)):
        raise Refusal(ErrorCode.BAD_REQUEST, "after must be the `next` of an answer before", "after")
    return list(cursor)


_NUMBER = (int, float)
_PLACE = "segment, offset, length, crc"


# --- jobs, checkpoints, settings -------------------------------------------------------------------


def retrieve_job(source: Source, arguments: dict[str, Any]) -> Answer:
    """The job, or null."""
    row = source.database.execute(f"SELECT {_PLACE} FROM job WHERE id = :jobId", arguments).fetchone()  # noqa: S608
    return Answer(
        {}, iter([b"null" if row is None else value_at(source.reader, Place(*row), source.indexed)])
    )


def retrieve_checkpoint(source: Source, arguments: dict[str, Any]) -> Answer:
    """The checkpoint.

    Raises:
        Refusal: NOT_FOUND.
    """
    row = source.database.execute(
        f"SELECT {_PLACE} FROM checkpoint WHERE job = :jobId AND id = :checkpointId",  # noqa: S608
        arguments,
    ).fetchone()
    if row is None:
        raise Refusal(ErrorCode.NOT_FOUND, f"checkpoint not found: {arguments['checkpointId']}")
    return Answer({}, iter([value_at(source.reader, Place(*row), source.indexed)]))


def get_all_jobs(source: Source, arguments: dict[str, Any]) -> Answer:
    """All jobs, newest first."""
    after = _after(arguments, _NUMBER, str)
    where = "" if after is None else "WHERE started_at < :a OR (started_at = :a AND id > :b)"
    bound = {} if after is None else {"a": after[0], "b": after[1]}
    query = f"SELECT {_PLACE}, started_at, id FROM job {where} ORDER BY started_at DESC, id"  # noqa: S608
    rows = _rows(source, f"{_PLACE}, {_exactly('started_at')}, id", query, bound, _one_more(arguments))
    return _stored_values(source, rows, arguments)


def get_checkpoints_by_job_id(source: Source, arguments: dict[str, Any]) -> Answer:
    """All checkpoints of a job by step."""
    after = _after(arguments, int, int)
    where = "" if after is None else "AND (step, position) > (:a, :b)"
    bound = {"job": arguments["jobId"]} | ({} if after is None else {"a": after[0], "b": after[1]})
    query = (
        f"SELECT {_PLACE}, step, position FROM checkpoint WHERE job = :job {where} ORDER BY step, position"  # noqa: S608
    )
    rows = _rows(source, f"{_PLACE}, step, position", query, bound, _one_more(arguments))
    return _stored_values(source, rows, arguments)


def _stored_values(source: Source, rows: list[list[Any]], arguments: dict[str, Any]) -> Answer:
    """Rows of a place and a cursor, answered as the values that stand there."""
    rows, more = _limited(rows, arguments.get("limit"))
    return Answer(
        {"next": rows[-1][4:] if more else None}, _array(values_at(source.reader, rows, source.indexed))
    )


def get_all_runs(source: Source, arguments: dict[str, Any]) -> Answer:
    """All run settings, the one updated last first."""
    after = _after(arguments, _NUMBER, str, str)
    where = (
        ""
        if after is None
        else "WHERE updated_at < :a OR (updated_at = :a AND (run.job, run.name) > (:b, :c))"
    )
    bound = {} if after is None else {"a": after[0], "b": after[1], "c": after[2]}
    names = f"{_PLACE}, rewritten, lacks, updated_at, job, name"
    query = (
        f"SELECT {names} FROM setting JOIN run ON run.id = setting.run {where}"  # noqa: S608
        " ORDER BY updated_at DESC, job, name"
    )
    names = f"{_PLACE}, rewritten, lacks, {_exactly('updated_at')}, job, name"
    rows, more = _limited(_rows(source, names, query, bound, _one_more(arguments)), arguments.get("limit"))
    return Answer(
        {"next": rows[-1][6:] if more else None},
        _array(_settings(source, rows, masked="masked" in arguments)),
    )


def _settings(source: Source, rows: list[list[Any]], *, masked: bool) -> Iterator[bytes]:
    for payload, row in zip(values_at(source.reader, rows, source.indexed), rows, strict=True):
        rewritten, lacks, updated_at = row[4:7]
        text = with_defaults(setting_text(bytes(payload), updated_at, rewritten=bool(rewritten)), lacks)
        yield mask(text) if masked else text


# --- events ----------------------------------------------------------------------------------------

_META_ROWS = """
  FROM event WHERE run = :run AND position <= :newest AND (step, position) > (:a, :b)
  ORDER BY step, position"""
_META = f"""
SELECT CAST(group_concat(printf('{{"timestamp":%s,"stepNumber":%d,"type":%s}}', coalesce(at, timestamp), step,
  json_quote(type)), ',') AS BLOB), count(*), max(step)
FROM (SELECT at, timestamp, step, type {_META_ROWS} LIMIT :limit)
"""  # noqa: S608 - constants
_META_NEXT = f"SELECT step, position {_META_ROWS} LIMIT 1 OFFSET :limit - 1"
_EXACT = "coalesce(CAST(at AS REAL), timestamp)"
_CONTENTS = f"""
SELECT {_PLACE}, timestamp, position FROM event
WHERE run = :run AND position <= :newest AND step <= :step AND timestamp >= :a AND (timestamp > :a
  OR ({_EXACT}, position) > (SELECT {_EXACT}, position FROM event WHERE run = :run AND timestamp = :a AND
  position = :b))
ORDER BY timestamp, {_EXACT}, position
"""  # noqa: S608 - constants


def _event_bounds(source: Source, arguments: dict[str, Any]) -> dict[str, Any]:
    """What every page of a listing of events binds. An event stored meanwhile is in none of them."""
    run = source.database.execute(
        "SELECT id FROM run WHERE job = :jobId AND name = :runId", arguments
    ).fetchone()
    (newest,) = source.database.execute("SELECT position FROM cursor").fetchone()
    after = _after(arguments, int, int) or [-1, -1]
    return {"run": -1 if run is None else run[0], "newest": newest, "a": after[0], "b": after[1]}


def get_events_by_run(source: Source, arguments: dict[str, Any]) -> Answer:
    """Timestamp, step and type of each event of a run, by step."""
    bound = _event_bounds(source, arguments)
    limit = arguments.get("limit")
    if limit is None:
        listing = source.listings.of(source.database, bound["run"], bound["newest"])
        return Answer({}, _metas(source, bound, listing))
    page = _meta_page(source, bound, (bound["a"], bound["b"]), min(limit, LIMIT_MAX))
    more = not page.ends and _meta_page(source, bound, page.last, 1).text
    return Answer({"next": page.last if more else None}, iter([b"[", page.text, b"]"]))


def _metas(source: Source, bound: dict[str, Any], listing: Listing) -> Iterator[bytes]:
    """Pieces of the whole listing: pages that are kept, and those that are missing."""
    page, before = Page(b"", START, ends=False), b"["
    while not page.ends:
        after = page.last
        known = listing.pages.get(after)
        page = _meta_page(source, bound, after, PAGE_ROWS) if known is None else known
        if known is None:
            source.listings.add(listing, after, page)
        if page.text:
            yield before
            yield page.text
            before = b","
    yield b"]" if before == b"," else b"[]"


def _meta_page(source: Source, bound: dict[str, Any], after: Cursor, rows: int) -> Page:
    """So many items behind a cursor."""
    page = {**bound, "a": after[0], "b": after[1], "limit": rows}
    text, count, step = source.database.execute(_META, page).fetchone()
    if count == rows:
        return Page(text, source.database.execute(_META_NEXT, page).fetchone(), ends=False)
    return Page(text or b"", (after[0] if step is None else step, bound["newest"]), ends=True)


def get_event_contents(source: Source, arguments: dict[str, Any]) -> Answer:
    """The events of a run up to a step, by timestamp."""
    bound = _event_bounds(source, arguments) | {"step": arguments.get("maxStep", 2**60)}
    limit = arguments.get("limit")
    if limit is not None:
        limit = min(limit, LIMIT_MAX)
        rows, more = _limited(_contents_page(source, bound, limit + 1), limit)
        return Answer(
            {"next": rows[-1][4:] if more else None}, _array(values_at(source.reader, rows, source.indexed))
        )
    return Answer({}, _array(_contents(source, bound, _contents_page(source, bound, PLACES_ROWS))))


def _contents_page(source: Source, bound: dict[str, Any], limit: int) -> list[list[Any]]:
    return _rows(source, f"{_PLACE}, timestamp, position", _CONTENTS, bound, limit)


def _contents(source: Source, bound: dict[str, Any], rows: list[list[Any]]) -> Iterator[memoryview]:
    while rows:
        yield from values_at(source.reader, rows, source.indexed)
        if len(rows) < PLACES_ROWS:
            return
        rows = _contents_page(source, {**bound, "a": rows[-1][4], "b": rows[-1][5]}, PLACES_ROWS)


# --- the journal by position -----------------------------------------------------------------------


def read_all(source: Source, arguments: dict[str, Any]) -> Answer:
    """Records behind a position, in order, without events that repeat an earlier one.

    All records: as many as asked for, read as they are sent. For a follower, or of one job or run: what a
    stretch of the journal holds, which may be nothing.
    """
    after = arguments.get("after", 0)
    limit = min(arguments.get("limit", READ_ALL_RECORDS_MAX), READ_ALL_RECORDS_MAX)
    until = source.indexed()
    if "waitMs" in arguments or "jobId" in arguments:
        if after >= until.position:
            return Answer({"next": after}, iter([b"[]"]))
        found = stretch.read(source.database, source.reader, after, until)
        wanted = stretch.Wanted(arguments.get("jobId"), arguments.get("runId"), "masked" in arguments)
        taken = found.take(after, wanted, limit, STRETCH_ANSWER_BYTES)
        lost = found.gaps(after, taken.next)
        return Answer(stretch.told(taken.next, lost), iter([taken.body]))
    last = min(until.position, after + limit)
    repeats = stretch.repeats_between(source.database, after, last)
    following = max(last, after)
    lost = stretch.gaps_between(source.database, after, last)
    return Answer(
        stretch.told(following, lost),
        _array(_records(source, after, last, until, repeats, masked="masked" in arguments)),
    )


def _records(
    source: Source, after: int, last: int, until: Mark, repeats: set[int], *, masked: bool
) -> Iterator[bytes]:
    if after >= last:
        return
    for entry in stretch.entries(source.database, source.reader, after, until):
        for position, item in enumerate(
            record.record_places(entry.data, entry.header), entry.header.position
        ):
            if position > last:
                return
            if position > after and position not in repeats and item.kind != record.Kind.GAP:
                payload = entry.data[item.start : item.start + item.length]
                yield stretch.item_of(position, entry.header.time_ms, item.kind, payload, masked=masked)


OPERATIONS = {
    "retrieveJob": retrieve_job,
    "retrieveCheckpoint": retrieve_checkpoint,
    "getAllJobs": get_all_jobs,
    "getCheckpointsByJobId": get_checkpoints_by_job_id,
    "getEventsByRun": get_events_by_run,
    "getEventContents": get_event_contents,
    "getAllRuns": get_all_runs,
    "readAll": read_all,
}
