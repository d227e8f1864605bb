"""The reads: the index is asked where, the journal for the bytes.

A query gives pieces of a JSON text, lazily, so that an answer of any size needs memory for a part of it
only. Each SQL statement gives one row, a JSON text: the interpreter's lock is taken once, not once a row.
"""

import contextlib
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, NamedTuple

import msgspec

from perstack_storage.protocol import ErrorCode
from perstack_stored.errors import Refusal
from perstack_stored.index.connection import connect, read_cursor
from perstack_stored.index.value_lookup import PIECE_BYTES, ValueAddress, Values, pieces_at, values_at
from perstack_stored.journal import format as record
from perstack_stored.journal.reader import Entry, JournalReader, LogPosition
from perstack_stored.model.edits import Edit, edited, joined
from perstack_stored.model.kinds import Kind
from perstack_stored.model.masking import mask, mask_pieces
from perstack_stored.model.run_settings import setting_edits
from perstack_stored.protocol.limits import READ_ALL_RECORDS_MAX

from . import window as stretch
from .listing_cache import START, Cursor, Listing, ListingCache, Page
from .open_answers import Buffer

LIMIT_MAX = 10_000  # items that a client gets at most where it asks for a limit
PAGE_ROWS = 16_384  # of texts asked for at a time; a run of 10,000 events takes one question
PLACES_ROWS = 2048  # of places: as many objects are made at a time, holding the interpreter's lock
STRETCH_ANSWER_BYTES = 1 << 20


class Answer(NamedTuple):
    """Result of a query: fields for the header, pieces of the body, and what memory those take until made."""

    fields: dict[str, object]
    pieces: Iterator[bytes | memoryview]
    memory: Callable[[], int] | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """What a query reads from: the index, the journal, and listings of before; all of the calling thread."""

    database: sqlite3.Connection
    reader: JournalReader
    listings: ListingCache = field(default_factory=lambda: ListingCache(0))
    generation: int = 0  # of the index; a later one may be another file

    def indexed(self) -> LogPosition:
        """The place up to which the index is complete.

        Raises:
            IndexUnusableError: it is damaged.
        """
        return read_cursor(self.database)

    @contextlib.contextmanager
    def read_transaction(self) -> Iterator[None]:
        """All that is read of the index meanwhile is of one moment."""
        self.database.execute("BEGIN")
        try:
            yield
        finally:
            if self.database.in_transaction:
                self.database.execute("COMMIT")

    @contextlib.contextmanager
    def of_one_moment(self) -> Iterator["Source"]:
        """The same, and what is read of its index is of one moment; others may use this one meanwhile."""
        (_, _, path) = self.database.execute("PRAGMA database_list").fetchone()
        with contextlib.closing(connect(path, read_only=True)) as database:
            database.execute("BEGIN")
            yield replace(self, database=database)

    def close(self) -> None:
        """Close both. Never fails: what is given up may be damaged."""
        with contextlib.suppress(sqlite3.Error):
            self.database.close()
        self.reader.close()


def _array(values: Iterable[Values]) -> Iterator[Buffer]:
    """Pieces of a JSON array of values."""
    before = b"["
    for some in values:
        if isinstance(some, list):
            yield before
            yield b",".join(some)
        else:
            yield before
            yield from some
        before = b","
    yield b"]" if before == b"," else b"[]"


# --- rows from the index ---------------------------------------------------------------------------


def _text(source: Source, sql: str, bound: dict[str, Any]) -> bytes:
    """Rows of a query as one JSON text."""
    (text,) = source.database.execute(sql, bound).fetchone()
    return bytes(text)


def _as_text(names: str, query: str) -> str:
    """A query that gives one JSON text of its rows. `names` are the columns that `query` selects."""
    return f"SELECT CAST(json_group_array(json_array({names})) AS BLOB) FROM ({query})"  # noqa: S608


_rows_of = msgspec.json.Decoder(list[list[Any]]).decode


def _exactly(column: str) -> str:
    """A number with all its digits: SQLite's way to JSON keeps 15, and a cursor would miss its row."""
    return f"CASE typeof({column}) WHEN 'real' THEN json(printf('%!.17g', {column})) ELSE {column} END"


