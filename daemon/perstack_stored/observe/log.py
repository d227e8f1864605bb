"""Set-up of structlog: readable on a terminal, JSON lines elsewhere. Never a payload, never a secret."""

import logging
import sys
import threading
import time
from io import StringIO
from typing import Any, TextIO, cast

import structlog

from perstack_storage.protocol import escaped, escaped_lines
from perstack_stored.observe.log_output import LogOutput

# Lines of each kind of warning or error allowed at once, and seconds for one more: a client that causes one
# can cause any number of them, and the log is on a disk.
BURST_LINES = 10
LINE_SECONDS = 10.0
TEXT_CHARS_MAX = 1000
TRACE_CHARS_MAX = 8000
_BOUNDED = ("warning", "error", "exception")
_WHOLE = "import_"  # names each skipped file once, while a person imports a tree

_level = logging.INFO


def set_level(level: str) -> None:
    """Log from this level on, one of `settings.LOG_LEVELS`."""
    global _level  # noqa: PLW0603 - loggers are made once and kept; what they look at is this
    _level = getattr(logging, level.upper())


def is_debug() -> bool:
    """Whether debug lines are logged; saves making them otherwise."""
    return _level <= logging.DEBUG


def _filter(_logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    if getattr(logging, method.upper()) < _level:
        raise structlog.DropEvent
    return event


class ThrottledLog:
    """Bounds lines by event; the next line that is logged has the count of suppressed ones."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kinds: dict[str, tuple[float, float, int]] = {}  # tokens, their time, suppressed lines

    def __call__(
        self, _logger: object, method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        """A processor of structlog."""
        kind = str(event.get("event"))
        if method not in _BOUNDED or kind.startswith(_WHOLE):
            return event
        now = time.monotonic()
        with self._lock:
            lines, seen, left_out = self._kinds.get(kind, (float(BURST_LINES), now, 0))
            lines = min(float(BURST_LINES), lines + (now - seen) / LINE_SECONDS)
            if lines < 1.0:
                self._kinds[kind] = lines, now, left_out + 1
                raise structlog.DropEvent
            self._kinds[kind] = lines - 1.0, now, 0
        if left_out:
            event["more"] = event.get("more", 0) + left_out
        return event


class LogThrottle:
    """Decides which lines of a kind are logged: for each key, one line in ten seconds.

    `ThrottledLog` bounds the lines of one event over all clients. This bounds those of one client or one
    reason, so that they don't use up what others may log.
    """

    def __init__(self, keys_max: int = 1024) -> None:
        self._keys_max = keys_max
        self._logged: dict[str, tuple[float, int]] = {}  # by key: when, and lines left out since

    def admit(self, key: str) -> int | None:
        """Returns the count of lines suppressed since the last one; None: suppress this one as well."""
        now = time.monotonic()
        at, left_out = self._logged.get(key, (-LINE_SECONDS, 0))
        if now - at < LINE_SECONDS:
            self._logged[key] = at, left_out + 1
            return None
        if len(self._logged) >= self._keys_max:
            self._logged.clear()
        self._logged[key] = now, 0
        return left_out


def shorten(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Shorten long values. A processor of structlog."""
    for key, value in event.items():
        most = TRACE_CHARS_MAX if key == "exception" else TEXT_CHARS_MAX
        if isinstance(value, str) and len(value) > most:
            event[key] = f"{value[:most]}… ({len(value)} characters)"
    return event


def _escape(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Escape text for people: a value must not look like a line, or control a terminal."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = escaped_lines(value) if key in {"exception", "stack"} else escaped(value)
        elif key != "exc_info" and not isinstance(value, bool | int | float | None):
            event[key] = escaped(repr(value))
    return event


def _traceback(out: TextIO, exc_info: Any) -> None:
    plain = StringIO()
    structlog.dev.plain_traceback(plain, exc_info)
    out.write(escaped_lines(plain.getvalue()))


def configure(*, json: bool, level: str) -> None:
    """Log to standard error. A line that can't be written is left out, and the next one counts it."""
    set_level(level)
    output = LogOutput(sys.stderr)
    shared: list[structlog.typing.Processor] = [
        _filter,
        ThrottledLog(),
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        output.count_lost,
    ]
    renderer: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, shorten, structlog.processors.JSONRenderer()]
        if json
        else [
            shorten,
            _escape,
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=_traceback),
        ]
    )
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", output)),
        cache_logger_on_first_use=True,
    )
