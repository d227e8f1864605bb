"""The thread that moves what is outstanding while the thread that called is elsewhere."""

import _thread
import logging
import queue
import threading
import time
import weakref
from typing import TYPE_CHECKING

from perstack_storage._core.errors import StorageError
from perstack_storage._wire.readiness import wait_ready

if TYPE_CHECKING:
    from perstack_storage._sync.connection import Connection

LOOK_EVERY_MS = 20
"""While something is outstanding, the pump looks at least this often: that bounds the delay of a retry whose
time was set by a call of the other thread, and of everything on a new socket."""
_RUNS = "runs"

_log = logging.getLogger("perstack_storage")


class Pump:
    """One thread for one connection, started when first needed; it sleeps while nothing is outstanding.

    Attributes:
        awake: it looks after the connection.
    """

    def __init__(self, connection: "Connection") -> None:
        self._connection = weakref.ref(connection)
        self._held: Connection | None = None  # what is outstanding must outlive the thread that called
        self.awake = False
        # Not an Event: a destructor calls `stop`, also at the end of the interpreter. By then the thread may
        # have been ended within any of its steps, and a lock that it held is never let go.
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._stopped = False
        self._running: dict[str, int] = {}  # of two threads started at a time, one finds itself in here

    def wake(self) -> None:
        """Something is outstanding, or will be. Called by a thread that holds the turn.

        Raises:
            StorageError: no thread can be started.
        """
        if self.awake or self._stopped:
            return
        self._held = self._connection()
        self._wakes.put(None)
        if not self._running:
            try:
                # `Thread.start` holds a lock of the whole process: no signal handler interrupts it there.
                _thread.start_new_thread(self._start, ())
            except RuntimeError as error:
                raise StorageError(f"no thread can be started for what is outstanding: {error}") from error
        self.awake = True  # last: after an exception all of it is done once more

    def rest(self) -> None:
        """Nothing is outstanding; called by the pump's thread."""
        self._held = None
        self.awake = False

    def stop(self) -> None:
        """Ends the thread, soon. Takes no lock."""
        self._held = None
        self._stopped = True
        self._wakes.put(None)

    def _start(self) -> None:
        try:
            threading.Thread(target=self._run, name="perstack-storage-pump", daemon=True).start()
        except RuntimeError:
            self._run()  # there was room for this thread, and for no more

    def _run(self) -> None:
        ident = threading.get_ident()
        if self._running.setdefault(_RUNS, ident) != ident:
            return
        while not self._stopped:
            connection = self._connection()
            if connection is None:
                return
            try:
                awaited = connection.tend()
            except Exception:  # noqa: BLE001 - the thread must live on: its stores wait for it
                _log.exception("a fault of the client: it goes on with a new connection")
                time.sleep(LOOK_EVERY_MS / 1000)
                continue
            if awaited is None:
                del connection  # from here on it ends with its thread
                self._wakes.get()
            else:
                wait_ready(*awaited, LOOK_EVERY_MS / 1000)
