"""Send queue of the ROUTER: a client that doesn't read, or has left, delays no other."""

from collections import deque

import zmq
import zmq.backend

from perstack_stored.protocol.messages import Envelope, RoutingId


class SendQueue:
    """Sends on the ROUTER without blocking; answers that a peer's queue refuses wait here, within a bound."""

    def __init__(self, socket: "zmq.backend.Socket", *, bytes_max: int) -> None:
        self._send = zmq.backend.Socket.send.__get__(socket)  # without the overhead of the public method
        self.bytes_max = bytes_max
        self._waiting: dict[RoutingId, deque[tuple[Envelope, bytes]]] = {}
        self._waiting_bytes: dict[RoutingId, int] = {}
        self.dropped = 0
        self.gone = 0

    @property
    def stalled(self) -> int:
        """Count of clients with answers waiting."""
        return len(self._waiting)

    def send(self, envelope: Envelope, frame: bytes) -> None:
        """Send an answer, now or as soon as the client reads."""
        peer = envelope[0]
        if peer in self._waiting or not self._try(envelope, frame):
            self._keep(envelope, frame)

    def flush(self) -> None:
        """Retry the answers that wait."""
        for peer in list(self._waiting):
            queue = self._waiting[peer]
            while queue and self._try(*queue[0]):
                self._waiting_bytes[peer] -= len(queue.popleft()[1])
            if not queue:
                del self._waiting[peer], self._waiting_bytes[peer]

    def _try(self, envelope: Envelope, frame: bytes) -> bool:
        """Return whether an answer is done with: it is sent, or its client has left."""
        peer, delimited = envelope
        try:
            self._send(peer, zmq.SNDMORE | zmq.NOBLOCK)
        except zmq.Again:
            return False
        except zmq.ZMQError:  # EHOSTUNREACH: the peer has left
            self.gone += 1
            return True
        if delimited:
            self._send(b"", zmq.SNDMORE | zmq.NOBLOCK)
        self._send(frame, zmq.NOBLOCK)
        return True

    def _keep(self, envelope: Envelope, frame: bytes) -> None:
        peer = envelope[0]
        size = self._waiting_bytes.get(peer, 0) + len(frame)
        if size > self.bytes_max:
            self.dropped += 1  # the client's retry brings an ack back
            return
        self._waiting.setdefault(peer, deque()).append((envelope, frame))
        self._waiting_bytes[peer] = size
