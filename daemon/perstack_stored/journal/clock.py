"""The time of the journal's entries: it never goes back by a small step of the machine's clock."""

import time

import structlog

CLOCK_STEP_MS = 60_000  # a clock may be set back this far, and the time waits for it
_HOUR_MS = 3_600_000
_LEAP_MS = 26 * _HOUR_MS  # a clock that was set to the right zone leaps less
_DOUBT_MS = 24 * _HOUR_MS

_log = structlog.get_logger()


class JournalClock:
    """Begins at the time of the journal's last entry."""

    def __init__(self, time_ms: int) -> None:
        self._time_ms = time_ms
        self._clock_at: tuple[int, float] | None = None
        self._aged_ms = time_ms
        self._aged_at = _up_ms()
        self._leapt_at: float | None = None

    @property
    def latest_ms(self) -> int:
        """The time that was given last."""
        return self._time_ms

    @property
    def latest_aged_ms(self) -> int:
        """The time by which ages were counted last; before that, the one that was given last."""
        return self._aged_ms or self._time_ms

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

    def aged_ms(self, now_ms: int) -> int:
        """The time by which ages are counted: `now_ms`, but a leap forth of the clock is doubted for a day.

        What is deleted because a wrong clock made it old does not come back. So only time that passed counts
        meanwhile, from the last record on. A step back counts at once.
        """
        up = _up_ms()
        passed = self._aged_ms + round(up - self._aged_at)
        if not self._aged_ms or now_ms - passed <= _LEAP_MS:
            passed, self._leapt_at = now_ms, None
        elif self._leapt_at is None:
            self._leapt_at = up
            _log.warning("clock_doubted", by_ms=now_ms - passed, time=now_ms)
        elif up - self._leapt_at >= _DOUBT_MS:
            passed, self._leapt_at = now_ms, None
        self._aged_ms, self._aged_at = passed, up
        return passed

    def watch(self) -> None:
        """Log a leap of the clock, if there was one; called at intervals."""
        now, up = time.time_ns() // 1_000_000, _up_ms()
        if self._clock_at is not None:
            leapt = now - self._clock_at[0] - (up - self._clock_at[1])
            if leapt > CLOCK_STEP_MS:
                _log.warning("clock_leapt", by_ms=round(leapt), time=now)
        self._clock_at = now, up


def aged_at_start(last_ms: int, now_ms: int) -> int:
    """The time by which ages are counted from a start on: a leap since the last entry is doubted."""
    return last_ms if last_ms and now_ms - last_ms > _LEAP_MS else now_ms


def _up_ms() -> float:
    """Milliseconds that passed since the machine started, also while it slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) * 1000


class LogClock(JournalClock):
    """The time of a replicated log: that of the message applied last. It never goes back."""

    def follow(self, time_ms: int) -> None:
        """Go on to the time of a message."""
        self._time_ms = max(self._time_ms, time_ms)

    def now_ms(self) -> int:
        """The log's time in ms since 1970."""
        return self._time_ms

    @property
    def latest_aged_ms(self) -> int:
        """The log's time."""
        return self._time_ms

    def aged_ms(self, now_ms: int) -> int:
        """The log's time: all daemons count ages alike."""
        return now_ms
