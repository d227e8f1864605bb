"""Reads events from the index: from its blocks and its rows, in the orders of the reads.

Nothing is kept open between portions: a long listing holds up no checkpoint. An event that is indexed
meanwhile has a position after `newest`, and is left out.
"""

import sqlite3
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from perstack_stored.errors import IndexUnusableError
from perstack_stored.index.event_blocks import EVENTS_MAX, BadBlockError, EventBlock, decode
from perstack_stored.index.value_lookup import ValueAddress

_Item = TypeVar("_Item", bound=tuple[Any, ...])

PORTION = 2048
"""Events in a portion at most: bounds the objects made at a time under the interpreter's lock."""

Meta = tuple[int, int, int | str, str]
"""Step, position, timestamp (as text if it has a fraction) and type of an event."""
Content = tuple[float, int, int, int, int, int, int]
"""Timestamp, position, segment, offset, length, crc32c, timestamp without its fraction."""

_EXACT = "coalesce(CAST(at AS REAL), timestamp)"
_HAS_ROWS = "SELECT EXISTS (SELECT 1 FROM event WHERE run = ?)"
_BLOCKS_BY_STEP = (
    "SELECT data FROM event_block WHERE run = ? AND (last_step, last_position) > (?, ?)"
    " ORDER BY last_step, last_position LIMIT ?"
)
_BLOCKS_BY_TIME = (
    "SELECT data FROM event_block WHERE run = ? AND (last_timestamp, last_position) > (?, ?)"
    " ORDER BY last_timestamp, last_position LIMIT ?"
)
_ROWS_BY_STEP = (
    "SELECT step, position, coalesce(at, timestamp), type FROM event INDEXED BY event_order"
    " WHERE run = ? AND (step, position) > (?, ?) AND position <= ? ORDER BY step, position LIMIT ?"
)
_CONTENT = f"{_EXACT}, position, segment, offset, length, crc, timestamp"
# Each leg enters the index where the page begins, however many events share a timestamp.
_FORWARD_LEGS = (f"{_EXACT} = :at AND position > :position", f"{_EXACT} > :at")
_BACKWARD_LEGS = (f"{_EXACT} = :at AND position < :position", f"{_EXACT} < :at")
_BLOCKS_BACKWARD = (
    "SELECT data FROM event_block WHERE run = ? AND (last_timestamp, last_position) < (?, ?)"
    " ORDER BY last_timestamp DESC, last_position DESC LIMIT ?"
)
_BLOCK_AT = (
    "SELECT data FROM event_block WHERE run = ? AND (last_timestamp, last_position) >= (?, ?)"
    " ORDER BY last_timestamp, last_position LIMIT 1"
)
# A cursor holds a timestamp without its fraction. Mostly it has none: then an index finds its event at once.
_BY_TIME = "event INDEXED BY event_time"
_IS_EXACT = f"SELECT EXISTS (SELECT 1 FROM {_BY_TIME} WHERE run = ? AND {_EXACT} = ? AND position = ?)"  # noqa: S608
_EXACT_OF = f"SELECT {_EXACT} FROM event WHERE run = ? AND timestamp = ? AND position = ?"  # noqa: S608
BEFORE_ALL = (-1, -1)
AFTER_ALL = (2**62, 2**62)


class IndexedEvent(NamedTuple):
    """An event with all that the index knows of it: the columns of the table `event`."""

    run: int
    timestamp: int
    step: int
    type: str
    n: int
    at: str | None
    position: int
    segment: int
    offset: int
    length: int
    crc: int


class Wanted(NamedTuple):
    """Which events of a run are read by time.

    Attributes:
        newest: events with a later position are left out.
        min_step, max_step: events of other steps are left out.
        types: events of other types are left out; None for all.
        backward: the newest event first.
    """

    newest: int
    min_step: float = -(2**60)
    max_step: float = 2**60
    types: frozenset[str] | None = None
    backward: bool = False


Place = tuple[Any, int]
"""Step or timestamp, and position."""


@dataclass(frozen=True, slots=True)
class _Order(Generic[_Item]):
    """An order of events.

    Attributes:
        blocks: the blocks after a place, at most a count, and the place that they reach; None if they are
            the last ones.
        in_block: the events of a block, in the order.
        rows: the events in rows after a place, at most a count.
        key: of a place, or of an item, which begins with its place: it ascends in the order.
    """

    blocks: Callable[[Place, int], tuple[list[EventBlock], Place | None]]
    in_block: Callable[[EventBlock], list[_Item]]
    rows: Callable[[Place, int], list[_Item]]
    key: Callable[[tuple[Any, ...]], tuple[Any, ...]]


