"""A clock that stands still while the process does: stopped, paused, suspended, or held in a debugger."""

import time

STANDSTILL_MIN_S = 0.25
"""A clock that was not looked at for so much longer than expected was not stopped by the scheduler alone."""


class Watch:
    """Measures the daemon's silence, not the caller's own standstill.

    Whoever waits says for how long. If much more time is over then, nobody looked meanwhile: that time does
    not count.
    """

    __slots__ = ("_lost_s", "_seen", "_standstill_s")

    def __init__(self, timeout_s: float) -> None:
        self._standstill_s = min(STANDSTILL_MIN_S, timeout_s / 4)
        self._seen = time.monotonic()
        self._lost_s = 0.0

    def now(self, waited_s: float = 0.0) -> float:
        """Returns the time in seconds, without standstills.

        Args:
            waited_s: how long nothing was to be done since the time was asked for last.
        """
        now = time.monotonic()
        if now - self._seen - waited_s > self._standstill_s:
            self._lost_s += now - self._seen - waited_s
        self._seen = now
        return now - self._lost_s
