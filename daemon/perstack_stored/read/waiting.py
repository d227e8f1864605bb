"""Reads that wait until journal or index have reached their position. Used by one thread."""

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from perstack_stored.model.portions import ByteShares
from perstack_stored.protocol.messages import Envelope

from .requests import ReadRequest

AHEAD_MAX = 4096


class Reads(Protocol):
    """Runs reads."""

    def submit(self, request: ReadRequest) -> None:
        """Run a read that was admitted."""

    def dismiss(self, client: str) -> None:
        """Release a read that was admitted; it is not run."""


class ReadAhead(NamedTuple):
    """A read whose client has seen a position elsewhere that is not here yet.

    Attributes:
        position: what it waits for.
        client: by which shares are counted: `Peers.client`.
        deadline: a monotonic time.
        start: starts it.
    """

    position: int
    envelope: Envelope
    id: int
    op: str
    client: str
    deadline: float
    start: Callable[[], None]


class ReadsAwaitingJournal:
    """Reads that wait until this daemon has applied what their clients have seen at another one."""

    def __init__(self) -> None:
        # A heap by position: each round of the loop asks, and must not look at all that wait.
        self._waiting: list[tuple[int, int, ReadAhead]] = []
        self._numbers = itertools.count()
        self._soonest = math.inf  # no deadline is before this time
        self._shares = ByteShares()

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[ReadAhead]:
        return (read for _, _, read in self._waiting)

    def add(self, read: ReadAhead) -> None:
        """Let a read wait.

        Raises:
            Refusal: BUSY.
        """
        self._shares.take_place(
            read.client, AHEAD_MAX, "too many reads wait for what this daemon has not applied yet"
        )
        heapq.heappush(self._waiting, (read.position, next(self._numbers), read))
        self._soonest = min(self._soonest, read.deadline)

    def release(self, position: int) -> None:
        """Start the reads whose position is here."""
        waiting = self._waiting
        while waiting and waiting[0][0] <= position:
            read = heapq.heappop(waiting)[2]
            self._shares.add(read.client, -1)
            read.start()

    def take_expired(self, now: float) -> list[ReadAhead]:
        """Take out the reads whose deadline has passed; the caller answers them."""
        if now <= self._soonest:
            return []
        expired = [read for read in self if read.deadline < now]
        self._waiting = [one for one in self._waiting if one[2].deadline >= now]
        heapq.heapify(self._waiting)
        self._soonest = min((read.deadline for read in self), default=math.inf)
        for read in expired:
            self._shares.add(read.client, -1)
        return expired


class ReadsAwaitingIndex:
    """Reads in the order in which they came, each with the position that the index must reach first.

    Attributes:
        ahead: reads that wait for the journal before.
    """

    def __init__(self, reads: Reads) -> None:
        self.ahead = ReadsAwaitingJournal()
        self._reads = reads
        self._waiting: deque[ReadRequest] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[ReadRequest]:
        return iter(self._waiting)

    def add(self, request: ReadRequest) -> None:
        """Let a read wait."""
        self._waiting.append(request)

    def release(self, is_indexed: Callable[[int], bool]) -> None:
        """Run the reads whose position is indexed."""
        waiting = self._waiting
        while waiting and is_indexed(waiting[0].position):
            self._reads.submit(waiting.popleft())

    def take_expired(self, now: float) -> list[ReadRequest]:
        """Take out the reads whose deadline has passed; the caller answers them.

        Args:
            now: a monotonic time.
        """
        expired = [r for r in self._waiting if r.deadline is not None and r.deadline < now]
        if expired:
            self._waiting = deque([r for r in self._waiting if r.deadline is None or r.deadline >= now])
            for request in expired:
                self._reads.dismiss(request.client)
        return expired
