"""A clock that stands still while the process does: stopped, paused, suspended, or held in a debugger."""

import time

STANDSTILL_MIN_S = 0.25
"""A clock that was not looked at for so much longer than expected was not stopped by the scheduler alone."""


class Watch:
    """Measures the daemon's silence, not the caller's own standstill.

    A caller that waits says for how long. If much more time is over then, nobody looked meanwhile: that
    time does not count. Where the time is asked for with each store, `seen`, `lost_s` and
    `standstill_s` are looked at and set without a call.
    """

    __slots__ = ("lost_s", "seen", "standstill_s")

    def __init__(self, timeout_s: float) -> None:
        self.standstill_s = min(STANDSTILL_MIN_S, timeout_s / 4)
        self.seen = time.monotonic()
        self.lost_s = 0.0

    def now(self, waited_s: float = 0.0) -> float:
        """Returns the time in seconds, without standstills.

        Args:
            waited_s: how long nothing was to be done since the time was asked for last.
        """
        now = time.monotonic()
        if now - self.seen - waited_s > self.standstill_s:
            self.lost_s += now - self.seen - waited_s
        self.seen = now
        return now - self.lost_s
