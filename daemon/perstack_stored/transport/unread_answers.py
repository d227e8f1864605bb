"""Answers over ipc that wait: for the end of the round, or for a client that does not read."""

import select
import time
from collections import Counter

from perstack_stored.config.settings import Settings
from perstack_stored.model.shares import Client

from .connection import IpcConnection

_PUSHED_BYTES = 262_144  # beyond this, a round's answers to a client don't wait for its end
_IN, _OUT = select.EPOLLIN, select.EPOLLOUT


class UnreadAnswers:
    """Sends the answers of all connections, and bounds what clients leave unread.

    A client whose answers exceed its bound gets no more of them; if all clients together exceed theirs,
    `excess` names the connection to close.

    Attributes:
        dropped, gone: count of answers that were not sent: the client did not read, or had left.
    """

    def __init__(self, epoll: select.epoll, settings: Settings) -> None:
        self._epoll = epoll
        self.apply_settings(settings)
        self._answered: list[IpcConnection] = []
        self._blocked: dict[int, IpcConnection] = {}
        self._bytes = 0  # of blocked connections
        self.dropped = 0
        self.gone = 0

    @property
    def stalled(self) -> int:
        """Count of clients with answers waiting."""
        return len(self._blocked)

    def apply_settings(self, settings: Settings) -> None:
        """Apply new settings."""
        self._client_bytes_max = settings.outbox_bytes_max
        self._bytes_max = settings.unread_answers_bytes_max

    def put(self, connection: IpcConnection, head: bytes, body: bytes) -> bool:
        """Queue an answer; return whether there was room."""
        waiting = connection.waiting
        if connection.blocked:
            if waiting + len(body) > self._client_bytes_max:
                return False
            self._bytes += len(head) + len(body)
        elif not waiting:
            self._answered.append(connection)
        connection.put(head, body)
        if waiting > _PUSHED_BYTES and not connection.blocked:
            self.push(connection)
        return True

    def flush(self) -> None:
        """Send queued answers: one call for all answers to a client."""
        if self._answered:
            answered, self._answered = self._answered, []
            for connection in answered:
                if connection.waiting and not connection.blocked:
                    self.push(connection)

    def excess(self) -> IpcConnection | None:
        """The connection to close if unread answers exceed the bound of all clients."""
        return self._most() if self._bytes > self._bytes_max else None

    def _most(self) -> IpcConnection:
        """The connection with most unread answers, of the client that has most."""
        left: Counter[Client] = Counter()
        for one in self._blocked.values():
            left[one.client] += one.waiting
        client = max(left, key=left.__getitem__)
        return max((o for o in self._blocked.values() if o.client == client), key=lambda o: o.waiting)

    def push(self, connection: IpcConnection) -> None:
        """Send as much as the socket takes; watch it for room while something is left."""
        before = connection.waiting if connection.blocked else 0
        try:
            sent = connection.push()
        except OSError:  # it has left, or reads no more; its earlier requests are still taken
            self._give_up(connection)
            sent = True
        self._bytes += connection.waiting - before
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

    def forget(self, connection: IpcConnection) -> None:
        """Drop the answers to a connection that closes."""
        if connection.blocked:
            self._bytes -= connection.waiting
        self.gone += connection.discard()
        self._blocked.pop(connection.number, None)

    def wait_for_readers(self, seconds: float) -> None:
        """Wait briefly for clients to read their last answers."""
        deadline = time.monotonic() + seconds
        while self._blocked and (left := deadline - time.monotonic()) > 0:
            poll = select.poll()
            for connection in self._blocked.values():
                poll.register(connection.fd, select.POLLOUT)
            poll.poll(left * 1000)
            for connection in list(self._blocked.values()):
                self.push(connection)
