"""Answers on their way out. A client that doesn't read, or is gone, holds up nobody else."""

from collections import deque

import zmq
import zmq.backend

from perstack_stored.protocol.messages import Envelope, RoutingId


class SendQueue:
    """Sends on the ROUTER, never blocking; what a peer's queue doesn't take waits here, within a bound."""

    def __init__(self, socket: "zmq.backend.Socket", *, bytes_max: int) -> None:
        self._send = zmq.backend.Socket.send.__get__(socket)  # without the public one's overhead
        self.bytes_max = bytes_max
        self._waiting: dict[RoutingId, deque[tuple[Envelope, bytes]]] = {}
        self._waiting_bytes: dict[RoutingId, int] = {}
        self.dropped = 0
        self.gone = 0

    @property
    def stalled(self) -> int:
        """Clients with answers waiting."""
        return len(self._waiting)

    def send(self, envelope: Envelope, frame: bytes) -> None:
        """Send an answer, now or as soon as the client reads."""
        peer = envelope[0]
        if peer in self._waiting or not self._try(envelope, frame):
            self._keep(envelope, frame)

    def flush(self) -> None:
        """Try again what waits."""
        for peer in list(self._waiting):
            queue = self._waiting[peer]
            while queue and self._try(*queue[0]):
                self._waiting_bytes[peer] -= len(queue.popleft()[1])
            if not queue:
                del self._waiting[peer], self._waiting_bytes[peer]

    def _try(self, envelope: Envelope, frame: bytes) -> bool:
        """True if the answer is out of our hands: sent, or for nobody."""
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