def decode_block(data: object) -> EventBlock:
    """Decode a block of the index.

    Raises:
        IndexUnusableError: it has changed.
    """
    try:
        if not isinstance(data, bytes):
            raise BadBlockError("an event block is no BLOB")
        return decode(data)
    except BadBlockError as error:
        raise IndexUnusableError(str(error)) from error


def by_step(
    database: sqlite3.Connection, run: int, after: tuple[int, int], newest: int, limit: int
) -> Iterator[list[Meta]]:
    """The events of a run by step and position, in portions, after a step and position.

    Args:
        database: the index.
        run: number of the run.
        after: step and position.
        newest: events with a later position are left out.
        limit: count of events at most.

    Raises:
        IndexUnusableError: the index is damaged.
    """

    def blocks(after: Place, count: int) -> tuple[list[EventBlock], Place | None]:
        rows = database.execute(_BLOCKS_BY_STEP, (run, *after, count)).fetchall()
        found = [decode_block(data) for (data,) in rows]
        step, _, position = found[-1].last if found else (0, 0, 0)
        return found, (step, position) if len(found) == count else None

    def in_block(block: EventBlock) -> list[Meta]:
        return list[Meta](block.metas(block.upto(newest)))

    def rows(after: Place, count: int) -> list[Meta]:
        return database.execute(_ROWS_BY_STEP, (run, *after, newest, count)).fetchall()

    portions = _merged(database, run, after, limit, _Order(blocks, in_block, rows, _place))
    return (events for events in portions if events)


def by_time(
    database: sqlite3.Connection, run: int, after: tuple[int, int], wanted: Wanted, limit: int
) -> Iterator[list[Content]]:
    """Some events of a run by timestamp and position, in portions; `after` is a timestamp and a position.

    Other arguments and errors are those of `by_step`. A portion may be empty: nothing was wanted there.
    """
    newest, min_step, max_step, types, backward = wanted

    def blocks(after: Place, count: int) -> tuple[list[EventBlock], Place | None]:
        statement = _BLOCKS_BACKWARD if backward else _BLOCKS_BY_TIME
        rows = database.execute(statement, (run, *after, count)).fetchall()
        found = [decode_block(data) for (data,) in rows]
        reached: Place | None = None
        if len(found) == count:
            (step, *end), first = found[-1].last, found[-1]
            if backward and step >= min_step:
                reached = first.timestamp, first.position
            elif not backward and first.step <= max_step:  # steps never decrease from block to block
                reached = end[0], end[1]
        if backward:
            around = database.execute(_BLOCK_AT, (run, *after)).fetchall()
            found = [decode_block(data) for (data,) in around] + found
        return found, reached

    def in_block(block: EventBlock) -> list[Content]:
        segment = block.segment
        if block.step > max_step or block.last[0] < min_step or not (types is None or types & {*block.types}):
            return []
        found: list[Content] = [
            (timestamp, position, segment, offset, length, crc, timestamp)
            for position, timestamp, step, offset, length, crc, type, _ in block.rows(0, block.upto(newest))
            if min_step <= step <= max_step and (types is None or type in types)
        ]
        return found[::-1] if backward else found

    selects = _row_selects(types, backward=backward)

    def rows(after: Place, count: int) -> list[Content]:
        found: list[Content] = []
        bound = {"run": run, "at": after[0], "position": after[1], "newest": newest}
        bound |= {"min_step": min_step, "max_step": max_step, **_numbered(types)}
        for select in selects:
            found += database.execute(select, {**bound, "limit": count - len(found)}).fetchall()
        return found

    (is_exact,) = database.execute(_IS_EXACT, (run, *after)).fetchone()
    exact = None if is_exact else database.execute(_EXACT_OF, (run, *after)).fetchone()
    begin = after if exact is None else (exact[0], after[1])
    key = _place_backward if backward else _place
    return _merged(database, run, begin, limit, _Order(blocks, in_block, rows, key))


def _row_selects(types: frozenset[str] | None, *, backward: bool) -> list[str]:
    """Statements for the events in rows after a place."""
    of_type = "" if types is None else f" AND type IN ({', '.join(f':{name}' for name in _numbered(types))})"
    # SQLite does not see that the index has the order where the timestamp is given.
    orders = (
        ("position DESC", f"{_EXACT} DESC, position DESC")
        if backward
        else ("position", f"{_EXACT}, position")
    )
    return [
        f"SELECT {_CONTENT} FROM event INDEXED BY event_time WHERE run = :run AND {leg}"  # noqa: S608 - constants
        f" AND position <= :newest AND step BETWEEN :min_step AND :max_step{of_type}"
        f" ORDER BY {order} LIMIT :limit"
        for leg, order in zip(_BACKWARD_LEGS if backward else _FORWARD_LEGS, orders, strict=True)
    ]


