"""Facade over the ipc and tcp transports: receives requests, sends answers, waits for events."""

import contextlib
import select
import socket
from collections.abc import Mapping
from typing import Any

from perstack_stored.access.peers import Peers
from perstack_stored.config.settings import Settings
from perstack_stored.protocol.messages import Envelope, Message

from .ipc import IpcTransport
from .tcp import TcpTransport

_LAST_ANSWERS_SECONDS = 0.5
_IN = select.EPOLLIN


class Endpoints:
    """All listeners. Used by the serving loop; other threads may read the counters."""

    def __init__(self, peers: Peers, settings: Settings, connections_max: int) -> None:
        self._epoll = select.epoll()
        self._ipc = IpcTransport(self._epoll, peers, settings, connections_max)
        self._tcp: TcpTransport | None = None
        self._watched: set[int] = set()

    def serve_ipc(self, listener: socket.socket) -> None:
        """Accept clients at a listener from now on."""
        self._ipc.listen(listener)

    def serve_tcp(self, tcp: TcpTransport) -> None:
        """Receive by tcp, too."""
        self._tcp = tcp
        self._epoll.register(tcp.fd, _IN)
        self._watched.add(tcp.fd)

    def watch(self, fd: int) -> None:
        """End a wait when a descriptor becomes readable."""
        self._watched.add(fd)
        self._epoll.register(fd, _IN)

    def unwatch(self, fd: int) -> None:
        """Undo `watch`, before or after the descriptor is closed."""
        self._watched.discard(fd)
        with contextlib.suppress(OSError):  # closed: the kernel has forgotten it already
            self._epoll.unregister(fd)

    def wait(self, seconds: float) -> set[int] | None:
        """Sleep until something happens. Returns the readable watched descriptors; None if nothing happened.

        It does not sleep while received requests wait to be taken.
        """
        tcp = self._tcp
        busy = self._ipc.busy or (tcp is not None and tcp.pending)
        events = self._epoll.poll(0 if busy else seconds)
        if not events and not busy:
            return None
        watched = self._watched
        self._ipc.happened([event for event in events if event[0] not in watched])
        return {fd for fd, _ in events if fd in watched}

    def take(self, limit: int, bytes_max: int) -> list[Message]:
        """Return requests that arrived: from each transport at most `limit`, and nearly `bytes_max` bytes."""
        messages: list[Message] = []
        self._ipc.take(messages, limit, bytes_max)
        if self._tcp is not None:
            self._tcp.take(messages, len(messages) + limit, bytes_max)
        return messages

    def send(self, envelope: Envelope, frame: bytes) -> None:
        """Send an answer, at the next `flush` at the latest, or as soon as the client reads."""
        if isinstance(envelope[0], int):
            self._ipc.send(envelope, frame)
        elif self._tcp is not None:
            self._tcp.outbox.send(envelope, frame)

    def flush(self) -> None:
        """Send the answers that were collected."""
        self._ipc.flush()

    def retry(self) -> bool:
        """Retry what libzmq had no room for; return whether there is any: no event reports new room."""
        if self._tcp is None or not self._tcp.outbox.stalled:
            return False
        self._tcp.outbox.flush()
        return True

    def on_tick(self, now: float) -> None:
        """Handle timeouts; called about once a second.

        Raises:
            GateFailedError: the ZAP handler failed, so tcp clients can't be authenticated.
        """
        self._ipc.on_tick(now)
        if self._tcp is not None:
            self._tcp.gate.check()

    def apply_settings(self, settings: Settings) -> None:
        """Apply new settings."""
        self._ipc.apply_settings(settings)
        if self._tcp is not None:
            self._tcp.outbox.bytes_max = settings.outbox_bytes_max

    def close(self) -> None:
        """Accept no more clients, give them a moment to read their last answers, close the connections."""
        self._ipc.close(_LAST_ANSWERS_SECONDS)
        self._epoll.close()

    # --- counters ----------------------------------------------------------------------------------

    def answers(self) -> dict[str, int]:
        """Count clients that don't read, and answers that were not sent."""
        boxes = [self._ipc, *([] if self._tcp is None else [self._tcp.outbox])]
        return {name: sum(getattr(box, name) for box in boxes) for name in ("stalled", "dropped", "gone")}

    def connections(self) -> dict[str, Any]:
        """Count open connections, and closed ones by reason."""
        ipc, gate = self._ipc, None if self._tcp is None else self._tcp.gate
        failures: Mapping[str, int] = {} if gate is None else gate.failures
        return {
            "open": ipc.connections + (0 if gate is None else gate.connections),
            "accepted": ipc.accepted + (0 if gate is None else gate.accepted),
            "failed": {
                reason: ipc.failures.get(reason, 0) + failures.get(reason, 0)
                for reason in ("broken", "protocol", "refused", "timeout")
            },
            "cut": dict(ipc.cut),
            "paused": dict(ipc.pauses),
            "halfBytes": ipc.partial_frames.bytes,
        }
