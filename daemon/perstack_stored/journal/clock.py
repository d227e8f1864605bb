"""The time of the journal's entries: it never goes back by a small step of the machine's clock."""

import time

import structlog

CLOCK_STEP_MS = 60_000  # a clock may be set back this far, and the time waits for it

_log = structlog.get_logger()


class JournalClock:
    """Begins at the time of the journal's last entry."""

    def __init__(self, time_ms: int) -> None:
        self._time_ms = time_ms
        self._clock_at: tuple[int, float] | None = None

    @property
    def latest_ms(self) -> int:
        """The time that was given last."""
        return self._time_ms

    def now_ms(self) -> int:
        """The daemon's time in ms since 1970: the clock's, but it stands still while a small step back lasts.

        After a larger step back the clock was wrong before: the time follows it, because otherwise records
        until the clock catches up would have a wrong time.
        """
        now = time.time_ns() // 1_000_000
        if now >= self._time_ms:
            self._time_ms = now
        elif self._time_ms - now > CLOCK_STEP_MS:
            _log.warning("clock_put_back", by_ms=self._time_ms - now, time=now)
            self._time_ms = now
        return self._time_ms

    def watch(self) -> None:
        """Log a leap of the clock, if there was one; called at intervals."""
        now, up = time.time_ns() // 1_000_000, time.clock_gettime(time.CLOCK_BOOTTIME) * 1000
        if self._clock_at is not None:
            leapt = now - self._clock_at[0] - (up - self._clock_at[1])
            if leapt > CLOCK_STEP_MS:
                _log.warning("clock_leapt", by_ms=round(leapt), time=now)
        self._clock_at = now, up


class LogClock(JournalClock):
    """The time of a replicated log: that of the message applied last. It never goes back."""

    def follow(self, time_ms: int) -> None:
        """Go on to the time of a message."""
        self._time_ms = max(self._time_ms, time_ms)

    def now_ms(self) -> int:
        """The log's time in ms since 1970."""
        return self._time_ms
