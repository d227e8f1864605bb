"""The asyncio client: its life, and how it stores. What it reads is in `reads.py`."""

import asyncio
import os
from collections.abc import Coroutine
from types import TracebackType
from typing import Any

from perstack_storage._async.atomic import AsyncAtomicBatch
from perstack_storage._async.connection import AsyncConnection
from perstack_storage._async.pipeline import AsyncPipeline
from perstack_storage._async.reads import Reads
from perstack_storage._core.calls import NowaitStores, Stores
from perstack_storage._core.deletions import Deletions
from perstack_storage._core.errors import ClosedError, NotFlushed, noting
from perstack_storage._wire.client import ClientBase


class AsyncClient(
    ClientBase,
    Reads,
    Stores[Coroutine[Any, Any, int]],
    Deletions[Coroutine[Any, Any, int]],
    NowaitStores["asyncio.Future[int]"],
):
    """`Client` for asyncio: the same calls, to be awaited; values, answers and errors are the same.

    All tasks of an event loop share one connection and one order of stores: that of the calls, whether they
    are awaited or not. A store takes the value, and its place in the order, at the call; what is awaited is
    its outcome. So a task that is cancelled takes no store back that it called: it is stored, or fails, as if
    nobody waited for it. A read sees all that was called for before it; one that is cancelled leaves nothing
    behind.

    It belongs to the event loop in which it was first used, until that is closed, and to one thread.
    """

    def _prepare(self) -> None:
        self._current: AsyncConnection | None = None
        self._parents: list[AsyncConnection] = []
        self._closed = False

    async def ready(self) -> None:
        """Waits until at most half of `max_outstanding` is used up, so that as many again have room."""
        connection = self._connection()
        await connection.wait_while(lambda: connection.outstanding.crowded)

    async def flush(self, timeout_s: float | None = None) -> None:
        """Waits until every store called for so far, but those of pipelines, is on disk or has failed.

        Args:
            timeout_s: how long to wait; by default until the client's own `timeout_s` has given them up.

        Raises:
            NotFlushed: `timeout_s` was too short; nothing is given up.
            StorageError: the first failure of a store that nobody waited for since the last flush, if the
                client has no `on_error`.
        """
        connection = self._connection()
        outstanding = connection.outstanding
        added = outstanding.added
        if not await connection.wait_while(lambda: outstanding.finished < added, timeout_s):
            raise NotFlushed(timeout_s or 0, outstanding.count)
        await asyncio.sleep(0)  # the last failures may be reported right after this task
        self._nowait.failures.raise_first()

    def pipeline(self, max_in_flight: int | None = None) -> AsyncPipeline:
        """Returns an asynchronous context manager whose stores don't wait for each other.

        Args:
            max_in_flight: number of its stores that may be unanswered; by default what the daemon grants.
        """
        return AsyncPipeline(self._connection(), max_in_flight)

    def atomic(self) -> AsyncAtomicBatch:
        """Returns an asynchronous context manager whose stores are stored when it is left: all or none."""
        return AsyncAtomicBatch(self._store)

    async def close(self) -> None:
        """Closes the connection, without a flush. Calls under way, and later ones, end with ClosedError."""
        self._closed = True
        connection, self._current = self._current, None
        if connection is None or connection.pid != os.getpid():
            return
        if connection.loop.is_closed():
            connection.discard()
        else:
            connection.close()

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with noting(error, "the client, while it stored what was outstanding"):
                if self._current is not None:
                    await self.flush()
        finally:
            await self.close()

    def _connection(self) -> AsyncConnection:
        connection = self._current
        loop = asyncio.get_running_loop()
        if connection is None or connection.loop is not loop or connection.pid != os.getpid():
            connection = self._current = self._connect(connection, loop)
        return connection

    def _connect(self, old: AsyncConnection | None, loop: asyncio.AbstractEventLoop) -> AsyncConnection:
        if self._closed:
            raise ClosedError("the client is closed")
        if old is not None and old.pid != os.getpid():
            self._parents.append(old)  # not even its destructors may touch its socket here
            self._nowait = self._nowait.renewed()
        elif old is not None:
            if not old.loop.is_closed():
                raise ClosedError("the client belongs to another event loop, which is not closed")
            old.discard()
        return AsyncConnection(self._target, self._nowait, loop)

    def _store(self, op: str, body: bytes) -> Coroutine[Any, Any, int]:
        return self._connection().store(op, body)

    def _store_nowait(self, op: str, body: bytes) -> "asyncio.Future[int]":
        return self._connection().store_nowait(op, body)
