"""Global budget for partially received IPC frames, shared fairly between clients."""

from collections import Counter

from perstack_stored.model.shares import Client

from .connection import IpcConnection


class PartialFrameBudget:
    """Counts partial frames by client: a client that opens many connections gets no more room.

    Attributes:
        bytes: total of all connections.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._of: Counter[Client] = Counter()  # bytes
        self._by_client: dict[Client, dict[int, IpcConnection]] = {}  # least recently received first
        self.bytes = 0

    def note(self, connection: IpcConnection, partial_bytes: int) -> None:
        """Set the bytes of a connection's partial frame; 0 once it is closed."""
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
        """The connection to close if the budget is exceeded: the longest idle one of the client with most."""
        if self.bytes <= self._bytes_max:
            return None
        client = max(self._of, key=self._of.__getitem__)
        return next(iter(self._by_client[client].values()))
