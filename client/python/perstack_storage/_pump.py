"""The thread that moves what is outstanding while the thread that called is elsewhere."""

import select
import threading
import weakref
from typing import Protocol

LOOK_EVERY_MS = 20
"""While something is outstanding, the pump looks at least this often: that bounds the delay of a retry whose
time was set by a call of the other thread, and of everything on a new socket."""


class Pumped(Protocol):
    """A connection, as the pump knows it."""

    def tend(self) -> tuple[int, int] | None:
        """Does what is due; returns what to wait for, see `Connection.tend`."""


class Pump:
    """One thread for one connection, started when first needed; it sleeps while nothing is outstanding.

    Attributes:
        lock: guards the connection; never held while the pump waits.
    """

    def __init__(self, connection: Pumped) -> None:
        self.lock = threading.Lock()
        self._connection = weakref.ref(connection)
        self._held: Pumped | None = None  # what is outstanding must outlive the thread that called
        self._awake = threading.Event()
        self._stopped = False
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Something is outstanding; called with the lock held."""
        if not self._awake.is_set():
            self._held = self._connection()
            self._awake.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="perstack-storage-pump", daemon=True)
                self._thread.start()

    def rest(self) -> None:
        """Nothing is outstanding; called with the lock held."""
        self._held = None
        if not self._stopped:
            self._awake.clear()

    def stop(self) -> None:
        """Ends the thread, soon."""
        self._held = None
        self._stopped = True
        self._awake.set()

    def _run(self) -> None:
        while not self._stopped:
            connection = self._connection()
            if connection is None:
                return
            awaited = connection.tend()
            if awaited is None:
                del connection  # from here on it ends with its thread
                self._awake.wait()
            else:
                poller = select.poll()
                if awaited[0] >= 0:
                    poller.register(*awaited)
                poller.poll(LOOK_EVERY_MS)
