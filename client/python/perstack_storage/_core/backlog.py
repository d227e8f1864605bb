"""Stores that are called for beyond the window: they wait here, in order, until the queue has room.

No sockets and no clocks, as in `stores.py`.
"""

import math
from collections import deque
from collections.abc import Callable

from perstack_storage._core.batch import Batch, Sink, Store
from perstack_storage._core.conditions import numbers_of
from perstack_storage._core.frames import Limits
from perstack_storage._core.stores import BATCH_BYTES_MAX, StoreQueue


class Backlog:
    """The stores that wait for the queue of a session. True while there is something in it.

    Attributes:
        waiting: the stores in order, each with its sink and when it was called for.
    """

    def __init__(self, stores: StoreQueue, limits: Limits) -> None:
        self._stores = stores
        self._limits = limits
        self.waiting: deque[tuple[Store, Sink, float]] = deque()

    def __len__(self) -> int:
        return len(self.waiting)

    @property
    def numbers(self) -> int:
        """Count of the numbers that the stores in it will take."""
        return sum(numbers_of(store[1]) for store, _, _ in self.waiting)

    @property
    def oldest_at(self) -> float:
        """When the first of them was called for; infinity if there is none."""
        return self.waiting[0][2] if self.waiting else math.inf

    def append(self, store: Store, sink: Sink, now: float) -> None:
        """Puts a store into the queue, or where that has no room, after what waits here."""
        if self.waiting or not self._fits(len(store[1])):
            self.waiting.append((store, sink, now))
        else:
            self._stores.append(store, sink, now)

    def move(self) -> None:
        """Puts as much into the queue as it has room for."""
        waiting = self.waiting
        while waiting and self._fits(len(waiting[0][0][1])):
            self._stores.append(*waiting[0])  # before it is taken off: an exception here loses no store
            waiting.popleft()

    def successor(self, stores: StoreQueue, limits: Limits, sink_of: Callable[[Sink], Sink]) -> "Backlog":
        """Returns the same for a rebuilt queue; see `StoreQueue.successor`."""
        new, moved = Backlog(stores, limits), stores.last
        for store, sink, added_at in list(self.waiting):
            if store is not moved:
                new.waiting.append((store, sink_of(sink), added_at))
        return new

    def stores(self) -> list[Store]:
        """All that waits here, in order."""
        return [store for store, _, _ in self.waiting]

    def _fits(self, size: int) -> bool:
        # Whether a large one must travel in parts depends on what the daemon grants.
        known = size <= BATCH_BYTES_MAX or self._limits.known
        return known and self._stores.has_room(size, math.inf)

    def abandon(self, through: float = math.inf) -> list[Batch]:
        """Gives up what was called for up to the time `through`; nothing of it was ever sent."""
        gone: list[Batch] = []
        waiting = self.waiting
        while waiting and waiting[0][2] <= through:
            store, sink, added_at = waiting[0]
            batch = Batch(self._stores.next_seq, sink, added_at)  # a number that nothing else has
            batch.stores.append(store)
            gone.append(batch)
            sink.abandoned(batch)  # before it is taken off: an exception here loses no outcome
            self._stores.pass_numbers(numbers_of(store[1]))
            waiting.popleft()
        return gone
