"""The thread that moves what is outstanding while the thread that called is elsewhere."""

import queue
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
        self._awake = False
        # Not an Event: a destructor calls `stop`, also at the end of the interpreter. By then the thread may
        # have been ended within any of its steps, and a lock that it held is never let go.
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._stopped = False
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Something is outstanding; called with the lock held."""
        if not self._awake:
            self._held = self._connection()
            self._awake = True
            self._wakes.put(None)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="perstack-storage-pump", daemon=True)
                self._thread.start()

    def rest(self) -> None:
        """Nothing is outstanding; called with the lock held."""
        self._held = None
        self._awake = False

    def stop(self) -> None:
        """Ends the thread, soon. Takes no lock."""
        self._held = None
        self._stopped = True
        self._wakes.put(None)

    def _run(self) -> None:
        while not self._stopped:
            connection = self._connection()
            if connection is None:
                return
            awaited = connection.tend()
            if awaited is None:
                del connection  # from here on it ends with its thread
                self._wakes.get()
            else:
                poller = select.poll()
                if awaited[0] >= 0:
                    poller.register(*awaited)
                poller.poll(LOOK_EVERY_MS)
