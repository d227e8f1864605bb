"""Bounds the lines that requests can cause: a peer without the token can send any number of wrong ones."""

import logging
import threading
import time
from collections.abc import Callable

BURST_LINES = 10
LINE_SECONDS = 10.0
"""Lines from one place of the code at once, and seconds for one more."""
_LOGGERS = ("uvicorn.error", "asyncio")


class BoundedLines(logging.Filter):
    """Bounds the lines of each place in the code; the next line that passes has the count of those left out.

    Only places that log have an entry, so the code bounds the memory.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now = now
        self._lock = threading.Lock()
        self._places: dict[tuple[str, int], tuple[float, float, int]] = {}  # lines, their time, left out

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is logged."""
        place = (record.pathname, record.lineno)
        now = self._now()
        with self._lock:
            lines, seen, left_out = self._places.get(place, (float(BURST_LINES), now, 0))
            lines = min(float(BURST_LINES), lines + (now - seen) / LINE_SECONDS)
            if lines < 1.0:
                self._places[place] = lines, now, left_out + 1
                return False
            self._places[place] = lines - 1.0, now, 0
        if left_out:
            record.msg, record.args = f"{record.getMessage()} ({left_out} more like it)", ()
        return True


def bound_lines() -> None:
    """Bound what uvicorn and asyncio log, in the whole process."""
    bounded = BoundedLines()
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(bounded)
