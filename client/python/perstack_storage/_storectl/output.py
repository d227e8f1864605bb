"""Where the command for people writes: a terminal, a pager before it, or a pipe."""

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import IO, Any

from perstack_storage._storectl import style, tables
from perstack_storage._storectl.tables import Column
from perstack_storage._views.cells import GAP, Span, cell, fitted, width_of
from perstack_storage._views.differences import flat
from perstack_storage._views.units import moment, when

PAGER_DEFAULT = "less"
_TIMES = frozenset({"startedAt", "finishedAt", "updatedAt", "timestamp"})
"""Fields with times in milliseconds: what they mean is added."""
WIDE = 120
"""Columns of a terminal from which on ids and types are shown whole."""
LESS_DEFAULT = "FRX"
"""What git gives it: leave when all fits on the screen, colours as they are, no clearing."""


class PagerLeft(Exception):  # noqa: N818 - no fault of anybody
    """The reader has seen enough. Ends the command in peace."""


class Output:
    """Lines of tables or JSON. With `paged`, through $PAGER where standard output is a terminal.

    Attributes:
        width: columns of the terminal; None where it is none, and nothing is cut.
        coloured: whether lines get colours.
        notes: sentences for standard error, for when all is printed.
    """

    def __init__(self, *, as_json: bool, paged: bool, color: str = "auto") -> None:
        self.as_json = as_json
        self.coloured = not as_json and style.wanted(color, os.environ, terminal=sys.stdout.isatty())
        self.width: int | None = None
        self.notes: list[str] = []
        self._paged = paged
        self._pager: subprocess.Popen[str] | None = None
        self._stream: IO[str] = sys.stdout
        if sys.stdout.isatty():
            self.width = max(shutil.get_terminal_size().columns, 20)
        else:
            self._paged = False

    @property
    def wide(self) -> bool:
        """Whether there is room for whole ids and types: in a pipe always."""
        return self.width is None or self.width >= WIDE

    def listing(self, columns: Sequence[Column], values: Iterable[Any]) -> None:
        """Values as a table or as lines of JSON."""
        if self.as_json:
            for value in values:
                self.line(tables.json_line(value))
        else:
            for spans in tables.table(columns, values, self.width):
                self.spans(spans)

    def details(self, value: Any) -> None:
        """One value as a table of its fields, or as a line of JSON."""
        if self.as_json:
            self.line(tables.json_line(value))
            return
        rows = [(cell(name), cell(item)) for name, item in flat(value)]
        left = max([width_of(name) for name, _ in rows], default=0)
        for name, text in rows:
            spans = [Span(fitted(name, left), "dim"), Span(GAP + text)]
            if name.rpartition(".")[2] in _TIMES and moment(text) is not None:
                spans.append(Span(f"{GAP}{when(text)}", "dim"))
            self.spans(spans, cut=True)

    def line(self, text: str, *, cut: bool = False, flush: bool = False) -> None:
        """One line; with `cut`, of what the terminal has room for."""
        self.spans([Span(text)], cut=cut, flush=flush)

    def spans(self, spans: Iterable[Span], *, cut: bool = False, flush: bool = False) -> None:
        """One line in pieces with styles; with `cut`, of what the terminal has room for."""
        text = style.rendered(spans, self.width if cut else None, coloured=self.coloured)
        if self._paged:
            self._open_pager()
        try:
            self._stream.write(text + "\n")
            if flush:
                self._stream.flush()
        except BrokenPipeError:
            if self._pager is None:
                raise
            raise PagerLeft from None

    def __enter__(self) -> "Output":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Waits until everything is written, and the reader has left the pager."""
        pager, self._pager = self._pager, None
        if pager is None:
            self._stream.flush()
            return False
        assert pager.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            pager.stdin.close()
        while True:
            try:
                pager.wait()
            except KeyboardInterrupt:  # meant for the pager
                continue
            return isinstance(error, PagerLeft)

    def _open_pager(self) -> None:
        self._paged = False
        command = shlex.split(os.environ.get("PAGER", PAGER_DEFAULT))
        if not command or shutil.which(command[0]) is None:
            return
        self._pager = subprocess.Popen(  # noqa: S603 - the user's own
            command,
            stdin=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={"LESS": LESS_DEFAULT, **os.environ},
        )
        assert self._pager.stdin is not None
        self._stream = self._pager.stdin