def _numbered(types: frozenset[str] | None) -> dict[str, str]:
    return {f"type{number}": type for number, type in enumerate(sorted(types or ()))}


def _merged(
    database: sqlite3.Connection, run: int, after: Place, limit: int, order: "_Order[_Item]"
) -> Iterator[list[_Item]]:
    """Merge the events of blocks and rows; the first two members of an item are its place in the order."""
    (has_rows,) = database.execute(_HAS_ROWS, (run,)).fetchone()
    key = order.key
    while limit > 0:
        blocks, upto = order.blocks(after, min(PORTION, limit) // EVENTS_MAX + 1)
        items = [item for block in blocks for item in order.in_block(block)]
        items = items[bisect_right(items, key(after), key=key) :]
        if has_rows:
            count = min(PORTION, limit)
            late = order.rows(after, count)
            if len(late) == count and (upto is None or key(late[-1]) < key(upto)):
                upto = late[-1][:2]
            items = sorted(items + late, key=key)
            if upto is not None:
                items = items[: bisect_right(items, key(upto), key=key)]
        items = items[:limit]
        yield items
        limit -= len(items)
        if upto is None:
            return
        after = upto


def _place(item: tuple[Any, ...]) -> tuple[Any, ...]:
    return item[:2]


def _place_backward(item: tuple[Any, ...]) -> tuple[Any, ...]:
    return -item[0], -item[1]


def find_in_blocks(
    database: sqlite3.Connection, run: int, timestamp: int, step: int, type: str
) -> list[tuple[int, ValueAddress]]:
    """The events of a name that stand in blocks: n and address of each."""
    events: list[tuple[int, ValueAddress]] = []
    select = (
        "SELECT data FROM event_block WHERE run = ? AND last_timestamp >= ?"
        " ORDER BY last_timestamp, last_position"
    )
    for (data,) in database.execute(select, (run, timestamp)):
        block = decode_block(data)
        if block.timestamp > timestamp:
            break
        events += addresses_in(block, timestamp, step, type)
    return events


def addresses_in(block: EventBlock, timestamp: int, step: int, type: str) -> list[tuple[int, ValueAddress]]:
    """The events of a name in a block: n and address of each."""
    return [
        (n, ValueAddress(block.segment, offset, length, crc))
        for _, _, _, offset, length, crc, _, n in block.named(timestamp, step, type)
    ]


def has_event(database: sqlite3.Connection, run: int, timestamp: int, step: int, type: str, n: int) -> bool:
    """Whether the run has an event of this name, which is not lost."""
    key = "run = ? AND timestamp = ? AND step = ? AND type = ? AND n = ? AND segment > 0"
    select = f"SELECT EXISTS (SELECT 1 FROM event WHERE {key})"  # noqa: S608 - constants
    if database.execute(select, (run, timestamp, step, type, n)).fetchone()[0]:
        return True
    return any(n == found for found, _ in find_in_blocks(database, run, timestamp, step, type))


def count_events(database: sqlite3.Connection) -> int:
    """Count of the events that are not lost."""
    (rows,) = database.execute("SELECT count(*) FROM event WHERE segment > 0").fetchone()
    blocks = database.execute("SELECT data FROM event_block")
    return int(rows) + sum(len(decode_block(data)) for (data,) in blocks)


def events_of_run(database: sqlite3.Connection, run: int) -> Iterator[IndexedEvent]:
    """The events of a run that are not lost: first those in blocks, each part by position."""
    yield from block_events(database, run)
    yield from (event for event in row_events(database, run) if event.segment)


def block_events(database: sqlite3.Connection, run: int, schema: str = "main") -> Iterator[IndexedEvent]:
    """The events of a run in blocks, by position; `schema` names an attached database."""
    select = f"SELECT data FROM {schema}.event_block WHERE run = ? ORDER BY last_step, last_position"  # noqa: S608
    for (data,) in database.execute(select, (run,)):
        yield from _as_events(run, decode_block(data))


def row_events(database: sqlite3.Connection, run: int, schema: str = "main") -> Iterator[IndexedEvent]:
    """The other events of a run by position, the lost ones (their segment is 0) at the end."""
    select = f"SELECT * FROM {schema}.event WHERE run = ? ORDER BY position"  # noqa: S608
    yield from map(IndexedEvent._make, database.execute(select, (run,)))


def _as_events(run: int, block: EventBlock) -> Iterator[IndexedEvent]:
    segment = block.segment
    for position, timestamp, step, offset, length, crc, type, n in block.rows():
        yield IndexedEvent(run, timestamp, step, type, n, None, position, segment, offset, length, crc)
