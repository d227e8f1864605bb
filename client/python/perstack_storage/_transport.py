"""A DEALER socket and the protocol it carries, without any waiting; what both clients' connections share."""

import os
import time

import zmq

from perstack_storage._batch import Batch
from perstack_storage._errors import ClosedError, EndpointError
from perstack_storage._outcomes import GivenUp
from perstack_storage._protocol import ClientProtocol

RECONNECT_MIN_MS = 20
RECONNECT_MAX_MS = 500
NO_COPY_BYTES_MIN = 65_536

_READABLE, _WRITABLE = int(zmq.POLLIN), int(zmq.POLLOUT)  # operations on the enumeration cost a microsecond


class Transport:
    """Hands frames to the socket and takes what has arrived; a subclass decides when, and waits."""

    def __init__(self, endpoint: str, base: str | None, timeout_s: float) -> None:
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._given_up = GivenUp(endpoint, base, timeout_s)
        self._protocol = ClientProtocol(os.urandom(16).hex())
        self._stores = self._protocol.stores
        self._socket: zmq.SyncSocket | None = None
        self._blocked = False  # the socket took no frame: there is no connection at the moment
        self._touched = False  # the socket was used since `_has_work` said that there is none
        self._pid = os.getpid()
        self.closed = False

    def _context(self) -> zmq.SyncContext:
        raise NotImplementedError

    def _opened(self, socket: zmq.SyncSocket) -> None:
        """A new socket is in use from now on."""
        raise NotImplementedError

    def _closing(self, _socket: zmq.SyncSocket, /) -> None:
        """The socket is about to be closed."""
        raise NotImplementedError

    def _blocked_changed(self) -> None:
        """`_blocked` has another value now."""

    def __del__(self) -> None:
        """A thread that ended leaves its connection to this; a forked child must not touch it."""
        if self._socket is not None and os.getpid() == self._pid:
            self._socket.close(linger=0)

    def _send(self, now: float) -> None:
        """Hands over every frame that may go now."""
        socket = self._socket or self._connect()
        protocol = self._protocol
        while (frame := protocol.next_frame(now)) is not None:
            self._touched = True
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
        if blocked is not self._blocked:
            self._blocked = blocked
            self._blocked_changed()

    def _drain(self) -> None:
        """Takes every answer that has arrived."""
        socket, protocol = self._socket, self._protocol
        if socket is None:
            return
        self._touched = True
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

    def _has_work(self) -> bool:
        """Whether an answer has arrived, or a socket that took no frame takes one now.

        Each use of the socket, this one too, may swallow the signal of its descriptor. Who waits for the
        descriptor asks this after the last use: once the answer is False, whatever comes gives a new signal.
        """
        if self._socket is None:
            return False
        wanted = _READABLE | _WRITABLE if self._blocked else _READABLE
        try:
            self._touched = bool(int(self._socket.getsockopt(zmq.EVENTS)) & wanted)
        except zmq.ZMQError:  # the client was closed meanwhile
            return False
        return self._touched

    def _connect(self) -> zmq.SyncSocket:
        try:
            socket = self._context().socket(zmq.DEALER)
            socket.linger = 0
            # Frames go to a finished connection only. So what the socket took may have arrived, and what it
            # did not take has certainly not: that is what tells DaemonUnavailable from OutcomeUnknown.
            socket.immediate = True
            socket.sndhwm = socket.rcvhwm = 0  # the window and the reads under way bound both queues
            socket.reconnect_ivl = RECONNECT_MIN_MS
            socket.reconnect_ivl_max = RECONNECT_MAX_MS
            socket.connect(self._endpoint)
        except zmq.ZMQError as error:
            if error.errno == zmq.ETERM:
                raise ClosedError("the client was closed during the call") from error
            raise EndpointError(f"no socket can be connected to {self._endpoint}: {error}") from error
        self._socket = socket
        self._opened(socket)
        return socket

    def _drop_socket(self) -> None:
        socket = self._socket
        self._set_blocked(False)
        if socket is not None:
            self._closing(socket)
            self._socket = None
            socket.close(linger=0)
            self._protocol.disconnected()

    def _abandon_overdue(self, through: float) -> None:
        """Gives up what was called for up to the time `through`; who queued it is told."""
        # With the socket goes what it has not delivered yet: a store given up must not arrive later.
        self._drop_socket()
        gone: dict[int, list[Batch]] = {}
        for batch in self._protocol.abandon(through):
            gone.setdefault(id(batch.sink), []).append(batch)
        for batches in gone.values():
            if batches[0].sink is not None:
                batches[0].sink.unheard(self._given_up.error_of(batches))
