"""Shares of a pool's places by client. No I/O.

One rule holds for all pools: when a pool is full, the client that holds most gives way to one that holds
less. A client is a process, a key or an address: see `Peers.client`.
"""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Client = str
NOBODY: Client = ""  # owner of things without a known client, as after a restart

Key = TypeVar("Key", bound=Hashable)


def client_of(pid: int, process: str) -> Client:
    """Key of a process; `process` if it has no pid in this namespace."""
    return process or f"pid {pid}"


class Shares:
    """Places by client. Each step takes constant time for any number of clients and places.

    Attributes:
        total: places that are taken.
    """

    def __init__(self) -> None:
        self._held: dict[Client, int] = {}
        self._holding: dict[int, dict[Client, None]] = {}  # clients by their count of places
        self._most = 0
        self.total = 0

    def of(self, client: Client) -> int:
        """Count of places that a client holds."""
        return self._held.get(client, 0)

    def add(self, client: Client) -> None:
        """Give a client one more place."""
        self._move(client, self.of(client), 1)
        self._most = max(self._most, self._held[client])

    def remove(self, client: Client) -> None:
        """Take one place back from a client."""
        self._move(client, self._held[client], -1)
        if self._most not in self._holding:
            self._most -= 1

    def most(self) -> tuple[Client, int]:
        """The client that holds most, and its count; of several, the one that reached it first."""
        if not self._most:
            return NOBODY, 0
        return next(iter(self._holding[self._most])), self._most

    def must_yield(self, newcomer: Client) -> Client | None:
        """The client that gives way to a newcomer when all places are taken; None: the newcomer waits.

        The newcomer must hold less than the other will, or the two would alternate for ever.
        """
        client, held = self.most()
        return client if held > self.of(newcomer) + 1 else None

    def _move(self, client: Client, held: int, by: int) -> None:
        if held:
            level = self._holding[held]
            del level[client]
            if not level:
                del self._holding[held]
        held += by
        self.total += by
        if held:
            self._held[client] = held
            self._holding.setdefault(held, {})[client] = None
        else:
            del self._held[client]


class Owned(Generic[Key]):
    """Things of a pool by the client that holds them, in the order of their use.

    Attributes:
        shares: count of things by client.
    """

    def __init__(self) -> None:
        self.shares = Shares()
        self._of: dict[Client, OrderedDict[Key, None]] = {}

    def add(self, key: Key, client: Client) -> None:
        """Add a thing to a client's."""
        self.shares.add(client)
        self._of.setdefault(client, OrderedDict())[key] = None

    def remove(self, key: Key, client: Client) -> None:
        """Remove a thing from a client's."""
        self.shares.remove(client)
        mine = self._of[client]
        del mine[key]
        if not mine:
            del self._of[client]

    def use(self, key: Key, client: Client) -> None:
        """Mark a thing as most recently used."""
        self._of[client].move_to_end(key)

    def oldest(self, client: Client) -> Key:
        """The client's least recently used thing; it must have one."""
        return next(iter(self._of[client]))

    def newest(self, client: Client) -> Key:
        """The client's most recently used thing; it must have one."""
        return next(reversed(self._of[client]))
