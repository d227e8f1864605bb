"""Syncs in a thread, so that the caller prepares the next batch while the disk works."""

import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

Token = TypeVar("Token")


class BackgroundSync(Generic[Token]):
    """Runs one sync at a time. The thread that starts it collects its result.

    A token names what a sync covers; it is returned with the result.
    """

    def __init__(self, sync: Callable[[int], None]) -> None:
        """`sync` takes a descriptor, and raises OSError if it failed."""
        self._sync = sync
        self._work: queue.SimpleQueue[tuple[int, Token] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[Token, float, OSError | None]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self.busy = False
        self.notify: Callable[[], None] = lambda: None

    def start(self, fd: int, token: Token) -> None:
        """Start to sync a file; no sync may be in progress."""
        assert not self.busy
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="sync", daemon=True)
            self._thread.start()
        self.busy = True
        self._work.put((fd, token))

    def finished(self, *, wait: bool) -> tuple[Token, float] | None:
        """Return the token of a finished sync and its duration in seconds; None while it runs.

        Raises:
            OSError: the sync failed.
        """
        try:
            token, seconds, error = self._done.get(block=wait)
        except queue.Empty:
            return None
        self.busy = False
        if error is not None:
            raise error
        return token, seconds

    def stop(self) -> None:
        """End the thread; no sync may be in progress."""
        if self._thread is not None:
            self._work.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            fd, token = work
            error = None
            before = time.perf_counter()
            try:
                self._sync(fd)
            except OSError as caught:
                error = caught
            self._done.put((token, time.perf_counter() - before, error))
            self.notify()
