"""The ipc transport: accepts, reads and answers connections to Unix sockets in the loop's thread.

libzmq ends the process where `accept` finds no descriptor left, and bounds partial frames by
connection only. Here everything has a bound; a connection that exceeds one is closed, counted, and logged
at intervals.
"""

import errno
import select
import socket
import struct
import time
from collections import Counter, deque

import structlog

from perstack_stored.access.peers import Peers, process_of
from perstack_stored.config.settings import Settings
from perstack_stored.model.shares import Client, Owned
from perstack_stored.observe.log import LogThrottle
from perstack_stored.protocol.messages import Envelope, Message, RoutingId
from perstack_stored.protocol.zmtp import OPENING, TooLargeError, ZmtpError, head_of

from .connection import IpcConnection, Newcomer
from .partial_frames import PartialFrameBudget

_ACCEPTED_MAX = 64  # in a round
_WAITING_MAX = 16  # accepted connections that wait for a place
_FRAMES_MAX = 64  # of one connection in a round
_PUSHED_BYTES = 262_144  # beyond this, a round's answers to a client don't wait for its end
_PAUSE_SECONDS = 0.5
_UCRED = struct.Struct("3i")
_IN, _OUT = select.EPOLLIN, select.EPOLLOUT

_log = structlog.get_logger()


