"""Health checks: whether the daemon serves, and whether its loop is stuck."""

import time
from collections.abc import Callable

STUCK_SECONDS = 10.0


def why_stuck(silence: float) -> str:
    """A reason to restart a daemon whose loop was not seen for `silence` seconds, or ""."""
    return f"the serving loop was not seen for {silence:.1f} s" if silence > STUCK_SECONDS else ""


def why_unready(silence: float, index_fault: str) -> str:
    """A reason to send no requests to a daemon that serves, or ""."""
    return why_stuck(silence) or (f"index: {index_fault}" if index_fault else "")


class Health:
    """Answers of /healthz and /readyz, from the loop's last turn.

    Args:
        seen: last turn of the loop, on time.monotonic.
        index_fault: why reads can't be answered, or "".
    """

    def __init__(self, seen: Callable[[], float], index_fault: Callable[[], str]) -> None:
        self._seen = seen
        self._index_fault = index_fault
        self.serving = False

    def stuck(self) -> str:
        """A reason to restart the daemon, or ""."""
        return why_stuck(self._silence()) if self.serving else ""

    def unready(self) -> str:
        """A reason to send it no requests, or "": it starts, stops, is stuck, or can't answer reads."""
        return why_unready(self._silence(), self._index_fault()) if self.serving else "not serving"

    def _silence(self) -> float:
        return time.monotonic() - self._seen()
