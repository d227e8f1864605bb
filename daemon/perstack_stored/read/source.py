"""What queries read from and answer with, and how rows come out of the index."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import msgspec

from perstack_storage.protocol import ErrorCode
from perstack_stored.errors import Refusal
from perstack_stored.index.connection import connect, read_cursor
from perstack_stored.index.value_lookup import Values, values_at
from perstack_stored.journal.reader import JournalReader, LogPosition
from perstack_stored.model.omission import Fields, fields_of, pieces_without, without
from perstack_stored.read.listing_cache import ListingCache
from perstack_stored.read.open_answers import Buffer

LIMIT_MAX = 10_000  # items per answer at most where the client gives a limit

PAGE_ROWS = 16_384  # of texts queried at a time; a run of 10,000 events takes one query

PLACES_ROWS = 2048  # of addresses: bounds the objects made at a time under the interpreter's lock

STRETCH_ANSWER_BYTES = 1 << 20


class Answer(NamedTuple):
    """Result of a query: header fields, pieces of the body, and the memory of those not made yet."""

    fields: dict[str, object]
    pieces: Iterator[bytes | memoryview]
    memory: Callable[[], int] | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """What a query reads from: the index, the journal, and cached listings; all of the calling thread."""

    database: sqlite3.Connection
    reader: JournalReader
    listings: ListingCache = field(default_factory=lambda: ListingCache(0))
    generation: int = 0  # of the index; a later one may be another file

    def indexed(self) -> LogPosition:
        """The log position up to which the index is complete.

        Raises:
            IndexUnusableError: it is damaged.
        """
        return read_cursor(self.database)

    @contextlib.contextmanager
    def read_transaction(self) -> Iterator[None]:
        """Context in which all reads of the index are of one moment."""
        self.database.execute("BEGIN")
        try:
            yield
        finally:
            if self.database.in_transaction:
                self.database.execute("COMMIT")

    @contextlib.contextmanager
    def of_one_moment(self) -> Iterator["Source"]:
        """A second source whose reads of the index are of one moment; this one stays usable meanwhile."""
        (_, _, path) = self.database.execute("PRAGMA database_list").fetchone()
        with contextlib.closing(connect(path, read_only=True)) as database:
            database.execute("BEGIN")
            yield replace(self, database=database)

    def close(self) -> None:
        """Close both. Never fails: the files may be damaged."""
        with contextlib.suppress(sqlite3.Error):
            self.database.close()
        self.reader.close()


def json_array(values: Iterable[Values]) -> Iterator[Buffer]:
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


def query_text(source: Source, sql: str, bound: dict[str, Any]) -> bytes:
    """Rows of a query as one JSON text."""
    (text,) = source.database.execute(sql, bound).fetchone()
    return bytes(text)


def as_json_text(names: str, query: str) -> str:
    """A query that returns its rows as one JSON text. `names` are the columns that `query` selects."""
    return f"SELECT CAST(json_group_array(json_array({names})) AS BLOB) FROM ({query})"  # noqa: S608


decode_rows = msgspec.json.Decoder(list[list[Any]]).decode


def exact_number(column: str) -> str:
    """A number with all its digits: SQLite's way to JSON keeps 15, and a cursor would miss its row."""
    return f"CASE typeof({column}) WHEN 'real' THEN json(printf('%!.17g', {column})) ELSE {column} END"


MakeValues = Callable[[list[list[Any]]], Iterator[Values]]


def cursor_of(arguments: dict[str, Any], *types: type | tuple[type, ...]) -> list[Any] | None:
    """The cursor of a listing, if there is one of the right shape."""
    cursor = arguments.get("after")
    if cursor is None:
        return None
    if len(cursor) != len(types) or not all(map(isinstance, cursor, types)):
        raise Refusal(ErrorCode.BAD_REQUEST, "after must be the `next` of an answer before", "after")
    return list(cursor)


NUMBER = (int, float)

ADDRESS = "segment, offset, length, crc"


def values_of(source: Source) -> MakeValues:
    """Return the reader of values for rows that begin with `ADDRESS`."""
    return lambda rows: values_at(source.reader, rows, source.indexed)


def parts_of(source: Source, arguments: dict[str, Any]) -> MakeValues:
    """The same without the fields named by `omit` in the arguments."""
    fields = fields_of(arguments.get("omit", ()))
    if not fields:
        return values_of(source)
    return lambda rows: _without(values_at(source.reader, rows, source.indexed), fields)


def _without(values: Iterable[Values], fields: Fields) -> Iterator[Values]:
    for some in values:
        if isinstance(some, list):
            yield [memoryview(without(bytes(value), fields)) for value in some]
        else:
            yield pieces_without(some, fields)
