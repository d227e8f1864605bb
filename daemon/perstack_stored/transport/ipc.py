"""The ipc transport: reads and answers connections to Unix sockets in the loop's thread.

libzmq ends the process where `accept` finds no descriptor left, and bounds partial frames by
connection only. Here everything has a bound; a connection that exceeds one is closed, counted, and logged
at intervals. `transport/acceptor.py` accepts, `transport/unread_answers.py` bounds what clients leave unread.
"""

import select
import socket
from collections import deque
from collections.abc import Mapping

import structlog

from perstack_stored.access.peers import Peers
from perstack_stored.config.settings import Settings
from perstack_stored.model.shares import Client, Owned
from perstack_stored.observe.log import LogThrottle
from perstack_stored.protocol.messages import Envelope, Message, RoutingId
from perstack_stored.protocol.zmtp import OPENING, TooLargeError, ZmtpError, head_of

from .acceptor import Acceptor
from .connection import IpcConnection, Newcomer
from .partial_frames import PartialFrameBudget
from .unread_answers import UnreadAnswers

_FRAMES_MAX = 64  # of one connection in a round
_IN, _OUT = select.EPOLLIN, select.EPOLLOUT

_log = structlog.get_logger()


class IpcTransport:
    """All connections over ipc. The loop's epoll watches their descriptors and the listeners'.

    Attributes:
        accepted: connections since the start.
        failures: count of failed handshakes, by reason.
        cut: count of connections that the daemon closed after their handshake, by reason.
        partial_frames: budget of partial frames.
    """

    def __init__(self, epoll: select.epoll, peers: Peers, settings: Settings, connections_max: int) -> None:
        self._epoll = epoll
        self._peers = peers
        self._frame_bytes_max = 2 * settings.frame_bytes_max  # beyond the limit a frame still gets an answer
        self._handshake_seconds = settings.handshake_seconds
        self._answers = UnreadAnswers(epoll, settings)
        self._acceptor = Acceptor(epoll, self, connections_max)
        self._by_fd: dict[int, IpcConnection] = {}
        self._by_number: dict[RoutingId, IpcConnection] = {}
        self._events: deque[tuple[int, int]] = deque()
        self._owned: Owned[int] = Owned()
        self._greeting: dict[int, IpcConnection] = {}  # oldest first
        self._unread: dict[int, IpcConnection] = {}  # with complete frames that were not taken
        self._taken = 0  # frames in this round
        self._throttle = LogThrottle()
        self.accepted = 0
        self.failures = {"broken": 0, "protocol": 0, "timeout": 0}
        self.cut = {"memory": 0, "protocol": 0, "share": 0, "too_large": 0}
        self.partial_frames = PartialFrameBudget(settings.half_frames_bytes_max)

    @property
    def connections(self) -> int:
        """Count of open connections."""
        return len(self._by_fd)

    @property
    def pauses(self) -> Mapping[str, int]:
        """How often accepting paused for a moment, by reason."""
        return self._acceptor.pauses

    @property
    def stalled(self) -> int:
        """Count of clients with answers waiting."""
        return self._answers.stalled

    @property
    def dropped(self) -> int:
        """Count of answers that were not sent because the client did not read."""
        return self._answers.dropped

    @property
    def gone(self) -> int:
        """Count of answers that were not sent because the client had left."""
        return self._answers.gone

    @property
    def busy(self) -> bool:
        """Whether requests can be taken without waiting."""
        return bool(self._events or self._unread)

    def apply_settings(self, settings: Settings) -> None:
        """Apply new settings."""
        self._answers.apply_settings(settings)

    def listen(self, listener: socket.socket) -> None:
        """Accept clients at a listener from now on."""
        self._acceptor.listen(listener)

    def happened(self, events: list[tuple[int, int]]) -> None:
        """Note events of the transport's descriptors, for `take`.

        While older events are left, new ones are dropped: the next wait reports them again.
        """
        if not self._events:
            self._events.extend(events)

    # --- receive -----------------------------------------------------------------------------------

    def take(self, messages: list[Message], limit: int, bytes_max: int) -> None:
        """Append requests, bounded in frames and nearly in bytes; each connection gets a turn."""
        self._taken = 0
        if self._unread:
            # Half of the room: a client that has sent more than a round takes must not keep out the others.
            half = (limit + 1) // 2
            self._go_on(messages, half)
            limit = self._taken + half
        size = 0
        while self._events and self._taken < limit and size < bytes_max:
            fd, event = self._events.popleft()
            connection = self._by_fd.get(fd)
            if connection is None:
                self._acceptor.accept(fd)
                continue
            if event & _OUT:
                self._answers.push(connection)
            if event & ~_OUT and not connection.decoder.unread:
                size += self._read(connection, messages)

    def _read(self, connection: IpcConnection, messages: list[Message]) -> int:
        decoder = connection.decoder
        try:
            data = connection.recv(decoder.wanted)
        except BlockingIOError:
            return 0
        except OSError:  # reset
            data = b""
        if data:
            self._feed(connection, data, messages)
        else:
            self._end(connection)
        return len(data)

    def _feed(self, connection: IpcConnection, data: bytes, messages: list[Message]) -> None:
        decoder = connection.decoder
        was_ready = decoder.ready
        try:
            self._taken += decoder.feed(data, messages, _FRAMES_MAX)
        except ZmtpError as error:
            self._cut(connection, "too_large" if isinstance(error, TooLargeError) else "protocol", error)
            return
        if decoder.unread:
            self._unread[connection.number] = connection
        if decoder.outgoing:
            outgoing, decoder.outgoing = decoder.outgoing, b""
            if not connection.send_closed:
                self._answers.put(connection, outgoing, b"")
        if not was_ready and decoder.ready:
            self._greeting.pop(connection.number, None)
        if decoder.partial_bytes != connection.partial_bytes:
            self.partial_frames.note(connection, decoder.partial_bytes)
            while (one := self.partial_frames.excess()) is not None:
                self._cut(one, "memory", "unfinished frames take more than half-frames-bytes-max")

    def _go_on(self, messages: list[Message], limit: int) -> None:
        """Decode bytes read before, in turns."""
        for number, connection in list(self._unread.items()):
            if self._taken >= limit:
                return
            del self._unread[number]
            self._feed(connection, b"", messages)  # goes to the end of the queue if frames are left

    # --- send --------------------------------------------------------------------------------------

    def send(self, envelope: Envelope, frame: bytes) -> None:
        """Send an answer at the next `flush`, or as soon as the client reads."""
        number, delimited = envelope
        connection = self._by_number.get(number)
        if connection is None or connection.send_closed:
            self._answers.gone += 1
        elif self._answers.put(connection, head_of(len(frame), delimited=delimited), frame):
            connection.answers += 1
        else:
            self._answers.dropped += 1  # the client's retry brings an ack back

    def flush(self) -> None:
        """Send queued answers, and close connections while unread answers exceed their bound."""
        self._answers.flush()
        while (one := self._answers.excess()) is not None:
            self._cut(one, "memory", "answers that are not read take more than unread-answers-bytes-max")

    # --- connections -------------------------------------------------------------------------------

    def must_yield(self, client: Client) -> Client | None:
        """The client that gives a place up to a newcomer's client; None: the newcomer waits."""
        return self._owned.shares.must_yield(client)

    def take_place(self, client: Client) -> None:
        """Close the newest connection of a client."""
        self._cut(self._by_number[self._owned.newest(client)], "share", "its client has most connections")

    def welcome(self, newcomer: Newcomer) -> None:
        """Serve a new connection.

        Raises:
            OSError: it can't be watched; nothing has changed.
        """
        sock, number, uid, gid, pid, process = newcomer
        self._epoll.register(sock, _IN)  # this may fail: then there is no arrival to undo
        client = self._peers.arrived(number, uid, gid, pid, process)
        connection = IpcConnection(sock, number, client, self._frame_bytes_max)
        self._owned.add(number, client)
        self._by_fd[connection.fd] = self._by_number[connection.number] = connection
        self._greeting[connection.number] = connection
        self.accepted += 1
        self._answers.put(connection, OPENING, b"")

    def _end(self, connection: IpcConnection) -> None:
        """Close a connection whose requests are all taken: after its end no more come."""
        if not connection.decoder.ready:
            self.failures["broken"] += 1
        self._close(connection)

    def _cut(self, connection: IpcConnection, reason: str, error: object) -> None:
        """Close a connection that breaks the protocol or a bound."""
        if connection.decoder.ready:
            self.cut[reason] += 1
            self._warn("connection_cut", reason, error, connection)
        else:
            reason = reason if reason in self.failures else "protocol"
            self.failures[reason] += 1
            self._warn("handshake_failed", reason, error, connection)
        self._close(connection)

    def _close(self, connection: IpcConnection) -> None:
        number = connection.number
        self._epoll.unregister(connection.fd)
        self._answers.forget(connection)
        if connection.partial_bytes:
            self.partial_frames.note(connection, 0)
        connection.close()
        del self._by_fd[connection.fd], self._by_number[number]
        for group in (self._greeting, self._unread):
            group.pop(number, None)
        self._owned.remove(number, connection.client)
        self._peers.left(number)
        self._acceptor.on_place_free()

    def on_tick(self, now: float) -> None:
        """Close connections without a handshake, accept again after a pause; called about once a second."""
        self._acceptor.on_tick(now)
        late = now - self._handshake_seconds
        for connection in list(self._greeting.values()):
            if connection.since > late:
                break
            self._cut(connection, "timeout", "the handshake was not complete in time")

    def _warn(self, event: str, reason: str, error: object, connection: IpcConnection) -> None:
        """Log a warning, throttled; `more` counts suppressed ones."""
        more = self._throttle.admit(f"{event} {reason}")
        if more is None:
            return
        peer = self._peers.of(connection.number)
        who = {} if peer is None else peer.as_log_fields()
        _log.warning(event, reason=reason, error=str(error), more=more, **who)

    def close(self, seconds: float) -> None:
        """Accept no more, wait briefly for clients to read their last answers, and close everything."""
        self._acceptor.close()
        self.flush()
        self._answers.wait_for_readers(seconds)
        for connection in list(self._by_fd.values()):
            self._close(connection)
