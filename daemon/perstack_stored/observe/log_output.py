"""Where log lines go. A full disk, or a reader that has gone, must not end the daemon."""

import os
from typing import TextIO

import structlog


class LogOutput:
    """A file for lines, each written at once. What it does not take is lost, and counted."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._text = ""
        self._lost = 0
        self._is_torn = False  # the last line stopped in its midst

    def write(self, text: str) -> None:
        """Take text of a line."""
        self._text += text

    def flush(self) -> None:
        """Write the line, or drop it."""
        text, self._text = self._text, ""
        try:
            self._put(text)
        except OSError:
            self._lost += 1
        else:
            self._lost = 0

    def count_lost(
        self, _logger: object, _method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        """Name the count of lines that were lost before this one. A processor of structlog."""
        if self._lost:
            event["lines_lost"] = self._lost
        return event

    def _put(self, text: str) -> None:
        try:
            descriptor = self._stream.fileno()
        except (OSError, ValueError):  # a stream in memory
            self._stream.write(text)
            self._stream.flush()
            return
        # Not by the stream: what it could not write it keeps, and the interpreter fails at its end.
        data = (b"\n" if self._is_torn else b"") + text.encode(errors="backslashreplace")
        size = len(data)
        try:
            while data:
                data = data[os.write(descriptor, data) :]
        finally:
            self._is_torn = bool(data) and (self._is_torn or len(data) < size)
