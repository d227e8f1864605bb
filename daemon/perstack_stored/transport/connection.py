"""A client's connection over ipc: its decoder, and the answers that its socket has no room for yet."""

import contextlib
import socket
import time
from typing import NamedTuple

from perstack_stored.model.shares import Client, client_of
from perstack_stored.protocol.messages import Envelope
from perstack_stored.protocol.zmtp import ZmtpDecoder

_JOIN_BYTES_MAX = 65_536  # up to here a copy is cheaper than a call with many buffers
_BUFFERS_MAX = 64
_LARGE_BODY_BYTES = 16_384


class Newcomer(NamedTuple):
    """A connection that is accepted and not served yet."""

    sock: socket.socket
    number: int
    uid: int
    gid: int
    pid: int
    process: str

    @property
    def client(self) -> Client:
        """The client's key for shares: `Peers.client`."""
        return client_of(self.pid, self.process)

    def has_left(self) -> bool:
        """Whether the other end is closed."""
        try:
            return not self.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True


class IpcConnection:
    """Sends and receives without blocking. `transport/ipc.py` decides what it means.

    Attributes:
        number: its routing id; unlike the descriptor never reused.
        client: the client's key for shares: `Peers.client`.
        since: monotonic time of its arrival.
        send_closed: it takes no more answers.
        partial_bytes: bytes of an unfinished frame, as they were counted last.
        waiting: bytes of answers that wait to be sent.
        answers: count of those answers, nearly: ones that are sent in part count.
        blocked: the socket is full; it is watched for room.
    """

    __slots__ = (
        "_out", "_send", "_socket", "answers", "blocked", "client", "decoder", "fd", "number",
        "partial_bytes", "recv", "send_closed", "since", "waiting",
    )  # fmt: skip

    def __init__(self, sock: socket.socket, number: int, client: Client, frame_bytes_max: int) -> None:
        sock.setblocking(False)
        self._socket = sock
        self.fd = sock.fileno()
        self.recv = sock.recv
        self._send = sock.send
        self.number = number
        self.client = client
        plain: Envelope = (number, False)
        self.decoder: ZmtpDecoder[Envelope] = ZmtpDecoder(plain, (number, True), frame_bytes_max)
        self._out: list[bytes | memoryview] = []
        self.since = time.monotonic()
        self.partial_bytes = self.waiting = self.answers = 0
        self.blocked = self.send_closed = False

    def put(self, head: bytes, body: bytes) -> None:
        """Append an answer to those that wait."""
        if len(body) >= _LARGE_BODY_BYTES:
            self._out += (head, body)
        elif self.blocked and len(self._out[-1]) < _LARGE_BODY_BYTES:
            # Separate small buffers would take a multiple of their bytes, and long to send.
            self._out[-1] = b"".join((self._out[-1], head, body))
        else:
            self._out.append(head + body)
        self.waiting += len(head) + len(body)

    def push(self) -> bool:
        """Send as much as the socket takes; return whether nothing is left.

        Raises:
            OSError: the client will not read any more, or the machine lacks memory.
        """
        while self._out:
            if len(self._out) > 1 and self.waiting <= _JOIN_BYTES_MAX:
                self._out = [b"".join(self._out)]
            try:
                if len(self._out) == 1:
                    sent = self._send(self._out[0])
                else:
                    sent = self._socket.sendmsg(self._out[:_BUFFERS_MAX])
            except BlockingIOError:
                return False
            self.waiting -= sent
            if not self.waiting:
                self._out.clear()
                break
            self._drop(sent)
        self.answers = 0
        return True

    def _drop(self, sent: int) -> None:
        """Remove sent bytes from the front."""
        out = self._out
        whole = 0
        while whole < len(out) and sent >= len(out[whole]):
            sent -= len(out[whole])
            whole += 1
        del out[:whole]
        if sent:
            out[0] = memoryview(out[0])[sent:]

    def discard(self) -> int:
        """Drop the answers that wait; return their count."""
        answers, self.answers = self.answers, 0
        self._out.clear()
        self.waiting = 0
        return answers

    def end(self) -> None:
        """Shut down sending: no more answers come."""
        with contextlib.suppress(OSError):  # the client has left
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
