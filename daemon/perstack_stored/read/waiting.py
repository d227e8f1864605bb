"""Reads that wait until the index has reached their position. Used by one thread."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from .requests import ReadRequest


class Reads(Protocol):
    """Runs reads."""

    def submit(self, request: ReadRequest) -> None:
        """Run a read that was admitted."""

    def dismiss(self, client: str) -> None:
        """Release a read that was admitted; it is not run."""


class ReadsAwaitingIndex:
    """Reads in the order in which they came, each with the position that the index must reach first."""

    def __init__(self, reads: Reads) -> None:
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
