"""Queue of stores too large to check in the serving loop, and of later stores of their sessions.

A process of its own (`store/value_checker.py`) checks the large ones, one at a time, clients in turn. A large
store keeps its place in the order of its session: later stores of the session wait for it, those of other
sessions do not.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator

from perstack_storage.protocol import ErrorCode
from perstack_stored.config.settings import Settings
from perstack_stored.errors import Refusal
from perstack_stored.model.shares import Client
from perstack_stored.protocol.messages import RoutingId

from .commit_queue import memory_of
from .requests import StoreRequest
from .value_checker import ValueChecker

LARGE_VALUE_BYTES = 256 << 10
"""Bytes from which a value is large. Below it, a check takes milliseconds at worst."""


class _Waiting:
    """A store that waits for its check, for an earlier store, or for its commit.

    Attributes:
        after: count of the stores in the commit queue that came before it, and leave before it.
    """

    __slots__ = ("after", "checked", "owner", "released", "request", "since")

    def __init__(self, request: StoreRequest, owner: Client, after: int, *, checked: bool) -> None:
        self.request = request
        self.owner = owner
        self.after = after
        self.checked = checked
        self.released = False
        self.since = time.monotonic()


class LargeValueQueue:
    """Checks large values one at a time. Used by the serving loop.

    Attributes:
        bytes: memory of the stores in the queue.
    """

    def __init__(self, wake: Callable[[], None], owner_of: Callable[[RoutingId], Client]) -> None:
        """Prepare it; thread and process start when they are needed.

        Args:
            wake: wakes the loop; called from a thread.
            owner_of: returns the client of a connection.
        """
        self._checker = ValueChecker(wake)
        self._owner_of = owner_of
        # By session, or for a store without session by itself: stores in order, the first of which is large.
        self._lines: dict[object, deque[_Waiting]] = {}
        self._turns: OrderedDict[Client, deque[_Waiting]] = OrderedDict()
        self._under_way: _Waiting | None = None
        self._ready: deque[_Waiting] = deque()
        self._owners: dict[Client, int] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def __bool__(self) -> bool:
        return bool(self._lines)

    def __iter__(self) -> Iterator[StoreRequest]:
        for line in self._lines.values():
            yield from [waiting.request for waiting in line]

    def has(self, request: StoreRequest) -> bool:
        """Whether a store must go through this queue."""
        return request.size > LARGE_VALUE_BYTES or request.key in self._lines

    def admit(self, request: StoreRequest, bounds: Settings, after: int) -> None:
        """Append a store, and have it checked if it is large.

        Args:
            request: the store.
            bounds: bounds of the memory.
            after: count of the stores in the commit queue that came before it.

        Raises:
            Refusal: BUSY.
        """
        owner, size = self._owner_of(request.envelope[0]), memory_of(request)
        own_bytes = self._owners.get(owner, 0)
        # Each client may have half of the room. A single value always has room.
        most = bounds.parts_bytes_max
        if self.bytes and (self.bytes + size > most or (own_bytes and own_bytes + size > most // 2)):
            raise Refusal(ErrorCode.BUSY, "too many large values are being checked at once")
        self._owners[owner] = own_bytes + size
        self.bytes += size
        waiting = _Waiting(request, owner, after, checked=request.size <= LARGE_VALUE_BYTES)
        line = self._lines.setdefault(request.key or waiting, deque())
        line.append(waiting)
        if waiting.checked:
            self._release(line)
        else:
            self._turns.setdefault(owner, deque()).append(waiting)
            self._next()

    def collect_check(self) -> None:
        """Collect a finished check, and start the next one."""
        done = self._under_way
        checked = None if done is None else self._checker.finished()
        if done is None or checked is None:
            return
        self._under_way = None
        done.request = done.request._replace(refusals=checked.refusals, owners=checked.owners)
        done.checked = True
        self._release(self._lines[done.request.key or done])
        self._next()

    def next_batch(self, bounds: Settings, taken: int) -> list[tuple[float, StoreRequest]]:
        """Remove and return stores that are ready to commit, at most one batch, each with its arrival time.

        Args:
            bounds: bounds of a batch.
            taken: count of the stores that have left the commit queue.
        """
        batch: list[tuple[float, StoreRequest]] = []
        records = size = 0
        while self._ready and self._ready[0].after <= taken:
            request = self._ready[0].request
            records += len(request.items)
            size += request.size
            if batch and (records > bounds.commit_records_max or size > bounds.commit_bytes_max):
                break
            batch.append((self._ready[0].since, request))
            self._let_go(self._ready.popleft())
        return batch

    def stop(self) -> None:
        """End the thread and the process."""
        self._checker.stop()

    def _next(self) -> None:
        if self._under_way is not None or not self._turns:
            return
        owner, line = self._turns.popitem(last=False)
        self._under_way = line.popleft()
        if line:
            self._turns[owner] = line  # after the others
        self._checker.start(self._under_way.request.items)

    def _release(self, line: deque[_Waiting]) -> None:
        for waiting in line:
            if not waiting.checked:
                return
            if not waiting.released:
                waiting.released = True
                self._ready.append(waiting)

    def _let_go(self, waiting: _Waiting) -> None:
        size = memory_of(waiting.request)
        self.bytes -= size
        self._owners[waiting.owner] -= size
        if not self._owners[waiting.owner]:
            del self._owners[waiting.owner]
        key = waiting.request.key or waiting
        line = self._lines[key]
        line.popleft()
        if not line:
            del self._lines[key]
