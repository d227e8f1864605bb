"""The reads of a connection until they have their answer: those sent, and those that wait for their turn."""

import asyncio
import math
from collections import deque
from collections.abc import Collection, Iterable

from perstack_storage._core.errors import StorageError
from perstack_storage._core.protocol import ClientProtocol
from perstack_storage._core.reads import Read

READS_IN_FLIGHT_MAX = 32
"""More reads wait here for their turn; those that wait for new records don't count."""


class WaitingReads:
    """Reads, and the futures that wait for them. Times as in `ListeningClock`.

    Attributes:
        due: no read fails before this time.
    """

    def __init__(self, protocol: ClientProtocol, timeout_s: float) -> None:
        self._protocol = protocol
        self._timeout_s = timeout_s
        self._waiters: dict[Read, asyncio.Future[None]] = {}
        self._held: deque[Read] = deque()
        self._answered_at = -math.inf  # when a read that does not wait for new records had its answer last
        self.due = math.inf

    def add(self, read: Read, loop: asyncio.AbstractEventLoop) -> "asyncio.Future[None]":
        """Takes a read; one that waits for new records may be sent at once, others have their turn."""
        answered = self._waiters[read] = loop.create_future()
        self.due = min(self.due, read.deadline)
        if read.wait_s:
            self._protocol.reads.append(read)
        elif read.sees_stores:
            read.after = self._protocol.called
            self._held.append(read)
        else:
            self._held.appendleft(read)
        return answered

    def all(self) -> Collection[Read]:
        """All of them."""
        return self._waiters.keys()

    def futures(self) -> "Iterable[asyncio.Future[None]]":
        """What waits for them."""
        return self._waiters.values()

    def start(self) -> None:
        """Begins those whose turn it is."""
        held, reads = self._held, self._protocol.reads
        if not held:
            return
        stores = self._protocol.stores
        settled, room = stores.settled, READS_IN_FLIGHT_MAX - sum(not read.wait_s for read in reads)
        while held and room > 0 and held[0].after <= settled:
            read = held.popleft()
            read.deadline = self._held_until(read)
            reads.append(read)
            room -= 1

    def finish(self, now: float) -> bool:
        """Ends those that have their answer; returns whether others can begin now."""
        finished = [read for read in self._protocol.reads if read.done]
        for read in finished:
            if not read.wait_s:
                self._answered_at = now
            self._protocol.reads.remove(read)
            self.end(read, None)
        return bool(finished and self._held)

    def overdue(self, now: float) -> list[Read]:
        """Returns those whose time is over."""
        if now < self.due:
            return []
        found, self.due = [], math.inf
        held = set(self._held)
        for read in self._waiters:
            deadline = self._held_until(read) if read in held else read.deadline
            if deadline > now:
                self.due = min(self.due, deadline)
            else:
                found.append(read)
        return found

    def _held_until(self, read: Read) -> float:
        """When a read that is not sent yet fails: its time does not run while others are answered."""
        progress_at = max(self._answered_at, self._protocol.stores.progress_at if read.after else -math.inf)
        return max(read.deadline, progress_at + self._timeout_s)

    def end(self, read: Read, error: StorageError | None) -> None:
        """Ends one, with its answer or an error."""
        answered = self._waiters[read]
        if answered.done():
            return
        if error is None:
            answered.set_result(None)
        else:
            answered.set_exception(error)

    def forget(self, read: Read) -> None:
        """Nobody waits for it any more."""
        del self._waiters[read]
        if read in self._protocol.reads:
            self._protocol.reads.remove(read)
        elif read in self._held:
            self._held.remove(read)
