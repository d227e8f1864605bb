"""Streams of the jobs that change, for a list of them: at a bounded cost, however much is stored.

One read follows the store for all of these streams, a bounded number of records a second. Where more are
stored, it passes over them, and the streams say that any job may have changed.
"""

import asyncio
from collections import deque

from perstack_storage._core.jsonio import dumps
from perstack_storage._inspect import limits, slim
from perstack_storage._inspect.following import Filter, Following


class KeptChanges:
    """Which jobs the newest records belong to: all that are after `floor`, up to `head`."""

    def __init__(self, floor: int) -> None:
        self.floor = self.head = floor
        self._reads: deque[tuple[int, frozenset[str]]] = deque()
        self._count = 0

    def add(self, jobs: frozenset[str], head: int) -> None:
        """Take the jobs of the records up to `head`, and forget the oldest beyond the bound."""
        self._reads.append((head, jobs))
        self._count += 1 + len(jobs)
        self.head = head
        while self._count > limits.KEPT_RECORDS_MAX:
            self.floor, gone = self._reads.popleft()
            self._count -= 1 + len(gone)

    def skip(self, head: int) -> None:
        """Pass over the records up to `head`: any job may have changed."""
        self._reads.clear()
        self._count = 0
        self.floor = self.head = head

    def since(self, position: int) -> frozenset[str] | None:
        """The jobs that changed after a position; None where that is not known, or too many."""
        if position < self.floor:
            return None
        found: set[str] = set()
        for head, jobs in reversed(self._reads):
            if head <= position:
                break
            found |= jobs
        return frozenset(found) if len(found) <= limits.CHANGED_JOBS_MAX else None


class Changes(Following[KeptChanges]):
    """Follows which jobs change while there are streams that tell it."""

    def _begin(self, end: int, after: int | None) -> KeptChanges:
        near = after is not None and end - limits.CHANGES_BEHIND_MAX <= after <= end
        return KeptChanges(after if after is not None and near else end)

    async def _take(self, kept: KeptChanges, store: str) -> None:
        page = await self._read_on(kept.head, store, limit=limits.CHANGES_RECORDS)
        if page.next == kept.head:
            return
        newest = page.position or 0
        behind = newest - page.next > limits.CHANGES_BEHIND_MAX
        if behind:
            kept.skip(newest)
        else:
            kept.add(frozenset(map(slim.job_of, page)), page.next)
        self._wake()
        await asyncio.sleep(limits.CHANGES_SKIP_S if behind else limits.MERGE_S)

    async def _next(self, kept: KeptChanges, position: int, _: Filter) -> tuple[bytes, int]:
        if position >= kept.head:
            return b"", position
        jobs = kept.since(position)
        data = dumps({"jobs": None if jobs is None else sorted(jobs)})
        return b"id: %d\nevent: jobs\ndata: %b\n\n" % (kept.head, data), kept.head
