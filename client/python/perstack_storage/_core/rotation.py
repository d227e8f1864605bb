"""Which of several endpoints a connection uses: one at a time, the next one where it gets nowhere. No I/O."""

import math

MOVE_AFTER_S = 2.0
"""With no answer for so long but errors that ask to try again, the next daemon is asked."""


class Rotation:
    """The endpoints of a connection, in turn. Times are in seconds of a steady clock.

    Attributes:
        several: whether there is more than one.
        moves: how often another one was taken.
    """

    def __init__(self, endpoints: tuple[str, ...]) -> None:
        self._endpoints = endpoints
        self._moved_at = -math.inf
        self.several = len(endpoints) > 1
        self.moves = 0

    @property
    def endpoint(self) -> str:
        """The one in use."""
        return self._endpoints[self.moves % len(self._endpoints)]

    def move(self, now: float) -> None:
        """Takes the next one."""
        self.moves += 1
        self._moved_at = now

    def stale_at(self, waits_since: float, answered_at: float) -> float:
        """Returns when the daemon in use has had its time.

        Args:
            waits_since: since when something waits for its answer; infinity if nothing does.
            answered_at: when something was answered last that settles it.
        """
        return max(waits_since, answered_at, self._moved_at) + MOVE_AFTER_S
