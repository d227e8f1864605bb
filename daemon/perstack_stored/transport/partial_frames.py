"""What has come over ipc of frames that are not complete: bounded over all clients, fair to each client."""

from collections import Counter

from perstack_stored.model.shares import Client

from .connection import IpcConnection


class PartialFrameBudget:
    """Counts them by the client that sent them: whoever opens many connections gets no more room for it.

    Attributes:
        bytes: what has come in all.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._of: Counter[Client] = Counter()  # bytes
        self._by_client: dict[Client, dict[int, IpcConnection]] = {}  # the one that moved last is the last
        self.bytes = 0

    def note(self, connection: IpcConnection, partial_bytes: int) -> None:
        """So many bytes are kept for a connection now; none once it is closed."""
        client = connection.client
        self.bytes += partial_bytes - connection.partial_bytes
        self._of[client] += partial_bytes - connection.partial_bytes
        connection.partial_bytes = partial_bytes
        connections = self._by_client.setdefault(client, {})
        connections.pop(connection.number, None)
        if partial_bytes:
            connections[connection.number] = connection
        elif not connections:
            del self._by_client[client], self._of[client]

    def excess(self) -> IpcConnection | None:
        """One to close where there is too much: of the client that has most, the one that stands longest."""
        if self.bytes <= self._bytes_max:
            return None
        client = max(self._of, key=self._of.__getitem__)
        return next(iter(self._by_client[client].values()))
