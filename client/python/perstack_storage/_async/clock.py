"""The time that a daemon has had to answer in. It stands still while the event loop does."""

import time

TICK_MAX_S = 0.05
LATE_TICKS_MAX = 10
"""Late ticks in a row after which limits hold all the same: a loop may be busy all the time."""


class ListeningClock:
    """A steady clock in seconds, for limits on the daemon's silence.

    A program that computes, waits for a child process, or is stopped can neither send nor take an answer:
    such time must not count against the daemon. So a timer ticks while something is outstanding. From one
    tick to the next the clock counts at most twice their distance, however long that took.

    Attributes:
        tick_s: the distance of two ticks.
    """

    def __init__(self, limit_s: float) -> None:
        """The shortest limit that must be measured decides how often it ticks."""
        self.tick_s = min(TICK_MAX_S, max(limit_s / 20, 0.001))
        self._shown = 0.0  # at the last tick
        self._ticked_at = time.monotonic()
        self._late_ticks = 0

    def now(self) -> float:
        """Returns the time."""
        return self._shown + min(time.monotonic() - self._ticked_at, 2 * self.tick_s)

    def start(self) -> None:
        """The timer was started, for the first time or after a rest."""
        self._tick()
        self._late_ticks = 0

    def tick(self) -> None:
        """The timer fired."""
        late = time.monotonic() - self._ticked_at > 2 * self.tick_s
        self._tick()
        self._late_ticks = self._late_ticks + 1 if late else 0

    def _tick(self) -> None:
        self._shown = self.now()
        self._ticked_at = time.monotonic()

    @property
    def trusted(self) -> bool:
        """Whether a limit that was passed may have its effect.

        After a standstill it may not before the next tick: until then what is unsent is sent, and what has
        arrived is taken.
        """
        return not self._late_ticks or self._late_ticks >= LATE_TICKS_MAX
