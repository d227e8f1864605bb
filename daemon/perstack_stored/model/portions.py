"""Byte shares: how much of a pool each client holds. No I/O.

A client is a process (ipc), a key (CURVE) or an address: see `Peers.client`. More connections give a
client no more of a pool.
"""

from perstack_storage.protocol import ErrorCode
from perstack_stored.errors import Refusal


class ByteShares:
    """Counts what each client holds, in the unit of the pool.

    Attributes:
        total: sum over all clients.
    """

    def __init__(self) -> None:
        self._held: dict[str, int] = {}
        self.total = 0

    def of(self, client: str) -> int:
        """Amount that a client holds."""
        return self._held.get(client, 0)

    def add(self, client: str, amount: int) -> None:
        """Add to, or subtract from, a client's amount; a client with 0 is forgotten."""
        held = self._held.get(client, 0) + amount
        self.total += amount
        if held:
            self._held[client] = held
        else:
            self._held.pop(client, None)

    def take_place(self, client: str, places: int, busy: str) -> None:
        """Take one of the places of a pool that empties by itself, until `add(client, -1)`.

        Raises:
            Refusal: BUSY, with the text `busy`: all places, or this client's share of them, are taken.
        """
        if not self.has_room(client, 1, places):
            raise Refusal(ErrorCode.BUSY, busy)
        self.add(client, 1)

    def greatest(self) -> str:
        """The client that holds most; "" if none holds anything."""
        return max(self._held, key=self._held.__getitem__, default="")

    def has_room(self, client: str, amount: int, pool: int) -> bool:
        """Whether a client may take `amount` more of a pool that empties by itself.

        One client alone gets half of the pool, two get a third each, and so on: there is room for the next.
        """
        if self.total + amount > pool:
            return False
        clients = len(self._held) + (client not in self._held)
        return self.of(client) + amount <= pool // (clients + 1)
