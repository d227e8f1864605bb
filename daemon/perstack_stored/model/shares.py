"""Who holds how many places of a pool that all clients share. No I/O.

The rule is one for all pools: where a pool is full, the client that holds most gives way to one that holds
less. A client is a process, a key or an address: `Peers.client` says which.
"""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Client = str
NOBODY: Client = ""  # what belongs to no client that is known, as after a restart

Key = TypeVar("Key", bound=Hashable)


def client_of(pid: int, process: str) -> Client:
    """The name of a process; `process` where it has no number here."""
    return process or f"pid {pid}"


class Shares:
    """Places by client. Each step takes the same time, however many clients and places there are.

    Attributes:
        total: places that are held.
    """

    def __init__(self) -> None:
        self._held: dict[Client, int] = {}
        self._holding: dict[int, dict[Client, None]] = {}  # clients by the number of their places
        self._most = 0
        self.total = 0

    def of(self, client: Client) -> int:
        """How many places a client holds."""
        return self._held.get(client, 0)

    def add(self, client: Client) -> None:
        """A client takes one more."""
        self._move(client, self.of(client), 1)
        self._most = max(self._most, self._held[client])

    def remove(self, client: Client) -> None:
        """A client gives one back."""
        self._move(client, self._held[client], -1)
        if self._most not in self._holding:
            self._most -= 1

    def most(self) -> tuple[Client, int]:
        """The client that holds most, and how many places those are; of several, who came to it first."""
        if not self._most:
            return NOBODY, 0
        return next(iter(self._holding[self._most])), self._most

    def must_yield(self, newcomer: Client) -> Client | None:
        """The client that gives way to a newcomer where all places are held; None: the newcomer waits.

        The newcomer must hold less than the other will, or the two would take turns for ever.
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
    """Things of a pool by the client that holds them, and in the order of their use.

    Attributes:
        shares: how many each client holds.
    """

    def __init__(self) -> None:
        self.shares = Shares()
        self._of: dict[Client, OrderedDict[Key, None]] = {}

    def add(self, key: Key, client: Client) -> None:
        """A client takes one."""
        self.shares.add(client)
        self._of.setdefault(client, OrderedDict())[key] = None

    def remove(self, key: Key, client: Client) -> None:
        """A client gives one back."""
        self.shares.remove(client)
        mine = self._of[client]
        del mine[key]
        if not mine:
            del self._of[client]

    def use(self, key: Key, client: Client) -> None:
        """It is the one used last now."""
        self._of[client].move_to_end(key)

    def oldest(self, client: Client) -> Key:
        """The one of a client's that was used longest ago; it must have one."""
        return next(iter(self._of[client]))

    def newest(self, client: Client) -> Key:
        """The one of a client's that was used last; it must have one."""
        return next(reversed(self._of[client]))
