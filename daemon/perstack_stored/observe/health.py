"""Health checks: whether the daemon serves, and whether its loop is stuck."""

import time
from collections.abc import Callable

STUCK_SECONDS = 10.0


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
        silence = time.monotonic() - self._seen()
        if self.serving and silence > STUCK_SECONDS:
            return f"the serving loop was not seen for {silence:.1f} s"
        return ""

    def unready(self) -> str:
        """A reason to send it no requests, or "": it starts, stops, is stuck, or can't answer reads."""
        if not self.serving:
            return "not serving"
        fault = self._index_fault()
        return self.stuck() or (f"index: {fault}" if fault else "")
