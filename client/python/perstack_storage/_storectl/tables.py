"""Tables, lines of JSON, and the fields of nested values. No I/O."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

from perstack_storage._core.escape import escaped
from perstack_storage._core.jsonio import dumps
from perstack_storage._views.cells import GAP, Span, cell, fitted, width_of

CELL_WIDTH_MIN = 8
SAMPLE_ROWS = 500
"""Rows that set the widths of the columns; later rows are cut to them."""


class Column(NamedTuple):
    """A column: its title, what it shows of a value, and how.

    Attributes:
        right: whether it is set to the right, as a number.
        drop: where the terminal is too narrow, the column with the highest number goes first; 0 stays.
        style: the style of a value.
    """

    title: str
    of: Callable[[Any], object]
    right: bool = False
    drop: int = 0
    style: Callable[[Any], str] | None = None


def json_line(value: object) -> str:
    """A value as JSON, in one line; what a terminal would act on is escaped."""
    return escaped(dumps(value).decode())


def table(columns: Sequence[Column], values: Iterable[Any], width: int | None) -> Iterator[list[Span]]:
    """Lines of a table, its titles first; with `width`, none is wider than that."""
    rows = (_cells(columns, value) for value in values)
    sample = list(islice(rows, SAMPLE_ROWS))
    widths = [
        max([len(column.title), *[width_of(row[index].text) for row in sample]])
        for index, column in enumerate(columns)
    ]
    kept = list(range(len(columns)))
    if width is not None:
        kept = _kept(columns, widths, width)
    chosen, widths = [columns[index] for index in kept], [widths[index] for index in kept]
    if width is not None:
        _shrink(widths, width)
    yield _line([Span(column.title.upper(), "bold") for column in chosen], chosen, widths)
    for row in chain(sample, rows):
        yield _line([row[index] for index in kept], chosen, widths)


def _cells(columns: Sequence[Column], value: Any) -> list[Span]:
    return [
        Span(cell(column.of(value)), column.style(value) if column.style is not None else "")
        for column in columns
    ]


def _kept(columns: Sequence[Column], widths: Sequence[int], width: int) -> list[int]:
    """Indices of the columns that stay: those without a number, and of the others as many as fit."""
    kept = list(range(len(columns)))
    while sum(widths[index] + len(GAP) for index in kept) - len(GAP) > width:
        last = max(kept, key=lambda index: columns[index].drop)
        if columns[last].drop == 0:
            break
        kept.remove(last)
    return kept


def _shrink(widths: list[int], width: int) -> None:
    """Take from the widest columns until they fit, or nothing more can be taken."""
    excess = sum(widths) + len(GAP) * (len(widths) - 1) - width
    while excess > 0 and max(widths) > CELL_WIDTH_MIN:
        widest = max(widths)
        number = widths.index(widest)
        second = max([w for w in widths if w < widest], default=CELL_WIDTH_MIN)
        taken = min(excess, widest - max(second, CELL_WIDTH_MIN)) or 1
        widths[number] -= taken
        excess -= taken


def _line(cells: Sequence[Span], columns: Sequence[Column], widths: Sequence[int]) -> list[Span]:
    spans: list[Span] = []
    for (text, style), column, width in zip(cells, columns, widths, strict=True):
        spans += [Span(fitted(text, width, right=column.right), style), Span(GAP)]
    return spans[:-1]
