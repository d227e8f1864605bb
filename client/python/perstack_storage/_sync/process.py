"""What a client owns in one process: a ZeroMQ context, and a connection for each thread that used it."""

import functools
import itertools
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING

from perstack_storage._core.errors import ClosedError, NotFlushed
from perstack_storage._core.outstanding import NowaitSettings
from perstack_storage._sync.connection import Connection
from perstack_storage._sync.future import wait_all
from perstack_storage._wire.target import Target

if TYPE_CHECKING:
    import zmq

_TERMINATION_S = 2.0
_FLUSH_SLICE_S = 0.02
_CONTEXT = "context"


class _Local(threading.local):
    connection: Connection | None = None


class _Context:
    """A ZeroMQ context, made when first needed. No part of `ProcessState`: the connections know it."""

    def __init__(self) -> None:
        self.closed = False
        self._made: dict[str, zmq.SyncContext] = {}

    def get(self) -> "zmq.SyncContext":
        if self.closed:
            raise ClosedError("the client is closed")
        import zmq  # noqa: PLC0415 - a client of a Unix socket needs none

        return self._made.get(_CONTEXT) or self._made.setdefault(_CONTEXT, zmq.Context())

    def take(self) -> "zmq.SyncContext | None":
        return self._made.pop(_CONTEXT, None)


class ProcessState:
    """The context and the connections of a client in the process that made this object.

    There is no lock: a signal handler may come at any step, and call the client.
    """

    def __init__(self, target: Target, nowait: NowaitSettings) -> None:
        self.pid = os.getpid()
        self._target = target
        self._nowait = nowait
        self._local = _Local()
        self._context = _Context()
        self._connections: dict[int, weakref.ref[Connection]] = {}
        self._numbers = itertools.count()
        self._closed = False

    def connection(self) -> Connection:
        """Returns the connection of the calling thread, which closes when the thread ends."""
        connection = self._local.connection
        if connection is None:
            connection = Connection(self._context.get, self._target, self._nowait)
            number, connections = next(self._numbers), self._connections
            # Not a lambda: an exception out of a signal handler would be lost in it.
            connections[number] = weakref.ref(connection, functools.partial(connections.pop, number))
            if self._closed:  # looked at after it was put there: `close` sees one or the other
                connection.close()
                raise ClosedError("the client is closed")
            self._local.connection = connection
        elif connection.closed:
            raise ClosedError("the client is closed")
        return connection

    def _all(self) -> list[Connection]:
        found = [reference() for reference in list(self._connections.values())]
        return [connection for connection in found if connection is not None]

    def flush(self, timeout_s: float | None) -> None:
        """Waits until the stores that nobody waits for, of all threads, have their final outcomes."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        connections, mine = self._all(), self._local.connection
        if mine is not None and not mine.closed:
            mine.catch_up(timeout_s)
        futures = [future for connection in connections for future in connection.last_futures()]
        while True:
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            helps = mine is not None and mine.handing_out()
            if helps:
                left_s = _FLUSH_SLICE_S if left_s is None else min(left_s, _FLUSH_SLICE_S)
            if wait_all(futures, left_s):
                break
            if deadline is not None and time.monotonic() >= deadline:
                raise NotFlushed(timeout_s or 0, sum(connection.outstanding for connection in connections))
            if helps and mine is not None:
                mine.catch_up(left_s)
        self._nowait.failures.raise_first()

    def close(self) -> None:
        """Ends calls that are under way in other threads with ClosedError, then closes all sockets."""
        self._closed = self._context.closed = True
        connections = self._all()
        for connection in connections:
            connection.announce_close()
        still_used = [connection.close() for connection in connections]
        context = self._context.take()
        if context is None or any(still_used):
            return  # a call that this one interrupted closes its socket, and with it the context goes
        # Waits for its sockets to be closed: one may be left from a call that was interrupted as it made it.
        terminator = threading.Thread(
            target=context.destroy, args=(0,), name="perstack-storage-close", daemon=True
        )
        terminator.start()
        terminator.join(_TERMINATION_S)
