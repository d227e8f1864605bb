"""Processes that end while the pump's thread stands somewhere on its way to rest.

`python -m tests.client.ending_process ENDPOINT STEPS SECONDS`: nobody listens at the endpoint. STEPS is a
number of steps of the thread. Prints the steps after which a process at its end did not end within SECONDS.
"""

import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

from perstack_storage import Client

_STANDS_SECONDS = 2.0


class Halt:
    """Lets the pump's thread run `lines` lines after it found nothing outstanding, and no further."""

    def __init__(self, lines: int) -> None:
        self._left = lines
        self._rests = False
        self._forever = threading.Lock()
        self._forever.acquire()
        self.stands = False

    def trace(self, frame: FrameType, what: str, _argument: object) -> Any:
        """For `threading.settrace`."""
        if what == "return" and frame.f_code.co_name == "rest":
            self._rests = True
        elif what == "line" and self._rests:
            if not self._left:
                self.stands = True
                self._forever.acquire()
            self._left -= 1
        return self.trace


def store_and_end(endpoint: str, lines: int) -> None:
    """A store that is given up, which the process doesn't wait for; its client is not closed."""
    halt = Halt(lines)
    threading.settrace(halt.trace)
    client = Client(endpoint, timeout_s=0.01, on_error=lambda _error: None)
    nothing: dict[str, Any] = {}
    client.store_event_nowait(nothing)
    deadline = time.monotonic() + _STANDS_SECONDS  # with many lines, it is at rest before they are gone
    while not halt.stands and time.monotonic() < deadline:
        time.sleep(0.001)
    assert halt.stands or lines, "the thread never came to rest"


def late(children: list[int], seconds: float) -> list[int]:
    """Number of each child that has not ended in time, or not well; they are killed."""
    deadline = time.monotonic() + seconds
    statuses: dict[int, int] = {}
    while len(statuses) < len(children) and time.monotonic() < deadline:
        for pid in set(children) - set(statuses):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                statuses[pid] = status
        time.sleep(0.01)
    for pid in set(children) - set(statuses):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return [number for number, pid in enumerate(children) if statuses.get(pid) != 0]


def main() -> None:
    """Entry of the process, and of its children: they return from here, to end as any program does."""
    endpoint, steps, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    children: list[int] = []
    for lines in range(steps):
        pid = os.fork()
        if not pid:
            return store_and_end(endpoint, lines)
        children.append(pid)
    sys.stdout.write(f"{late(children, seconds)}\n")
    return None


if __name__ == "__main__":
    main()
