"""What options take: numbers, durations, cursors, moments. Each raises ValueError for what is none."""

import re
import sys
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from perstack_storage._core.jsonio import loads

_PORT_MAX = 65_535
_AGO = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*(s|min|m|h|d|w)", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}


def at_least(least: int) -> Callable[[str], int]:
    """The type of integers from `least` on."""

    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise ValueError(text)
        return min(value, sys.maxsize)  # a larger count is all there is as well

    number.__name__ = f"integer from {least} on"
    return number


def port(text: str) -> int:
    """A port of TCP; 0 for a free one."""
    value = int(text)
    if not 0 <= value <= _PORT_MAX:
        raise ValueError(text)
    return value


def seconds(text: str) -> float:
    """A number of seconds."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError(text)
    return value


seconds.__name__ = "number of seconds"


def cursor(text: str) -> Any:
    """Where a listing goes on."""
    value = loads(text.encode(errors="surrogateescape"))
    if not isinstance(value, list):
        raise ValueError(text)  # noqa: TRY004 - what argparse takes for a wrong value
    return value


cursor.__name__ = "cursor"


def moment(text: str) -> float:
    """A time in milliseconds since 1970: 15m, 2h or 1d ago, or 2026-11-23T04:35, local without a zone."""
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return (time.time() - float(ago[1]) * _SECONDS[ago[2]]) * 1000
    return datetime.fromisoformat(text).timestamp() * 1000


moment.__name__ = "time: 15m, 2h, 1d (ago), or 2026-11-23T04:35"


def as_of(text: str) -> int | float:
    """A position, as an integer, or a time as `moment` has it."""
    return int(text) if text.isascii() and text.isdecimal() else float(moment(text))


as_of.__name__ = "position, or time: 15m, 2h, 1d (ago), or 2026-11-23T04:35"
