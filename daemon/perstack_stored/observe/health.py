"""Health checks: whether the daemon serves, and whether its loop is stuck."""

import time
from collections.abc import Callable

from .counters import LoopCounters

STUCK_SECONDS = 10.0


def why_stuck(silence: float) -> str:
    """A reason to restart a daemon whose loop was not seen for `silence` seconds, or ""."""
    return f"the serving loop was not seen for {silence:.1f} s" if silence > STUCK_SECONDS else ""


def why_unready(silence: float, index_fault: str, *, tree_is_whole: bool) -> str:
    """A reason to send no requests to a daemon that serves, or ""."""
    if reason := why_stuck(silence):
        return reason
    if index_fault:
        return f"index: {index_fault}"
    return "" if tree_is_whole else "the tree is written again after an unclean stop"


class Health:
    """Answers of /healthz and /readyz, from the loop's last turn.

    Args:
        loop: tells the last turn of the loop, and whether the tree is whole.
        index_fault: why reads can't be answered, or "".
    """

    def __init__(self, loop: LoopCounters, index_fault: Callable[[], str]) -> None:
        self._loop = loop
        self._index_fault = index_fault
        self.serving = False

    def stuck(self) -> str:
        """A reason to restart the daemon, or ""."""
        return why_stuck(self._silence()) if self.serving else ""

    def unready(self) -> str:
        """A reason to send it no requests, or "": it starts, stops, is stuck, or can't answer reads."""
        if not self.serving:
            return "not serving"
        whole = self._loop.tree_is_whole
        return why_unready(self._silence(), self._index_fault(), tree_is_whole=whole)

    def _silence(self) -> float:
        return time.monotonic() - self._loop.seen
