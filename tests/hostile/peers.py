"""Peers that speak ZMTP themselves, as libzmq would not let them: any routing id, half a frame, nothing."""

import contextlib
import socket
import struct

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16 + 32)
_COMMAND, _LONG = 4, 2


class Peer:
    """A connection to an ipc endpoint that has greeted as a DEALER."""

    def __init__(self, endpoint: str, identity: bytes = b"", seconds: float = 20.0) -> None:
        """Connect and shake hands.

        Raises:
            OSError: the daemon does not want us.
        """
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(seconds)
        self._socket.connect(endpoint.removeprefix("ipc://"))
        self._socket.sendall(GREETING)
        self._exactly(64)
        ready = b"\x05READY" + _property(b"Socket-Type", b"DEALER") + _property(b"Identity", identity)
        self._socket.sendall(struct.pack("!BQ", _COMMAND | _LONG, len(ready)) + ready)
        self._frame()

    def _exactly(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            piece = self._socket.recv(length - len(data))
            if not piece:
                raise ConnectionResetError("the daemon closed the connection")
            data += piece
        return data

    def _frame(self) -> tuple[int, bytes]:
        flags = self._exactly(1)[0]
        (length,) = struct.unpack("!Q", self._exactly(8)) if flags & _LONG else (self._exactly(1)[0],)
        return flags, self._exactly(length)

    def send(self, frame: bytes) -> None:
        """Send a message of one frame."""
        self._socket.sendall(struct.pack("!BQ", _LONG, len(frame)) + frame)

    def begin(self, length: int, data: bytes) -> None:
        """Send the beginning of a frame that is announced as longer."""
        self._socket.sendall(struct.pack("!BQ", _LONG, length) + data)

    def send_rest(self, data: bytes) -> None:
        """Send more of a frame that was begun."""
        self._socket.sendall(data)

    def drain(self) -> None:
        """Take what has arrived, and make nothing of it."""
        seconds = self._socket.gettimeout()
        self._socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while self._socket.recv(1 << 20):
                pass
        self._socket.settimeout(seconds)

    def receive(self) -> bytes:
        """The next message of one frame; commands (heartbeats) are passed over."""
        while True:
            flags, data = self._frame()
            if not flags & _COMMAND:
                return data

    def closed(self) -> bool:
        """Whether the daemon has closed the connection, or does so within the time that was set."""
        return is_closed(self._socket)

    def close(self) -> None:
        """Leave."""
        self._socket.close()


def is_closed(peer: socket.socket) -> bool:
    """Whether the other side has closed a connection, or does so within the time that was set for it."""
    try:
        while peer.recv(65_536):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True


def _property(name: bytes, value: bytes) -> bytes:
    return struct.pack("!B", len(name)) + name + struct.pack("!I", len(value)) + value
