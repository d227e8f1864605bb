"""What keeps a stream from being used: a text for people, and lines of the log, ever more seldom."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

FIRST_PAUSE_SECONDS = 1.0
"""Between two lines of one reason; each pause is twice as long as the one before."""
LAST_PAUSE_SECONDS = 60.0
SHOWN_SECONDS = 60.0
"""A reason that did not come again for so long counts no more."""
_REASONS_MAX = 16  # servers choose some of the words

_log = structlog.get_logger()


@dataclass(slots=True)
class _Reason:
    """A reason that came again and again: when it came last, when it is logged next, how often it was not."""

    at: float
    log_at: float
    pause: float
    unlogged: int = 0


class Trouble:
    """Attempts that fail, until one succeeds. Used by one thread; others may read `text`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._reasons: dict[str, _Reason] = {}
        self._shown = ("", 0.0)

    @property
    def text(self) -> str:
        """The reasons of the last minute; "" if there is none, or if it is over."""
        text, at = self._shown
        return text if self._clock() - at < SHOWN_SECONDS else ""

    def note(self, event: str, reason: str) -> None:
        """Note a failure. It is logged at once if the reason is a new one, else when its pause is over.

        Args:
            event: of the log.
            reason: without secrets.
        """
        now = self._clock()
        self._reasons = {
            text: found for text, found in self._reasons.items() if now - found.at < SHOWN_SECONDS
        }
        found = self._reasons.get(reason)
        if found is None:
            if len(self._reasons) >= _REASONS_MAX:
                del self._reasons[next(iter(self._reasons))]
            found = self._reasons[reason] = _Reason(now, now, FIRST_PAUSE_SECONDS)
        found.at = now
        found.unlogged += 1
        if now >= found.log_at:
            _log.warning(event, reason=reason, times=found.unlogged)
            found.unlogged = 0
            found.log_at = now + found.pause
            found.pause = min(2 * found.pause, LAST_PAUSE_SECONDS)
        self._shown = ("; ".join(self._reasons), now)

    def end(self) -> bool:
        """Note a success: the next failure is logged at once. Returns whether there was trouble."""
        had = bool(self._reasons)
        self._reasons = {}
        self._shown = ("", 0.0)
        return had
