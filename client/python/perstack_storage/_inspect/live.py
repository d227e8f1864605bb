"""Streams of records. One read follows the store for all; a stream that lags reads older records itself."""

import asyncio
import contextlib
from bisect import bisect_right
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from perstack_storage._core.answers import records_of
from perstack_storage._core.errors import PositionGone, StorageError
from perstack_storage._core.jsonio import dumps, loads
from perstack_storage._inspect import limits, slim
from perstack_storage._inspect.errors import GatewayError, of_storage
from perstack_storage._inspect.parameters import POSITION_MAX
from perstack_storage._inspect.source import Source, Wanted

_WRITE_RECORDS, _WRITE_BYTES = 200, 128 << 10
"""Of one write to a stream, which holds it until its reader has taken it; one record may be larger."""


class Filter(NamedTuple):
    """What a stream gets: all records, those of a job or a run, events of some types; `heads`: no values."""

    job: str | None = None
    run: str | None = None
    types: frozenset[str] | None = None
    heads: bool = False

    def takes(self, item: "Item") -> bool:
        """Whether the stream gets this record."""
        if self.job is not None and item.job != self.job:
            return False
        if self.run is not None and item.run != self.run:
            return False
        return self.types is None or item.type in self.types


class Item(NamedTuple):
    """A record that is kept for streams: its slim form as `data`, and a `head` without its value."""

    position: int
    job: str
    run: str | None
    type: str | None
    data: bytes
    head: bytes

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
    job = value.get("id" if op == "storeJob" else "jobId", "")
    run = value.get("runId")
    event_type = value["type"] if op == "storeEvent" else None
    head = {"position": position, "time": record["time"], "op": op, "jobId": job, "runId": run}
    return Item(position, job, run, event_type, data, dumps({**head, "type": event_type}))


class _Kept:
    """The newest records, up to a count and a number of bytes: all that are after `floor`."""

    def __init__(self, floor: int) -> None:
        self.floor = self.head = floor
        self._items: list[Item] = []
        self._bytes = 0

    def add(self, items: list[Item], head: int) -> None:
        """Take records, and forget the oldest beyond the bounds."""
        self._items += items
        self._bytes += sum(len(item.data) + len(item.head) for item in items)
        self.head = head
        gone = 0
        while gone < len(self._items) and (
            len(self._items) - gone > limits.KEPT_RECORDS_MAX or self._bytes > limits.KEPT_BYTES_MAX
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


class Hub:
    """Follows the store while there are streams."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._kept: _Kept | None = None
        self._follower: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._catching_up = asyncio.Semaphore(limits.CATCH_UP_READS_MAX)
        self._trouble: GatewayError | None = None
        self.streams = 0

    def close(self) -> None:
        """End the following and all streams."""
        if self._follower is not None:
            self._follower.cancel()
        self._kept = None
        self._trouble = GatewayError("STOPPING", "the inspector stops")
        self._wake()

    async def stream(self, after: int | None, wanted: Filter) -> AsyncIterator[bytes]:
        """Server-sent events of the records after a position, without end; from now on where it is None."""
        self.streams += 1
        try:
            if self._follower is None or self._follower.done():
                self._trouble, self._kept = None, None
                self._follower = asyncio.create_task(self._follow())
            yield b"retry: 500\n\n"
            async for message in self._messages(after, wanted):
                yield message
        finally:
            self.streams -= 1
            if not self.streams and self._follower is not None:
                self._follower.cancel()
                self._follower = self._kept = None

    async def _messages(self, after: int | None, wanted: Filter) -> AsyncIterator[bytes]:
        position, told = after, -1
        while True:
            changed, trouble, kept = self._changed, self._trouble, self._kept
            if kept is not None and position is None:
                position = kept.head  # "from now on" begins now, whatever trouble there is
            if trouble is not None:
                yield _trouble(trouble)
                told = -1  # the next position says that it is over
                if trouble.code in {"POSITION_GONE", "STOPPING"}:
                    return
            elif kept is not None and position is not None:
                if position > kept.head and position > await self._end():
                    yield _trouble(GatewayError("POSITION_GONE", "the store lacks this position", "after"))
                    return
                messages, position = await self._next(kept, position, wanted)
                if messages:
                    yield messages
                    del messages
                if position < kept.head:
                    await asyncio.sleep(0)  # others have their turn; the end of this connection is noticed
                    continue
                if told < 0:  # who listens knows now that it has all there is
                    told = position
                    yield _at(position)
            if changed.is_set() or await self._wait(changed):
                continue
            if position is not None:  # again and again: who listens sees that the connection lives
                told = position
                yield _at(position)
            else:
                yield b": still here\n\n"

    async def _next(self, kept: _Kept, position: int, wanted: Filter) -> tuple[bytes, int]:
        """What is written next after a position, and the position to go on from."""
        if position >= kept.floor:
            return _written(*kept.after(position, _WRITE_RECORDS), wanted)
        try:
            async with self._catching_up:
                found = await self._source.records(position, _WRITE_RECORDS, Wanted(wanted.job, wanted.run))
                return _written(list(map(_of_slim, found.items)), found.next, wanted)
        except StorageError as error:
            self._report(of_storage(error))
            return b"", position

    async def _end(self) -> int:
        """The newest position of the store, which what is kept may not have reached yet."""
        try:
            return (await self._source.read("hello", {})).position or 0
        except StorageError as error:
            self._report(of_storage(error))
            return POSITION_MAX

    async def _wait(self, changed: asyncio.Event) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(changed.wait(), limits.HEARTBEAT_S)
        return changed.is_set()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _report(self, trouble: GatewayError | None) -> None:
        before, self._trouble = self._trouble, trouble
        if (before and before.code) != (trouble and trouble.code):
            self._wake()

    async def _follow(self) -> None:
        store: str | None = None
        while True:
            try:
                if store is None or self._kept is None:
                    hello = await self._source.read("hello", {})
                    store = loads(hello.body)["store"]
                    self._kept = self._kept or _Kept(hello.position or 0)
                    self._wake()
                await self._take(self._kept, store)
            except PositionGone as error:
                self._kept = None
                self._report(of_storage(error))
                return
            except StorageError as error:
                self._report(of_storage(error))
                await asyncio.sleep(limits.DAEMON_RETRY_S)

    async def _take(self, kept: _Kept, store: str) -> None:
        seen = self._source.client._seen
        arguments = {
            "after": kept.head,
            "waitMs": limits.WAIT_MS,
            "store": store,
            "epoch": seen.at(kept.head),
        }
        read = await self._source.read("readAll", arguments, limits.WAIT_MS / 1000, limits.RECORDS_BYTES_MAX)
        page = records_of(read, kept.head, seen)
        self._report(None)
        if page.next == kept.head:
            return
        kept.add(list(map(item_of, page)), page.next)
        self._wake()


def _written(items: list[Item], following: int, wanted: Filter) -> tuple[bytes, int]:
    """The messages of the first of these records, up to a size, and the position to go on from."""
    messages: list[bytes] = []
    size = 0
    for item in items:
        if size >= _WRITE_BYTES:
            return b"".join(messages), item.position - 1
        if wanted.takes(item):
            messages.append(item.message(heads=wanted.heads))
            size += len(messages[-1])
    return b"".join(messages), following


def _at(position: int) -> bytes:
    return b"id: %d\nevent: at\ndata: %d\n\n" % (position, position)


def _trouble(error: GatewayError) -> bytes:
    return b"event: trouble\ndata: %b\n\n" % dumps(error.as_json())