class _Order:
    """The rows of a listing in its order, from the beginning or from behind a cursor.

    Both are asked so that SQLite goes through an index from the place where the page begins: a page costs
    what it holds, wherever it is.
    """

    def __init__(self, names: str, shown: str, first: str, *behind: tuple[str, str], cursor: int) -> None:
        """`shown` are the `names` as they are answered; the last `cursor` of them say where to go on.

        `first` is what to select from, and in which order. `behind` are conditions, and orders: the rows
        behind a cursor are those of the first condition, and then those of the others.
        """
        self.cursor = cursor
        select = f"SELECT {names} FROM "  # noqa: S608 - constants, as below
        self.first = _as_text(shown, f"{select} {first} LIMIT :limit")
        table = first.split(" ORDER ", 1)[0]
        word = "AND" if " WHERE " in table else "WHERE"
        legs = [
            f"SELECT * FROM ({select} {table} {word} {condition} ORDER BY {order} LIMIT :limit)"  # noqa: S608
            for condition, order in behind
        ]
        self.behind = _as_text(shown, f"{' UNION ALL '.join(legs)} LIMIT :limit")


def _page(
    source: Source, order: _Order, bound: dict[str, Any], after: Sequence[Any] | None, limit: int
) -> bytes:
    if after is None:
        return _text(source, order.first, {**bound, "limit": limit})
    cursor = dict(zip("abc", after, strict=False))
    return _text(source, order.behind, {**bound, **cursor, "limit": limit})


class _Texts:
    """Rows of a listing, of one moment, that are still to be answered: as lists they take ten times as much.

    Attributes:
        size: their bytes.
    """

    def __init__(self) -> None:
        self._texts: deque[bytes] = deque()
        self.size = 0

    def make(
        self, source: Source, order: _Order, bound: dict[str, Any], after: Sequence[Any] | None
    ) -> Iterator[None]:
        """Take up all rows, in a step for each page. What is stored meanwhile is in none of them."""
        with source.of_one_moment() as moment:
            count = PLACES_ROWS
            while count == PLACES_ROWS:
                text = _page(moment, order, bound, after, PLACES_ROWS)
                rows = _rows_of(text)
                count = len(rows)
                if rows:
                    after = rows[-1][-order.cursor :]
                    self._texts.append(text)
                    self.size += len(text)
                yield

    def take(self) -> Iterator[list[list[Any]]]:
        """All of them, page by page."""
        while self._texts:
            text = self._texts.popleft()
            self.size -= len(text)
            yield _rows_of(text)


_Made = Callable[[list[list[Any]]], Iterator[Values]]


def _listing(
    source: Source,
    order: _Order,
    bound: dict[str, Any],
    arguments: dict[str, Any],
    after: Sequence[Any] | None,
    made: _Made,
) -> Answer:
    """A whole listing, or a page of it; `made` gives the values of rows."""
    limit = arguments.get("limit")
    if limit is not None:
        limit = min(limit, LIMIT_MAX)
        rows = _some_rows(source, order, bound, after, limit + 1)
        rows, more = rows[:limit], len(rows) > limit
        return Answer({"next": rows[-1][-order.cursor :] if more else None}, _array(made(rows)))
    rows = _rows_of(_page(source, order, bound, after, PLACES_ROWS))
    if len(rows) < PLACES_ROWS:
        return Answer({"next": None}, _array(made(rows)))
    texts = _Texts()
    pieces = chain(
        (b"" for _ in texts.make(source, order, bound, after)),
        _array(values for rows in texts.take() for values in made(rows)),
    )
    return Answer({"next": None}, pieces, lambda: texts.size)


def _some_rows(
    source: Source, order: _Order, bound: dict[str, Any], after: Sequence[Any] | None, limit: int
) -> list[list[Any]]:
    """So many rows of one moment, asked for in portions: as many objects are made at a time."""
    rows: list[list[Any]] = []
    with source.read_transaction():
        while len(rows) < limit:
            portion = min(PLACES_ROWS, limit - len(rows))
            found = _rows_of(_page(source, order, bound, after, portion))
            rows += found
            if len(found) < portion:
                break
            after = found[-1][-order.cursor :]
    return rows


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
        {}, iter([b"null"]) if row is None else pieces_at(source.reader, ValueAddress(*row), source.indexed)
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
    return Answer({}, pieces_at(source.reader, ValueAddress(*row), source.indexed))


