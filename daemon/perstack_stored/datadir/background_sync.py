"""Syncs in a thread of its own, so that the next batch is made ready while the disk works."""

import queue
import threading
import time
from collections.abc import Callable

from perstack_stored.journal.reader import Mark


class Syncer:
    """One sync at a time. What it has finished is fetched by the thread that started it."""

    def __init__(self, sync: Callable[[int], None]) -> None:
        """`sync` is given a descriptor, and raises OSError if it failed."""
        self._sync = sync
        self._work: queue.SimpleQueue[tuple[int, Mark] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[Mark, float, OSError | None]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self.busy = False
        self.notify: Callable[[], None] = lambda: None

    def start(self, fd: int, mark: Mark) -> None:
        """Begin to sync a file that was written up to a mark; nothing may be under way."""
        assert not self.busy
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="sync", daemon=True)
            self._thread.start()
        self.busy = True
        self._work.put((fd, mark))

    def finished(self, *, wait: bool) -> tuple[Mark, float] | None:
        """The mark that is synced now and the seconds it took; None if it is still under way.

        Raises:
            OSError: the sync failed.
        """
        try:
            mark, seconds, error = self._done.get(block=wait)
        except queue.Empty:
            return None
        self.busy = False
        if error is not None:
            raise error
        return mark, seconds

    def stop(self) -> None:
        """End the thread; nothing may be under way."""
        if self._thread is not None:
            self._work.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            fd, mark = work
            error = None
            before = time.perf_counter()
            try:
                self._sync(fd)
            except OSError as caught:
                error = caught
            self._done.put((mark, time.perf_counter() - before, error))
            self.notify()
