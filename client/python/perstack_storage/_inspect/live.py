"""Streams of records. What follows the store keeps the newest; a stream that lags reads older ones itself."""

import asyncio
from bisect import bisect_right
from typing import Any, NamedTuple

from perstack_storage._core.errors import StorageError
from perstack_storage._core.jsonio import dumps, loads
from perstack_storage._inspect import limits, slim
from perstack_storage._inspect.errors import of_storage
from perstack_storage._inspect.following import Filter, Following
from perstack_storage._inspect.source import Source, Wanted

_WRITE_RECORDS, _WRITE_BYTES = 200, 128 << 10
"""Of one write to a stream, which holds it until its reader has taken it; one record may be larger."""
_MERGED_RECORDS, _MERGED_BYTES = 5000, 1 << 20
"""The same of a message with several records."""


class Item(NamedTuple):
    """A record that is kept for streams: its slim form as `data`, and a `head` without its value."""

    position: int
    job: str
    run: str | None
    type: str | None
    data: bytes
    head: bytes

    def is_wanted(self, wanted: Filter) -> bool:
        """Whether a stream gets this record."""
        if wanted.job is not None and self.job != wanted.job:
            return False
        if wanted.run is not None and self.run != wanted.run:
            return False
        return wanted.types is None or self.type in wanted.types

    def message(self, *, heads: bool) -> bytes:
        """The record as a server-sent event."""
        return b"id: %d\nevent: record\ndata: %b\n\n" % (self.position, self.head if heads else self.data)


def item_of(record: Any) -> Item:
    """A record of `readAll` as it is kept."""
    return _item(record, slim.record(record))


def _of_slim(data: bytes) -> Item:
    return _item(loads(data), data)


def _item(record: Any, data: bytes) -> Item:
    op, value, position = record["op"], record["value"], record["position"]
    job = slim.job_of(record)
    run = value.get("runId")
    event_type = value["type"] if op == "storeEvent" else None
    head = {"position": position, "time": record["time"], "op": op, "jobId": job, "runId": run}
    return Item(position, job, run, event_type, data, dumps({**head, "type": event_type}))


class KeptRecords:
    """The newest records, up to a count and a number of bytes: all that are after `floor`."""

    def __init__(self, floor: int, share: int = 1) -> None:
        """`share`: a part of the bounds, as 8 for an eighth."""
        self.floor = self.head = floor
        self._items: list[Item] = []
        self._bytes = 0
        self._records_max = limits.KEPT_RECORDS_MAX // share
        self._bytes_max = limits.KEPT_BYTES_MAX // share

    def add(self, items: list[Item], head: int) -> None:
        """Take records, and forget the oldest beyond the bounds."""
        self._items += items
        self._bytes += sum(len(item.data) + len(item.head) for item in items)
        self.head = head
        gone = 0
        while gone < len(self._items) and (
            len(self._items) - gone > self._records_max or self._bytes > self._bytes_max
        ):
            self._bytes -= len(self._items[gone].data) + len(self._items[gone].head)
            gone += 1
        if gone:
            self.floor = self._items[gone - 1].position
            del self._items[:gone]

    def after(self, position: int, limit: int) -> tuple[list[Item], int]:
        """At most `limit` records after a position, and the position to go on from."""
        first = bisect_right(self._items, position, key=lambda item: item.position)
        items = self._items[first : first + limit]
        return items, items[-1].position if first + limit < len(self._items) else max(position, self.head)


class Hub(Following[KeptRecords]):
    """Follows the records, or those of one job, while there are streams of them."""

    def __init__(self, source: Source, job: str | None = None) -> None:
        super().__init__(source)
        self._job = job
        self._catching_up = asyncio.Semaphore(limits.CATCH_UP_READS_MAX)

    def _begin(self, end: int, _: int | None) -> KeptRecords:
        return KeptRecords(end, 1 if self._job is None else limits.JOBS_FOLLOWED_MAX)

    async def _take(self, kept: KeptRecords, store: str) -> None:
        limit = None if self._job is None else limits.FOLLOWED_RECORDS
        page = await self._read_on(kept.head, store, limit=limit, job=self._job)
        if page.next == kept.head:
            return
        kept.add(list(map(item_of, page)), page.next)
        self._wake()
        if self._job is not None:
            await asyncio.sleep(limits.MERGE_S)

    async def _next(self, kept: KeptRecords, position: int, wanted: Filter) -> tuple[bytes, int]:
        most = _MERGED_RECORDS if wanted.merged else _WRITE_RECORDS
        if position >= kept.floor:
            return _written(*kept.after(position, most), wanted)
        try:
            async with self._catching_up:
                found = await self._source.records(position, most, Wanted(wanted.job, wanted.run))
                return _written(list(map(_of_slim, found.items)), found.next, wanted)
        except StorageError as error:
            self._report(of_storage(error))
            return b"", position


def _written(items: list[Item], following: int, wanted: Filter) -> tuple[bytes, int]:
    """The messages of the first of these records, up to a size, and the position to go on from."""
    most = _MERGED_BYTES if wanted.merged else _WRITE_BYTES
    taken: list[Item] = []
    size = 0
    for item in items:
        if size >= most:
            following = item.position - 1
            break
        if item.is_wanted(wanted):
            taken.append(item)
            size += len(item.head if wanted.heads else item.data)
    if not wanted.merged:
        return b"".join(item.message(heads=wanted.heads) for item in taken), following
    if not taken:
        return b"", following
    data = b",".join(item.head if wanted.heads else item.data for item in taken)
    return b"id: %d\nevent: records\ndata: [%b]\n\n" % (taken[-1].position, data), following