_JOBS = _Order(
    f"{_PLACE}, started_at, id",
    f"{_PLACE}, {_exactly('started_at')}, id",
    "job ORDER BY started_at DESC, id",
    ("started_at = :a AND id > :b", "id"),
    ("started_at < :a", "started_at DESC, id"),
    cursor=2,
)
_CHECKPOINTS = _Order(
    f"{_PLACE}, step, position",
    f"{_PLACE}, step, position",
    "checkpoint WHERE job = :job ORDER BY step, position",
    ("(step, position) > (:a, :b)", "step, position"),
    cursor=2,
)
_EDITS = "sent_start, sent_start + length(sent_at) AS sent_end, body_end"
_RUNS = _Order(
    f"{_PLACE}, rewritten, lacks, {_EDITS}, updated_at, job, name",
    f"{_PLACE}, rewritten, lacks, sent_start, sent_end, body_end, {_exactly('updated_at')}, job, name",
    "setting ORDER BY updated_at DESC, job, name",
    ("updated_at = :a AND (job, name) > (:b, :c)", "job, name"),
    ("updated_at < :a", "updated_at DESC, job, name"),
    cursor=3,
)


def get_all_jobs(source: Source, arguments: dict[str, Any]) -> Answer:
    """All jobs, newest first."""
    after = _after(arguments, _NUMBER, str)
    return _listing(source, _JOBS, {}, arguments, after, _values_of(source))


def get_checkpoints_by_job_id(source: Source, arguments: dict[str, Any]) -> Answer:
    """All checkpoints of a job by step."""
    after = _after(arguments, int, int)
    bound = {"job": arguments["jobId"]}
    return _listing(source, _CHECKPOINTS, bound, arguments, after, _values_of(source))


def _values_of(source: Source) -> _Made:
    return lambda rows: values_at(source.reader, rows, source.indexed)


def get_all_runs(source: Source, arguments: dict[str, Any]) -> Answer:
    """All run settings, the one updated last first."""
    after = _after(arguments, _NUMBER, str, str)
    masked = "masked" in arguments
    return _listing(source, _RUNS, {}, arguments, after, lambda rows: _settings(source, rows, masked=masked))


def _settings(source: Source, rows: list[list[Any]], *, masked: bool) -> Iterator[Values]:
    remaining = iter(rows)
    for some in values_at(source.reader, rows, source.indexed):
        if isinstance(some, list):
            texts = [b"".join(edited([bytes(payload)], _edits(next(remaining)))) for payload in some]
            yield [memoryview(mask(text) if masked else text) for text in texts]
            continue
        row = next(remaining)
        edits = _edits(row)
        pieces = edited(some, edits)
        if masked:
            pieces = mask_pieces(joined(pieces, row[2] + sum(len(instead) for _, _, instead in edits)))
        yield pieces


def _edits(row: list[Any]) -> list[Edit]:
    _, _, size, _, rewritten, lacks, start, end, body_end, updated_at = row[:10]
    return setting_edits(size, bool(rewritten), lacks, (start, end), body_end, updated_at)


# --- events ----------------------------------------------------------------------------------------

_META_ROWS = """
  FROM event INDEXED BY event_order WHERE run = :run AND position <= :newest AND (step, position) > (:a, :b)
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
ORDER BY timestamp, {_EXACT}, position LIMIT :limit
"""  # noqa: S608 - constants
_CONTENTS_TEXT = _as_text(f"{_PLACE}, timestamp, position", _CONTENTS)


def _event_bounds(source: Source, arguments: dict[str, Any]) -> dict[str, Any]:
    """What every page of a listing of events binds. An event stored meanwhile is in none of them."""
    after = _after(arguments, int, int) or [-1, -1]
    # First how far the index is: what it takes up until the next question is left out by that.
    (newest,) = source.database.execute("SELECT position FROM cursor").fetchone()
    run = source.database.execute(
        "SELECT id, stirred FROM run WHERE job = :jobId AND name = :runId", arguments
    ).fetchone() or (-1, 0)
    return {"run": run[0], "stirred": run[1], "newest": newest, "a": after[0], "b": after[1]}


def get_events_by_run(source: Source, arguments: dict[str, Any]) -> Answer:
    """Timestamp, step and type of each event of a run, by step."""
    bound = _event_bounds(source, arguments)
    after = (bound["a"], bound["b"])
    limit = arguments.get("limit")
    if limit is None:
        listing = None
        if after == START:
            listing = source.listings.of(source.database, bound["run"], bound["newest"], bound["stirred"])
        return Answer({}, _metas(source, bound, after, listing))
    page = _meta_page(source, bound, after, min(limit, LIMIT_MAX))
    more = not page.ends and _meta_page(source, bound, page.last, 1).text
    return Answer({"next": page.last if more else None}, iter([b"[", page.text, b"]"]))


