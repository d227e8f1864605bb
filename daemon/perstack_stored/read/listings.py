"""Listings in their order: one page, or a whole listing that is made while it is sent."""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from perstack_stored.read.source import (
    LIMIT_MAX,
    PLACES_ROWS,
    Answer,
    MakeValues,
    Source,
    as_json_text,
    decode_rows,
    json_array,
    query_text,
)


class ListingOrder:
    """The rows of a listing in its order, from the beginning or after a cursor.

    Both queries let SQLite enter an index where the page begins: a page costs its own rows, wherever it
    is.
    """

    def __init__(self, names: str, shown: str, first: str, *following: tuple[str, str], cursor: int) -> None:
        """`shown` are the `names` as they are answered; the last `cursor` of them are the cursor.

        `first` is table and order. `following` are conditions, each with an order: rows after a cursor are
        those of the first condition, and then those of the others.
        """
        self.cursor = cursor
        select = f"SELECT {names} FROM "  # noqa: S608 - constants, as below
        self.first = as_json_text(shown, f"{select} {first} LIMIT :limit")
        table = first.split(" ORDER ", 1)[0]
        word = "AND" if " WHERE " in table else "WHERE"
        legs = [
            f"SELECT * FROM ({select} {table} {word} {condition} ORDER BY {order} LIMIT :limit)"  # noqa: S608
            for condition, order in following
        ]
        self.following = as_json_text(shown, f"{' UNION ALL '.join(legs)} LIMIT :limit")


def order_page(
    source: Source, order: ListingOrder, bound: dict[str, Any], after: Sequence[Any] | None, limit: int
) -> bytes:
    """The rows after a cursor, at most `limit`, as one JSON text."""
    if after is None:
        return query_text(source, order.first, {**bound, "limit": limit})
    cursor = dict(zip("abc", after, strict=False))
    return query_text(source, order.following, {**bound, **cursor, "limit": limit})


class ListedTexts:
    """Rows of a listing, of one moment, as JSON texts: as lists they would take ten times as much memory.

    Attributes:
        size: bytes of the texts.
    """

    def __init__(self) -> None:
        self._texts: deque[bytes] = deque()
        self.size = 0

    def make(
        self, source: Source, order: ListingOrder, bound: dict[str, Any], after: Sequence[Any] | None
    ) -> Iterator[None]:
        """Load all rows, in a step for each page. Records stored meanwhile are in none of them."""
        with source.of_one_moment() as moment:
            count = PLACES_ROWS
            while count == PLACES_ROWS:
                text = order_page(moment, order, bound, after, PLACES_ROWS)
                rows = decode_rows(text)
                count = len(rows)
                if rows:
                    after = rows[-1][-order.cursor :]
                    self._texts.append(text)
                    self.size += len(text)
                yield

    def take(self) -> Iterator[list[list[Any]]]:
        """Remove and return the rows, page by page."""
        while self._texts:
            text = self._texts.popleft()
            self.size -= len(text)
            yield decode_rows(text)


def listing(
    source: Source,
    order: ListingOrder,
    bound: dict[str, Any],
    arguments: dict[str, Any],
    after: Sequence[Any] | None,
    made: MakeValues,
) -> Answer:
    """A whole listing, or a page of it; `made` returns the values of rows."""
    limit = arguments.get("limit")
    if limit is not None:
        limit = min(limit, LIMIT_MAX)
        rows = some_rows(source, order, bound, after, limit + 1)
        rows, more = rows[:limit], len(rows) > limit
        return Answer({"next": rows[-1][-order.cursor :] if more else None}, json_array(made(rows)))
    rows = decode_rows(order_page(source, order, bound, after, PLACES_ROWS))
    if len(rows) < PLACES_ROWS:
        return Answer({"next": None}, json_array(made(rows)))
    texts = ListedTexts()
    pieces = chain(
        (b"" for _ in texts.make(source, order, bound, after)),
        json_array(values for rows in texts.take() for values in made(rows)),
    )
    return Answer({"next": None}, pieces, lambda: texts.size)


def some_rows(
    source: Source, order: ListingOrder, bound: dict[str, Any], after: Sequence[Any] | None, limit: int
) -> list[list[Any]]:
    """Query rows of one moment in portions, which bound the objects made at a time."""
    rows: list[list[Any]] = []
    with source.read_transaction():
        while len(rows) < limit:
            portion = min(PLACES_ROWS, limit - len(rows))
            found = decode_rows(order_page(source, order, bound, after, portion))
            rows += found
            if len(found) < portion:
                break
            after = found[-1][-order.cursor :]
    return rows
