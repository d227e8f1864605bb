"""One DEALER socket and the protocol it carries; used by one thread at a time."""

import math
import os
import threading
import time
from collections.abc import Callable

import zmq

from perstack_storage._batch import Sink
from perstack_storage._errors import ClosedError, DaemonUnavailable, OutcomeUnknown, Refused, StorageError
from perstack_storage._protocol import ClientProtocol
from perstack_storage._reads import Read
from perstack_storage._stores import BATCH_BYTES_MAX

RECONNECT_MIN_MS = 20
RECONNECT_MAX_MS = 500
NO_COPY_BYTES_MIN = 65_536
DRAIN_EVERY_ITEMS = 16
DRAIN_EVERY_S = 0.001
BLOCKED_WAIT_MAX_S = 1.0


class Connection:
    """Stores and reads of one thread: one socket, one session. Errors are those of `Client`."""

    def __init__(
        self, context: Callable[[], zmq.SyncContext], endpoint: str, base: str | None, timeout_s: float
    ) -> None:
        self._context = context
        self._endpoint = endpoint
        self._base = base
        self._timeout_s = timeout_s
        self._protocol = ClientProtocol(os.urandom(16).hex())
        self._stores = self._protocol.stores
        self._socket: zmq.SyncSocket | None = None
        self._poller = zmq.Poller()
        self._blocked = False  # the socket took no frame: there is no connection at the moment
        self._pid = os.getpid()
        self._thread = threading.get_ident()
        self._undrained_items = 0
        self._drained_at = 0.0
        self.closed = False
        self.busy = False  # read by `Client.close` in another thread

    def store(self, op: str, body: bytes) -> int:
        """Stores one value and waits; returns its position."""
        self._enter()
        try:
            deadline = time.monotonic() + self._timeout_s
            self._make_room(len(body), math.inf, deadline)
            self._stores.seal()
            batch = self._stores.add(op, body, None)
            self._stores.seal()
            while not batch.done:
                self._step(deadline)
        finally:
            self.busy = False
        outcome = batch.outcomes[0]
        if isinstance(outcome, dict):
            raise Refused(outcome, op=op)
        return outcome

    def call(self, op: str, arguments: bytes = b"") -> Read:
        """Sends a request that stores nothing and waits; returns it with its complete answer."""
        self._enter()
        try:
            deadline = time.monotonic() + self._timeout_s
            read = self._protocol.read = Read(op, arguments, deadline)
            while not read.done:
                self._step(deadline)
        finally:
            self._protocol.read = None
            self.busy = False
        return read

    def submit(self, op: str, body: bytes, sink: Sink, records_max: float) -> None:
        """Queues one value and sends what is worth sending; waits only while the window is used up."""
        self._enter()
        try:
            stores = self._stores
            if not stores.has_room(len(body), records_max) or len(body) > BATCH_BYTES_MAX:
                self._make_room(len(body), records_max, None)
            stores.add(op, body, sink)
            self._undrained_items += 1
            if stores.worth_sending and not self._blocked:
                self._send(time.monotonic())
            elif self._undrained_items >= DRAIN_EVERY_ITEMS:
                self._look_up(time.monotonic())
            else:
                now = time.monotonic()
                if now - self._drained_at > DRAIN_EVERY_S:
                    self._look_up(now)
        finally:
            self.busy = False

    def flush(self) -> None:
        """Waits until every store queued so far has its final outcome."""
        self._enter()
        try:
            self._stores.seal()
            self._wait_while(lambda: self._stores.records > 0)
        finally:
            self.busy = False

    def __del__(self) -> None:
        """A thread that ended leaves its connection to this; a forked child must not touch it."""
        if self._socket is not None and os.getpid() == self._pid:
            self._socket.close(linger=0)

    def close(self) -> None:
        """Closes the socket; what is unanswered is not sent again."""
        self.closed = True
        self._drop_socket()

    def _enter(self) -> None:
        if os.getpid() != self._pid or threading.get_ident() != self._thread:
            raise ClosedError("a pipeline can be used only in the thread and process that opened it")
        if self.busy:
            raise StorageError(
                "the client was called again from within one of its own calls (a signal handler?)"
            )
        self.busy = True
        if self.closed:
            self.busy = False
            raise ClosedError("the client is closed")

    def _make_room(self, size: int, records_max: float, deadline: float | None) -> None:
        stores, limits = self._stores, self._protocol.limits
        if size > BATCH_BYTES_MAX:  # whether it must travel in parts depends on what the daemon grants
            self._wait_while(lambda: not limits.known, deadline)
        if not stores.has_room(size, records_max):
            self._wait_while(lambda: not stores.has_room(size, records_max), deadline)

    def _wait_while(self, pending: Callable[[], bool], deadline: float | None = None) -> None:
        """Without a deadline, gives up when no store has been answered for `timeout_s`."""
        start = time.monotonic()
        while pending():
            last = max(start, self._stores.progress_at)
            self._step(last + self._timeout_s if deadline is None else deadline)

    def _step(self, deadline: float) -> None:
        """Sends what may be sent, then waits until something arrives or has to be done."""
        now = time.monotonic()
        if now >= deadline:
            self._give_up()
        self._send(now)
        due = now + BLOCKED_WAIT_MAX_S if self._blocked else self._protocol.due()
        wait_ms = max(0, math.ceil((min(due, deadline) - now) * 1000))
        try:
            arrived = self._poller.poll(wait_ms)
        except zmq.ZMQError as error:
            raise ClosedError("the client was closed during the call") from error
        if arrived:
            self._drain()
        elif self._protocol.silent(time.monotonic()):
            self._drop_socket()

    def _look_up(self, now: float) -> None:
        """Takes what has arrived and sends what may be sent, without waiting."""
        self._undrained_items = 0
        self._drained_at = now
        self._drain()
        if self._protocol.silent(now):
            self._drop_socket()
        self._send(now)

    def _send(self, now: float) -> None:
        socket = self._socket or self._connect()
        protocol = self._protocol
        while (frame := protocol.next_frame(now)) is not None:
            try:
                socket.send(frame, zmq.NOBLOCK, copy=len(frame) < NO_COPY_BYTES_MIN)
            except zmq.Again:
                self._set_blocked(True)
                return
            except zmq.ZMQError as error:
                raise ClosedError("the client was closed during the call") from error
            protocol.sent(now)
        self._set_blocked(False)

    def _set_blocked(self, blocked: bool) -> None:
        if blocked is self._blocked:
            return
        self._blocked = blocked
        if self._socket is not None:
            self._poller.modify(self._socket, zmq.POLLIN | zmq.POLLOUT if blocked else zmq.POLLIN)

    def _drain(self) -> None:
        socket, protocol = self._socket, self._protocol
        if socket is None:
            return
        now = time.monotonic()
        try:
            while True:
                protocol.receive(socket.recv(zmq.NOBLOCK), now)
                if not protocol.waiting:  # spares the attempt that finds nothing
                    return
        except zmq.Again:
            return
        except zmq.ZMQError as error:
            raise ClosedError("the client was closed during the call") from error

    def _connect(self) -> zmq.SyncSocket:
        socket = self._context().socket(zmq.DEALER)
        socket.linger = 0
        # Frames go to a finished connection only. So what the socket took may have arrived, and what it did
        # not take has certainly not: that is what tells DaemonUnavailable from OutcomeUnknown.
        socket.immediate = True
        socket.sndhwm = socket.rcvhwm = 0  # the window and one read at a time bound both queues
        socket.reconnect_ivl = RECONNECT_MIN_MS
        socket.reconnect_ivl_max = RECONNECT_MAX_MS
        socket.connect(self._endpoint)
        self._poller.register(socket, zmq.POLLIN)
        self._socket = socket
        return socket

    def _drop_socket(self) -> None:
        socket, self._socket = self._socket, None
        self._set_blocked(False)
        if socket is not None:
            self._poller.unregister(socket)
            socket.close(linger=0)
            self._protocol.disconnected()

    def _give_up(self) -> None:
        read = self._protocol.read
        if read is not None:
            if read.error is not None:
                raise Refused(read.error, op=read.op)
            raise DaemonUnavailable(self._endpoint, self._timeout_s, self._base)
        # With the socket goes what it has not delivered yet: a store given up must not arrive later.
        self._drop_socket()
        count, sent, error = self._stores.abandon()
        if error is not None:
            raise Refused(error)
        if sent:
            raise OutcomeUnknown(self._endpoint, self._timeout_s, count)
        raise DaemonUnavailable(self._endpoint, self._timeout_s, self._base)
