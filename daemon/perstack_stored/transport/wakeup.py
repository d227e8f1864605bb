"""Wakes the serving loop from another thread or a signal handler."""

import contextlib
import os
import signal


class WakeupPipe:
    """A descriptor that becomes readable when another thread, or a signal, has something for the loop."""

    def __init__(self) -> None:
        self.fd, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def wake(self) -> None:
        """Make it readable. Safe from any thread."""
        with contextlib.suppress(BlockingIOError):  # full: it is readable
            os.write(self._write, b"\0")

    def clear(self) -> None:
        """Make it unreadable again."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.fd, 4096)
