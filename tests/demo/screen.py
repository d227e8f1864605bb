"""The demo's output: progress in one line on a terminal, or as a line each second elsewhere."""

import os
import shutil
import sys
import time

BAR_MAX = 30
_REDRAW_SECONDS = 0.1
_LINE_SECONDS = 1.0
_TERMINAL = sys.stdout.isatty()
_COLOUR = _TERMINAL and "NO_COLOR" not in os.environ


class Progress:
    """The progress of a stage."""

    def __init__(self, label: str, total: int, unit: str) -> None:
        self._label = label
        self._total = total
        self._unit = unit
        self._shown_at = time.monotonic() - (_REDRAW_SECONDS if _TERMINAL else 0)

    def show(self, done: int) -> None:
        """Print the progress if the last output is old enough."""
        now = time.monotonic()
        if now - self._shown_at < (_REDRAW_SECONDS if _TERMINAL else _LINE_SECONDS):
            return
        self._shown_at = now
        numbers = f"{done:,} of {self._total:,} {self._unit}"
        if not _TERMINAL:
            passing(f"{self._label} {numbers}")
            return
        width = max(0, min(BAR_MAX, shutil.get_terminal_size().columns - len(self._label) - len(numbers) - 8))
        filled = width * done // self._total
        passing(f"{self._label} [{'#' * filled}{'-' * (width - filled)}] {numbers}")


def passing(text: str) -> None:
    """A line that the next one replaces on a terminal."""
    print(f"\r  {text}\x1b[K" if _TERMINAL else f"  {text}", end="" if _TERMINAL else "\n", flush=True)


def clear() -> None:
    """Remove the line that `passing` has written."""
    if _TERMINAL:
        print("\r\x1b[K", end="", flush=True)


def heading(text: str) -> None:
    """The title of a part."""
    print(f"\n{_painted(text, '1')}", flush=True)


def row(label: str, text: str) -> None:
    """A labelled line; without a label it continues the one before."""
    print(f"  {label:<13}{text}", flush=True)


def verdict(text: str, *, good: bool) -> None:
    """The result of the demo."""
    print(f"\n{_painted(text, '1;32' if good else '1;31')}", flush=True)


def _painted(text: str, code: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if _COLOUR else text
