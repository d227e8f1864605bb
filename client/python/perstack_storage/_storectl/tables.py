"""Tables and lines for people: cells, widths, what a terminal must not be sent. No I/O."""

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple

from perstack_storage._core.escape import escaped
from perstack_storage._core.jsonio import dumps

GAP = "  "
CELL_WIDTH_MIN = 8
SAMPLE_ROWS = 500
"""Rows that set the widths of the columns; later rows are cut to them."""
FLAT_LEVELS_MAX = 100
"""What is nested more deeply is shown as JSON: names that grow with each level take too much."""
_WIDE = frozenset("WF")


class Column(NamedTuple):
    """A column: its title, what it shows of a value, and whether it is a number."""

    title: str
    of: Callable[[Any], object]
    right: bool = False


def cell(value: object) -> str:
    """One value in one line, without anything that a terminal would act on."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else dumps(value).decode()
    return escaped(text)


def when(ms: object) -> str:
    """A time in milliseconds since 1970, in local time."""
    try:
        moment = datetime.fromtimestamp(float(ms) / 1000, UTC).astimezone()  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, OSError):
        return cell(ms)
    return moment.strftime("%Y-%m-%d %H:%M:%S.") + f"{moment.microsecond // 1000:03d}"


def json_line(value: object) -> str:
    """A value as JSON, in one line; what a terminal would act on is escaped."""
    return escaped(dumps(value).decode())


def width_of(text: str) -> int:
    """Columns of a terminal that a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in _WIDE)
        for char in text
    )


def fitted(text: str, width: int, *, right: bool = False) -> str:
    """A text cut or filled up to a width."""
    if width_of(text) > width:
        kept, room = "", width - 1
        for char in text:
            room -= width_of(char)
            if room < 0:
                break
            kept += char
        text = kept + "…"
    fill = " " * (width - width_of(text))
    return fill + text if right else text + fill


def table(columns: Sequence[Column], values: Iterable[Any], width: int | None) -> Iterator[str]:
    """Lines of a table, its titles first; with `width`, none is wider than that."""
    rows = ([cell(column.of(value)) for column in columns] for value in values)
    sample = list(islice(rows, SAMPLE_ROWS))
    widths = [
        max([len(column.title), *[width_of(row[number]) for row in sample]])
        for number, column in enumerate(columns)
    ]
    if width is not None:
        _shrink(widths, width)
    yield _line([column.title.upper() for column in columns], columns, widths)
    for row in sample:
        yield _line(row, columns, widths)
    for row in rows:
        yield _line(row, columns, widths)


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


def _line(cells: Sequence[str], columns: Sequence[Column], widths: Sequence[int]) -> str:
    fitting = [
        fitted(text, width, right=column.right)
        for text, column, width in zip(cells, columns, widths, strict=True)
    ]
    return GAP.join(fitting).rstrip()


def flat(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    """Names and values in nested objects, with the names joined by dots."""
    todo: list[tuple[str, object]] = [(name, value)]
    while todo:
        name, value = todo.pop()
        if isinstance(value, dict) and value and name.count(".") < FLAT_LEVELS_MAX:
            inner = [(f"{name}.{key}" if name else str(key), item) for key, item in value.items()]
            todo.extend(reversed(inner))
        else:
            yield name, value
