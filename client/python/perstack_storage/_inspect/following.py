"""One read that follows the store for all streams of a kind, and what each stream writes of it."""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import Generic, NamedTuple, Protocol, TypeVar

from perstack_storage._core.answers import Page, records_of
from perstack_storage._core.errors import PositionGone, StorageError
from perstack_storage._core.jsonio import dumps, loads
from perstack_storage._core.shapes import Record
from perstack_storage._inspect import limits, slim
from perstack_storage._inspect.errors import GatewayError, of_storage
from perstack_storage._inspect.parameters import POSITION_MAX
from perstack_storage._inspect.source import Source


class Filter(NamedTuple):
    """What a stream gets: all records, those of a job or a run, events of some types.

    Attributes:
        heads: records without their values.
        merged: several records to a message, and a bounded number of messages a second.
    """

    job: str | None = None
    run: str | None = None
    types: frozenset[str] | None = None
    heads: bool = False
    merged: bool = False


class Kept(Protocol):
    """What was read and is kept for the streams, up to the position `head`."""

    head: int


K = TypeVar("K", bound=Kept)


class Following(ABC, Generic[K]):
    """Follows the store while there are streams."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._kept: K | None = None
        self._follower: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._trouble: GatewayError | None = None
        self._omit: tuple[str, ...] = slim.TIMELINE_OMIT
        self.streams = 0

    def close(self) -> None:
        """End the following and all streams."""
        if self._follower is not None:
            self._follower.cancel()
        self._kept = None
        self._trouble = GatewayError("STOPPING", "the inspector stops")
        self._wake()

    async def stream(self, after: int | None, wanted: Filter) -> AsyncIterator[bytes]:
        """Server-sent events of what is after a position, without end; from now on where it is None."""
        self.streams += 1
        try:
            if self._follower is None or self._follower.done():
                self._trouble, self._kept = None, None
                self._follower = asyncio.create_task(self._follow(after))
            yield b"retry: 500\n\n"
            async for message in self._messages(after, wanted):
                yield message
        finally:
            self.streams -= 1
            if not self.streams and self._follower is not None:
                self._follower.cancel()
                self._follower = self._kept = None

    @abstractmethod
    def _begin(self, end: int, after: int | None, /) -> K:
        """What is kept at first, where the store ends at a position, and the first stream begins at one."""

    @abstractmethod
    async def _take(self, kept: K, store: str) -> None:
        """Read on once, and keep what is new."""

    @abstractmethod
    async def _next(self, kept: K, position: int, wanted: Filter, /) -> tuple[bytes, int]:
        """What is written next after a position, and the position to go on from."""

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
                    await asyncio.sleep(limits.MERGE_S if wanted.merged else 0)
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

    async def _follow(self, after: int | None) -> None:
        store: str | None = None
        while True:
            try:
                if store is None or self._kept is None:
                    hello = await self._source.read("hello", {})
                    store = loads(hello.body)["store"]
                    self._kept = self._kept or self._begin(hello.position or 0, after)
                    self._wake()
                await self._take(self._kept, store)
            except PositionGone as error:
                self._kept = None
                self._report(of_storage(error))
                return
            except StorageError as error:
                self._report(of_storage(error))
                await asyncio.sleep(limits.DAEMON_RETRY_S)

    async def _read_on(
        self, position: int, store: str, *, limit: int | None = None, job: str | None = None
    ) -> Page[Record]:
        """The records after a position, as soon as there are some; none where none come for a while."""
        seen = self._source.client._seen
        arguments = {
            "after": position,
            "limit": limit,
            "jobId": job,
            "omit": self._omit,
            "waitMs": limits.WAIT_MS,
            "store": store,
            "epoch": seen.at(position),
        }
        read = await self._source.read("readAll", arguments, limits.WAIT_MS / 1000, limits.RECORDS_BYTES_MAX)
        page = records_of(read, position, seen)
        if page:
            self._omit = slim.omitted_after(page)
        self._report(None)
        return page


def _at(position: int) -> bytes:
    return b"id: %d\nevent: at\ndata: %d\n\n" % (position, position)


def _trouble(error: GatewayError) -> bytes:
    return b"event: trouble\ndata: %b\n\n" % dumps(error.as_json())
