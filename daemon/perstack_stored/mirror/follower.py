"""Follows a mirror, in a thread of the daemon that serves a copy: fetches entries, and keeps some ready.

The loop takes them, and appends them to the daemon's own journal: `server/copying.py`.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import structlog

from perstack_stored.errors import StoredError
from perstack_stored.journal.segment_walk import Entry

from .source import MirrorDamagedError, MirrorSource

POLL_SECONDS = 1.0
READY_BYTES_MAX = 32 << 20
"""Entries that are fetched ahead of the loop, but for one that is larger."""
_RETRY_SECONDS = 5.0
_IDLE_POLLS = 60
_STOP_SECONDS = 0.5

_log = structlog.get_logger()


class Follower:
    """The thread, and the entries that it has ready.

    Attributes:
        position: last position that was fetched.
    """

    def __init__(self, source: MirrorSource, wake: Callable[[], None]) -> None:
        """Prepare it; `wake` is called from the thread when entries are ready."""
        self._source = source
        self._wake = wake
        self._ready: deque[Entry] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)
        self._fault = ""
        self._faults = 0
        self._looked = 0.0
        self.position = source.position

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; one that waits for the bucket is left to the end of the process."""
        with self._changed:
            self._stopping.set()
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)

    def take(self, bytes_max: int) -> list[Entry]:
        """The next entries, at most this many bytes, or one."""
        taken: list[Entry] = []
        with self._changed:
            size = 0
            while self._ready and (not taken or size + len(self._ready[0].data) <= bytes_max):
                entry = self._ready.popleft()
                size += len(entry.data)
                taken.append(entry)
            self._bytes -= size
            self._changed.notify_all()
        return taken

    def describe(self) -> dict[str, Any]:
        """State for `stats`."""
        looked = self._looked
        return {
            "enabled": True,
            "position": self.position,
            "checkedSeconds": round(time.monotonic() - looked, 3) if looked else None,
            "fault": self._fault,
            "faults": self._faults,
        }

    def _run(self) -> None:
        idle = 0
        while not self._stopping.is_set():
            pause = POLL_SECONDS
            try:
                for entry in self._source.entries():
                    self._put(entry)
                    if self._stopping.is_set():
                        return
                    idle = 0
                idle += 1
                if idle % _IDLE_POLLS == 0:
                    self._source.refuse_hole()
                self._looked = time.monotonic()
                if self._fault:
                    _log.info("mirror_followed_again", after=self._fault)
                self._fault = ""
            except MirrorDamagedError as error:
                # What comes after it must not be served.
                self._fail(str(error))
                return
            except StoredError as error:
                self._fail(str(error))
                pause = _RETRY_SECONDS
            with self._changed:
                self._changed.wait_for(self._stopping.is_set, pause)

    def _put(self, entry: Entry) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping.is_set() or self._bytes < READY_BYTES_MAX)
            self._ready.append(entry)
            self._bytes += len(entry.data)
        self.position = self._source.position
        self._wake()

    def _fail(self, reason: str) -> None:
        if reason != self._fault:
            _log.error("mirror_not_followed", reason=reason)
            self._faults += 1
        self._fault = reason
