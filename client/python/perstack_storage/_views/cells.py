"""Text as a terminal shows it: one line without what it acts on, its width, pieces with a style. No I/O."""

import unicodedata
from typing import NamedTuple

from perstack_storage._core.escape import escaped
from perstack_storage._core.jsonio import dumps

GAP = "  "
_WIDE = frozenset("WF")


class Span(NamedTuple):
    """A piece of a line, and the name of its style."""

    text: str
    style: str = ""


def cell(value: object) -> str:
    """One value in one line, without anything that a terminal would act on."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else dumps(value).decode()
    return escaped(text)


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