def _metas(source: Source, bound: dict[str, Any], after: Cursor, listing: Listing | None) -> Iterator[bytes]:
    """Pieces of the whole listing: pages that are kept, and those that are missing."""
    page, before = Page(b"", after, ends=False), b"["
    while not page.ends:
        after = page.last
        known = None if listing is None else listing.pages.get(after)
        page = _meta_page(source, bound, after, PAGE_ROWS) if known is None else known
        if known is None and listing is not None:
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
    made = _values_of(source)
    if limit is None:
        return Answer({}, _array(values for rows in _contents(source, bound) for values in made(rows)))
    limit = min(limit, LIMIT_MAX)
    rows = [row for rows in _contents(source, bound, limit + 1) for row in rows]
    rows, more = rows[:limit], len(rows) > limit
    return Answer({"next": rows[-1][4:] if more else None}, _array(made(rows)))


def _contents(source: Source, bound: dict[str, Any], limit: int = 2**60) -> Iterator[list[list[Any]]]:
    """Rows of events behind a cursor in portions, as many as `limit`."""
    count = portion = 0
    while count == portion < limit:
        limit -= count
        portion = min(PLACES_ROWS, limit)
        rows = _rows_of(_text(source, _CONTENTS_TEXT, {**bound, "limit": portion}))
        count = len(rows)
        if rows:
            bound = {**bound, "a": rows[-1][4], "b": rows[-1][5]}
            yield rows


# --- the journal by position -----------------------------------------------------------------------


def read_all(source: Source, arguments: dict[str, Any]) -> Answer:
    """Records behind a position, in order, without events that repeat an earlier one.

    All records: as many as asked for, read as they are sent. For a follower, or of one job or run: what a
    stretch of the journal holds, which may be nothing.
    """
    after = arguments.get("after", 0)
    limit = min(arguments.get("limit", READ_ALL_RECORDS_MAX), READ_ALL_RECORDS_MAX)
    masked = "masked" in arguments
    until = source.indexed()
    if "waitMs" in arguments or "jobId" in arguments:
        if after >= until.position:
            return Answer({"next": after}, iter([b"[]"]))
        found = stretch.read(source.database, source.reader, after, until)
        wanted = stretch.Wanted(arguments.get("jobId"), arguments.get("runId"), masked)
        taken = found.take(after, wanted, limit, STRETCH_ANSWER_BYTES)
        fields = stretch.answer_fields(taken.next, found.gaps(after, taken.next))
        if taken.large is None:
            return Answer(fields, iter([taken.body]))
        large = stretch.pieces_of(taken.large, source.reader, source.indexed, masked=masked)
        return Answer(fields, _array([large]))
    last = min(until.position, after + limit)
    repeats = stretch.repeats_between(source.database, after, last)
    following = max(last, after)
    lost = stretch.gaps_between(source.database, after, last)
    return Answer(
        stretch.answer_fields(following, lost),
        _array(_records(source, after, last, until, repeats, masked=masked)),
    )


def _records(
    source: Source, after: int, last: int, until: LogPosition, repeats: set[int], *, masked: bool
) -> Iterator[Values]:
    if after >= last:
        return
    entries = stretch.entries(source.database, source.reader, after, until)
    for segment, offset, header, data, payload_crc in entries:
        if header.position > last:
            return
        if payload_crc is not None:
            large = stretch.large_of(Entry(segment, offset, header, data, payload_crc))
            if large.position > after and large.position not in repeats and large.kind != Kind.GAP:
                yield stretch.pieces_of(large, source.reader, source.indexed, masked=masked)
            continue
        items: list[memoryview] = []
        size = 0
        for position, item in enumerate(record.record_places(data, header), header.position):
            if after < position <= last and position not in repeats and item.kind != Kind.GAP:
                payload = data[item.start : item.start + item.length]
                text = stretch.item_of(position, header.time_ms, item.kind, payload, masked=masked)
                items.append(memoryview(text))
                size += len(text)
                if size > PIECE_BYTES:
                    yield items
                    items, size = [], 0
        if items:
            yield items


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
