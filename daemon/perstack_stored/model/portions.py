"""How much each client holds of a pool that all clients share: bytes, say. No I/O.

A client is a process (ipc), a key (CURVE) or an address: `Peers.client` says which. To open more connections
gives a client no more of a pool.
"""


class ByteShares:
    """Counts what each client holds, in the unit of the pool.

    Attributes:
        total: what all of them hold.
    """

    def __init__(self) -> None:
        self._held: dict[str, int] = {}
        self.total = 0

    def of(self, client: str) -> int:
        """What a client holds."""
        return self._held.get(client, 0)

    def add(self, client: str, amount: int) -> None:
        """A client holds so much more, or less; one that holds nothing is forgotten."""
        held = self._held.get(client, 0) + amount
        self.total += amount
        if held:
            self._held[client] = held
        else:
            self._held.pop(client, None)

    def greatest(self) -> str:
        """The client that holds most; "" if nobody holds anything."""
        return max(self._held, key=self._held.__getitem__, default="")

    def has_room(self, client: str, amount: int, pool: int) -> bool:
        """Whether a client may have so much more of a pool that empties by itself.

        One client alone gets half of the pool, two get a third each, and so on: there is room for the next.
        """
        if self.total + amount > pool:
            return False
        clients = len(self._held) + (client not in self._held)
        return self.of(client) + amount <= pool // (clients + 1)