class IpcTransport:
    """All connections over ipc. The loop's epoll watches their descriptors and the listeners'.

    Attributes:
        accepted: connections since the start.
        failures: count of failed handshakes, by reason.
        cut: count of connections that the daemon closed after their handshake, by reason.
        pauses: how often accepting paused for a moment, by reason.
        partial_frames: budget of partial frames.
        dropped, gone: count of answers that were not sent: the client did not read, or had left.
    """

    def __init__(self, epoll: select.epoll, peers: Peers, settings: Settings, connections_max: int) -> None:
        self._epoll = epoll
        self._peers = peers
        self._connections_max = connections_max
        self._frame_bytes_max = 2 * settings.frame_bytes_max  # beyond the limit a frame still gets an answer
        self._handshake_seconds = settings.handshake_seconds
        self.apply_settings(settings)
        self._listeners: dict[int, socket.socket] = {}
        self._by_fd: dict[int, IpcConnection] = {}
        self._by_number: dict[RoutingId, IpcConnection] = {}
        self._numbers = 0
        self._events: deque[tuple[int, int]] = deque()
        self._owned: Owned[int] = Owned()
        self._waiting: dict[Client, Newcomer] = {}  # accepted, and waiting for a place
        self._waiting_max = min(_WAITING_MAX, max(1, connections_max // 8))
        self._greeting: dict[int, IpcConnection] = {}  # oldest first
        self._unread: dict[int, IpcConnection] = {}  # with complete frames that were not taken
        self._taken = 0  # frames in this round
        self._answered: list[IpcConnection] = []
        self._blocked: dict[int, IpcConnection] = {}
        self._unread_answers = 0  # their bytes
        self._paused = ""
        self._paused_until = 0.0
        self._throttle = LogThrottle()
        self.accepted = 0
        self.failures = {"broken": 0, "protocol": 0, "timeout": 0}
        self.cut = {"memory": 0, "protocol": 0, "share": 0, "too_large": 0}
        self.pauses: Counter[str] = Counter(full=0, emfile=0)
        self.partial_frames = PartialFrameBudget(settings.half_frames_bytes_max)
        self.dropped = 0
        self.gone = 0

    @property
    def connections(self) -> int:
        """Count of open connections."""
        return len(self._by_fd)

    @property
    def stalled(self) -> int:
        """Count of clients with answers waiting."""
        return len(self._blocked)

    @property
    def busy(self) -> bool:
        """Whether requests can be taken without waiting."""
        return bool(self._events or self._unread)

    def apply_settings(self, settings: Settings) -> None:
        """Apply new settings."""
        self._answers_max = settings.outbox_bytes_max
        self._unread_answers_max = settings.unread_answers_bytes_max

    def listen(self, listener: socket.socket) -> None:
        """Accept clients at a listener from now on."""
        listener.setblocking(False)
        self._listeners[listener.fileno()] = listener
        self._epoll.register(listener, _IN)

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
                if fd in self._listeners and not self._paused:
                    self._accept(self._listeners[fd])
                continue
            if event & _OUT:
                self._push(connection)
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
                self._put(connection, outgoing, b"")
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
            self.gone += 1
        elif self._put(connection, head_of(len(frame), delimited=delimited), frame):
            connection.answers += 1
        else:
            self.dropped += 1  # the client's retry brings an ack back

    def _put(self, connection: IpcConnection, head: bytes, body: bytes) -> bool:
        """Queue an answer; return whether there was room."""
        waiting = connection.waiting
        if connection.blocked:
            if waiting + len(body) > self._answers_max:
                return False
            self._unread_answers += len(head) + len(body)
        elif not waiting:
            self._answered.append(connection)
        connection.put(head, body)
        if waiting > _PUSHED_BYTES and not connection.blocked:
            self._push(connection)
        return True

    def flush(self) -> None:
        """Send queued answers: one call for all answers to a client."""
        if self._answered:
            answered, self._answered = self._answered, []
            for connection in answered:
                if connection.waiting and not connection.blocked:
                    self._push(connection)
        while self._unread_answers > self._unread_answers_max:
            most = self._most_unread()
            self._cut(most, "memory", "answers that are not read take more than unread-answers-bytes-max")

    def _most_unread(self) -> IpcConnection:
        """The connection with most unread answers, of the client that has most."""
        left: Counter[Client] = Counter()
        for one in self._blocked.values():
            left[one.client] += one.waiting
        client = max(left, key=left.__getitem__)
        return max((o for o in self._blocked.values() if o.client == client), key=lambda o: o.waiting)

    def _push(self, connection: IpcConnection) -> None:
        before = connection.waiting if connection.blocked else 0
        try:
            sent = connection.push()
        except OSError:  # it has left, or reads no more; its earlier requests are still taken
            self._give_up(connection)
            sent = True
        self._unread_answers += connection.waiting - before
        if sent == connection.blocked:
            connection.blocked = not sent
            self._epoll.modify(connection.fd, _IN if sent else _IN | _OUT)
            if sent:
                self._blocked.pop(connection.number, None)
            else:
                self._blocked[connection.number] = connection

    def _give_up(self, connection: IpcConnection) -> None:
        """Send no more answers there; a client that does read sees the end, and connects again."""
        connection.send_closed = True
        connection.end()
        self.gone += connection.discard()

    # --- connections -------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTED_MAX):
            try:
                sock, _ = listener.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                # Descriptors or memory, of the process or of the machine: clients stay in the backlog.
                self._pause(errno.errorcode.get(error.errno or 0, "other").lower(), error)
                return
            try:
                if not self._let_in(sock):
                    return
            except OSError as error:
                sock.close()
                self._pause(errno.errorcode.get(error.errno or 0, "other").lower(), error)
                return

    def _let_in(self, sock: socket.socket) -> bool:
        """Serve a new connection, or make it wait for a place; return whether to accept more.

        If all places are taken, the client with most gives one up to a client with less. Else the newcomer
        waits, one connection for each client, so that other waiting clients are seen and get their share.
        """
        self._numbers += 1
        pid, uid, gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        process = "" if pid else process_of(sock, self._numbers, uid)
        newcomer = Newcomer(sock, self._numbers, uid, gid, pid, process)
        if len(self._by_fd) < self._connections_max:
            self._welcome(newcomer)
            return True
        client = newcomer.client
        most = self._owned.shares.must_yield(client)
        if most is not None:
            waiting, self._waiting = self._waiting, {}  # this place is for the newcomer
            self._cut(self._by_number[self._owned.newest(most)], "share", "its client has most connections")
            self._waiting = waiting
            self._welcome(newcomer)
            return True
        if client in self._waiting:
            sock.close()
            return True
        if len(self._waiting) < self._waiting_max:
            self._waiting[client] = newcomer
            self._log_full()
            return True
        sock.close()
        self._pause("full", f"there are {self._connections_max} connections, as many as may be")
        return False

    def _log_full(self) -> None:
        self.pauses["full"] += 1
        self._warn(
            "accepting_paused",
            "full",
            f"there are {self._connections_max} connections, as many as may be",
            None,
        )

    def _welcome(self, newcomer: Newcomer) -> None:
        sock, number, uid, gid, pid, process = newcomer
        self._epoll.register(sock, _IN)  # this may fail: then there is no arrival to undo
        client = self._peers.arrived(number, uid, gid, pid, process)
        connection = IpcConnection(sock, number, client, self._frame_bytes_max)
        self._owned.add(number, client)
        self._by_fd[connection.fd] = self._by_number[connection.number] = connection
        self._greeting[connection.number] = connection
        self.accepted += 1
        self._put(connection, OPENING, b"")

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
        if connection.blocked:
            self._unread_answers -= connection.waiting
        self.gone += connection.discard()
        if connection.partial_bytes:
            self.partial_frames.note(connection, 0)
        connection.close()
        del self._by_fd[connection.fd], self._by_number[number]
        for group in (self._greeting, self._unread, self._blocked):
            group.pop(number, None)
        self._owned.remove(number, connection.client)
        self._peers.left(number)
        if self._waiting:
            self._welcome_next()
        if self._paused == "full":
            self._resume()

    def _welcome_next(self) -> None:
        newcomer = self._waiting.pop(next(iter(self._waiting)))
        try:
            self._welcome(newcomer)
        except OSError:
            newcomer.sock.close()

    def _pause(self, reason: str, error: object) -> None:
        """Stop accepting for a moment: clients stay in the backlog. If watched, it would wake the loop."""
        self.pauses[reason] += 1
        self._paused, self._paused_until = reason, time.monotonic() + _PAUSE_SECONDS
        for fd in self._listeners:
            self._epoll.modify(fd, 0)  # not unregistered: watching it again could fail
        self._warn("accepting_paused", reason, error, None)

    def _resume(self) -> None:
        self._paused = ""
        for fd in self._listeners:
            self._epoll.modify(fd, _IN)

    def on_tick(self, now: float) -> None:
        """Close connections without a handshake, accept again after a pause; called about once a second."""
        if self._paused and self._paused != "full" and now >= self._paused_until:
            self._resume()
        for client, newcomer in list(self._waiting.items()):
            if newcomer.has_left():
                del self._waiting[client]
                newcomer.sock.close()
        late = now - self._handshake_seconds
        for connection in list(self._greeting.values()):
            if connection.since > late:
                break
            self._cut(connection, "timeout", "the handshake was not complete in time")

    def _warn(self, event: str, reason: str, error: object, connection: IpcConnection | None) -> None:
        """Log a warning, throttled; `more` counts suppressed ones."""
        more = self._throttle.admit(f"{event} {reason}")
        if more is None:
            return
        peer = None if connection is None else self._peers.of(connection.number)
        who = {} if peer is None else peer.as_log_fields()
        _log.warning(event, reason=reason, error=str(error), more=more, **who)

    def close(self, seconds: float) -> None:
        """Accept no more, wait briefly for clients to read their last answers, and close everything."""
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()
        for newcomer in self._waiting.values():
            newcomer.sock.close()
        self._waiting.clear()
        deadline = time.monotonic() + seconds
        self.flush()
        while self._blocked and (left := deadline - time.monotonic()) > 0:
            poll = select.poll()
            for connection in self._blocked.values():
                poll.register(connection.fd, select.POLLOUT)
            poll.poll(left * 1000)
            for connection in list(self._blocked.values()):
                self._push(connection)
        for connection in list(self._by_fd.values()):
            self._close(connection)
