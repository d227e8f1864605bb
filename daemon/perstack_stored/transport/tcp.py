"""The tcp transport: a ROUTER socket. libzmq handles the protocol and CURVE in a thread of its own."""

import zmq
import zmq.backend

from perstack_stored.access.peers import Peers
from perstack_stored.access.rules import AccessRules
from perstack_stored.config.settings import Settings
from perstack_stored.protocol.messages import Message

from .binding import seed_routing_ids
from .send_queue import SendQueue
from .zap import ZapHandler

_LINGER_MS = 500
_HANDSHAKE_MS = 5000


class TcpTransport:
    """Receives and sends without blocking. Only made for a tcp endpoint, as it starts a thread of libzmq.

    Attributes:
        fd: becomes readable when `pending` may have changed.
    """

    def __init__(self, rules: AccessRules, peers: Peers, settings: Settings) -> None:
        seed_routing_ids()
        self._context = zmq.Context()
        socket = self.socket = self._context.socket(zmq.ROUTER)
        socket.setsockopt(zmq.LINGER, _LINGER_MS)
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.setsockopt(zmq.RCVHWM, settings.receive_queue_messages)
        socket.setsockopt(zmq.SNDHWM, settings.send_queue_messages)
        # Larger frames than the limit get an answer up to this size; beyond it, libzmq closes the connection.
        socket.setsockopt(zmq.MAXMSGSIZE, 2 * settings.frame_bytes_max)
        socket.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)
        # The binding's own method: the public one costs as much again.
        self._recv = zmq.backend.Socket.recv.__get__(socket)
        self._peers = peers
        self.gate = ZapHandler(self._context, socket, rules)
        self.outbox = SendQueue(socket, bytes_max=settings.outbox_bytes_max)
        self.fd = int(socket.getsockopt(zmq.FD))

    @property
    def pending(self) -> bool:
        """Whether a message has arrived. Call it before each wait: `fd` may not report it."""
        return bool(int(self.socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)

    def take(self, messages: list[Message], limit: int, bytes_max: int) -> None:
        """Append requests, bounded in messages and nearly in bytes."""
        recv, more, nowait = self._recv, self.socket.getsockopt, zmq.NOBLOCK
        size = 0
        while len(messages) < limit and size < bytes_max:
            try:
                peer = recv(nowait)
            except zmq.Again:
                return
            if self._peers.knows(peer):
                frame = recv(nowait)
            else:
                first = recv(nowait, copy=False)
                self._peers.meet(peer, first)
                frame = first.bytes
            size += len(frame)
            if not more(zmq.RCVMORE):
                messages.append(((peer, False), frame))
                continue
            delimited = not frame
            frame = recv(nowait)
            size += len(frame)
            excess = not delimited
            while more(zmq.RCVMORE):
                excess = True
                recv(nowait)
            messages.append(((peer, delimited), None if excess else frame))

    def close(self) -> None:
        """Close all connections, after a moment for their last answers."""
        self.socket.close(linger=_LINGER_MS)

    def stop(self) -> None:
        """Stop the ZAP handler and libzmq's thread."""
        self.gate.stop()
        self._context.destroy(linger=_LINGER_MS)
