"""What a client owns in one process: a ZeroMQ context, and a connection for each thread that used it."""

import concurrent.futures
import os
import threading
import time
import weakref

import zmq

from perstack_storage._connection import Connection
from perstack_storage._errors import ClosedError, NotFlushed
from perstack_storage._keys import CurveKeys
from perstack_storage._nowait import NowaitSettings

_CLOSE_POLL_S = 0.001


class _Local(threading.local):
    connection: Connection | None = None


class ProcessState:
    """The context and the connections of a client in the process that made this object."""

    def __init__(
        self,
        endpoint: str,
        base: str | None,
        timeout_s: float,
        nowait: NowaitSettings,
        keys: CurveKeys | None,
    ) -> None:
        self.pid = os.getpid()
        self._endpoint = endpoint
        self._base = base
        self._timeout_s = timeout_s
        self._nowait = nowait
        self._keys = keys
        self._local = _Local()
        self._lock = threading.Lock()
        self._context: zmq.SyncContext | None = None
        self._connections: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._closed = False

    def connection(self) -> Connection:
        """Returns the connection of the calling thread, which closes when the thread ends."""
        connection = self._local.connection
        if connection is None:
            connection = Connection(
                self._get_context, self._endpoint, self._base, self._timeout_s, self._nowait, self._keys
            )
            with self._lock:
                if self._closed:
                    raise ClosedError("the client is closed")
                self._connections.add(connection)
            self._local.connection = connection
        elif connection.closed:
            raise ClosedError("the client is closed")
        return connection

    def _get_context(self) -> zmq.SyncContext:
        with self._lock:
            if self._closed:
                raise ClosedError("the client is closed")
            if self._context is None:
                self._context = zmq.Context()
            return self._context

    def flush(self, timeout_s: float | None) -> None:
        """Waits until the stores that nobody waits for, of all threads, have their final outcomes."""
        with self._lock:
            connections = list(self._connections)
        outstanding = [connection.outstanding for connection in connections]
        futures = [some.last for some in outstanding if some is not None and some.last is not None]
        if concurrent.futures.wait(futures, timeout_s).not_done:
            raise NotFlushed(timeout_s or 0, sum(some.count for some in outstanding if some is not None))
        self._nowait.failures.raise_first()

    def close(self) -> None:
        """Ends calls that are under way in other threads with ClosedError, then closes all sockets."""
        with self._lock:
            self._closed = True
            connections = list(self._connections)
        for connection in connections:
            connection.closed = True
        # A wire must not be closed while a thread is in it. `closed` keeps threads out, an interrupt ends a
        # wait; terminating makes every call in libzmq return, and waits for its sockets to be closed.
        terminator = None
        if self._context is not None:
            terminator = threading.Thread(
                target=self._context.term, name="perstack-storage-close", daemon=True
            )
            terminator.start()
        for connection in connections:
            while connection.busy:
                connection.interrupt()
                time.sleep(_CLOSE_POLL_S)
            connection.close()
        if terminator is not None:
            terminator.join()
