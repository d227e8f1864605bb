"""Times of lines: whole in a pipe; on a terminal the time of the day, below a heading with day and zone."""

from perstack_storage._storectl.output import Output
from perstack_storage._views.cells import Span
from perstack_storage._views.units import moment, when


class Days:
    """Gives the times of lines that are printed one after the other."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._day = ""

    def time(self, ms: float) -> str:
        """The time of the next line, in ms since 1970. Prints the heading of another day or zone."""
        found = moment(ms)
        if self._out.width is None or found is None:
            return when(ms)
        zone = f"{found:%z}"
        day = f"{found:%Y-%m-%d}, UTC{zone[:3]}:{zone[3:5]}"
        if day != self._day:
            self._day = day
            self._out.spans([Span(f"── {day} ──", "dim")])
        return f"{found:%H:%M:%S}.{found.microsecond // 1000:03d}"
