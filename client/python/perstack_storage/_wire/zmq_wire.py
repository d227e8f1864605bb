"""The wire by libzmq: for tcp, with CURVE or without."""

import contextlib

import zmq
from zmq.utils.monitor import parse_monitor_message

from perstack_storage._core.errors import ClosedError, EndpointError
from perstack_storage._core.outcomes import KEY_REFUSED
from perstack_storage._wire.keys import CurveKeys
from perstack_storage._wire.readiness import READABLE, is_cooperative, wait_ready
from perstack_storage._wire.wire import RECONNECT_MAX_S, RECONNECT_MIN_S
from perstack_storage._wire.zmtp import FRAME_BYTES_MAX, WAIT_SLICE_S

NO_COPY_BYTES_MIN = 65_536

_TROUBLES = {
    int(zmq.EVENT_HANDSHAKE_FAILED_AUTH): KEY_REFUSED,
    int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL): "one side uses CURVE keys, the other does not",
}
_BROKEN_OFF = int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL)  # the other side closes, and does not say why
_BROKEN_OFF_KEYED = "the handshake fails: is the server key the daemon's own?"
_BROKEN_OFF_PLAIN = "the handshake fails: does the daemon want CURVE keys?"
_CONNECTED = int(zmq.EVENT_HANDSHAKE_SUCCEEDED)
_READABLE, _WRITABLE = int(zmq.POLLIN), int(zmq.POLLOUT)  # operations on the enumeration cost a microsecond


def connect(context: zmq.SyncContext, endpoint: str, keys: CurveKeys | None) -> "ZmqWire":
    """Begins to connect.

    Raises:
        EndpointError: it is no endpoint.
        ClosedError: the context has ended.
    """
    try:
        return ZmqWire(context, endpoint, keys)
    except zmq.ZMQError as error:
        if error.errno == zmq.ETERM:
            raise ClosedError("the client was closed during the call") from error
        raise EndpointError(f"no socket can be connected to {endpoint}: {error}") from error


class ZmqWire:
    """A DEALER of libzmq, which connects again by itself. ConnectionAbortedError: its context has ended."""

    unsent = False
    ready = False  # asked for where it took no frame: then it has no connection

    def __init__(self, context: zmq.SyncContext, endpoint: str, keys: CurveKeys | None) -> None:
        """Begins to connect; with `keys`, by CURVE.

        Raises:
            zmq.ZMQError: it is no endpoint, or the context has ended.
        """
        socket = self._socket = context.socket(zmq.DEALER)
        socket.linger = 0
        # Frames go to a finished connection only. So what the socket took may have arrived, and what it did
        # not take has certainly not: that distinguishes DaemonUnavailable from OutcomeUnknown.
        socket.immediate = True
        socket.maxmsgsize = FRAME_BYTES_MAX
        socket.sndhwm = socket.rcvhwm = 0  # the window and the reads under way bound both queues
        socket.reconnect_ivl = int(RECONNECT_MIN_S * 1000)
        socket.reconnect_ivl_max = int(RECONNECT_MAX_S * 1000)
        self._trouble = ""
        self._ended = False
        self._troubles = {
            **_TROUBLES,
            _BROKEN_OFF: _BROKEN_OFF_PLAIN if keys is None else _BROKEN_OFF_KEYED,
        }
        if keys is not None:
            socket.curve_serverkey = keys.server_key.encode()
            socket.curve_publickey = keys.public_key.encode()
            socket.curve_secretkey = keys.secret_key.encode()
        self._monitor: zmq.SyncSocket = socket.get_monitor_socket(sum(self._troubles) + _CONNECTED)
        self._monitor.linger = 0
        socket.connect(endpoint)
        self.fd = int(socket.fd)

    def send(self, frame: bytes) -> None:
        """Takes a frame, or raises BlockingIOError."""
        if self._ended:
            raise ConnectionAbortedError
        try:
            self._socket.send(frame, zmq.NOBLOCK, copy=len(frame) < NO_COPY_BYTES_MIN)
        except zmq.Again:
            raise BlockingIOError from None
        except zmq.ZMQError as error:
            raise ConnectionAbortedError from error

    def flush(self) -> None:
        """Nothing to do: libzmq's thread does it."""

    def receive(self) -> bytes:
        """Returns a frame that has arrived, or raises BlockingIOError."""
        try:
            return self._socket.recv(zmq.NOBLOCK)
        except zmq.Again:
            raise BlockingIOError from None
        except zmq.ZMQError as error:
            raise ConnectionAbortedError from error

    def wait(self, seconds: float, blocked: bool, /) -> bool:
        """Waits for something to take, or where `blocked`, to send."""
        if self._ended:
            raise ConnectionAbortedError
        seconds = min(seconds, WAIT_SLICE_S)
        events = _READABLE | _WRITABLE if blocked else _READABLE
        try:
            if is_cooperative():  # libzmq would hold up all green threads
                return self.has_work(blocked) or (
                    wait_ready(self.fd, READABLE, seconds) and self.has_work(blocked)
                )
            return bool(self._socket.poll(int(seconds * 1000) + 1, events))
        except zmq.ZMQError as error:
            raise ConnectionAbortedError from error

    def has_work(self, blocked: bool, /) -> bool:
        """Whether an answer has arrived, or a socket that took no frame takes one now.

        Each use of the socket, this one too, may swallow the signal of its descriptor. A caller that
        waits for the descriptor asks this after the last use: once the answer is False, whatever comes
        gives a new signal.
        """
        wanted = _READABLE | _WRITABLE if blocked else _READABLE
        try:
            return bool(int(self._socket.getsockopt(zmq.EVENTS)) & wanted)
        except zmq.ZMQError:  # the client was closed meanwhile
            return False

    def interrupt(self) -> None:
        """Takes no frame any more, and ends a wait, which is never long."""
        self._ended = True

    def trouble(self) -> str:
        """Why there is no connection: the handshake failed, for a reason that waiting won't help."""
        try:
            while True:
                event = parse_monitor_message(self._monitor.recv_multipart(zmq.NOBLOCK))
                self._trouble = self._troubles.get(int(event["event"]), "")
        except zmq.ZMQError:  # nothing more, or the client was closed meanwhile
            pass
        return self._trouble

    def close(self) -> None:
        """Closes it; what is unsent is not sent."""
        with contextlib.suppress(zmq.ZMQError):
            self._socket.disable_monitor()
        self._socket.close(linger=0)
