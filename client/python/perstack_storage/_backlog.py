"""Stores that are called for beyond the window: they wait here, in order, until the queue has room.

No sockets and no clocks, as in `_stores.py`.
"""

import math
from collections import deque

from perstack_storage._batch import Batch, Sink
from perstack_storage._frames import Limits
from perstack_storage._stores import BATCH_BYTES_MAX, StoreQueue


class Backlog:
    """What stands behind the queue of a session. True while there is something in it."""

    def __init__(self, stores: StoreQueue, limits: Limits) -> None:
        self._stores = stores
        self._limits = limits
        self._waiting: deque[tuple[str, bytes, Sink, float]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def oldest_at(self) -> float:
        """When the first of them was called for; infinity if there is none."""
        return self._waiting[0][3] if self._waiting else math.inf

    def enqueue(self, op: str, body: bytes, sink: Sink, now: float) -> None:
        """Puts a store into the queue, or where that has no room, behind what waits here."""
        if self._waiting or not self._fits(len(body)):
            self._waiting.append((op, body, sink, now))
        else:
            self._stores.add(op, body, sink, now)

    def move(self) -> None:
        """Puts as much into the queue as it has room for."""
        waiting = self._waiting
        while waiting and self._fits(len(waiting[0][1])):
            self._stores.add(*waiting.popleft())

    def _fits(self, size: int) -> bool:
        # Whether a large one must travel in parts depends on what the daemon grants.
        known = size <= BATCH_BYTES_MAX or self._limits.known
        return known and self._stores.has_room(size, math.inf)

    def abandon(self, through: float = math.inf) -> list[Batch]:
        """Gives up what was called for up to the time `through`; nothing of it was ever sent."""
        gone: list[Batch] = []
        waiting = self._waiting
        while waiting and waiting[0][3] <= through:
            op, body, sink, added_at = waiting.popleft()
            batch = Batch(0, sink, added_at)
            batch.ops.append(op)
            batch.bodies.append(body)
            gone.append(batch)
            self._stores.finished += 1
            sink.abandoned(batch)
        return gone
