"""Set-up of structlog: readable on a terminal, JSON lines elsewhere. Never a payload, never a secret."""

import logging
import sys

import structlog

_level = logging.INFO


def set_level(level: str) -> None:
    """Log from this level on, one of `settings.LOG_LEVELS`."""
    global _level  # noqa: PLW0603 - loggers are made once and kept; what they look at is this
    _level = getattr(logging, level.upper())


def is_debug() -> bool:
    """Whether everything is logged; spares the making of lines that are not."""
    return _level <= logging.DEBUG


def _filter(_logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    if getattr(logging, method.upper()) < _level:
        raise structlog.DropEvent
    return event


def configure(*, json: bool, level: str) -> None:
    """Log to standard error."""
    set_level(level)
    shared: list[structlog.typing.Processor] = [
        _filter,
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if json
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
