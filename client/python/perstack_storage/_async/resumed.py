"""A job that a program goes on with, by the asyncio client."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from perstack_storage._async.atomic import AsyncAtomicBatch
from perstack_storage._async.connection import AsyncConnection
from perstack_storage._async.pipeline import AsyncPipeline
from perstack_storage._core.calls import NowaitStores, Stores
from perstack_storage._core.reads import Read
from perstack_storage._core.resumed import Resumed


class AsyncResumedJob(Resumed, Stores[Coroutine[Any, Any, int]], NowaitStores["asyncio.Future[int]"]):
    """Made by `AsyncClient.resume`; its stores raise JobTakenOver once another session has stored for it.

        job = await client.resume("job-1")
        await job.store_event(event)

    It belongs to the client's event loop. All stores of the client count as its own.
    """

    def __init__(self, connection: AsyncConnection, read: Read, job_id: str, run_id: str | None) -> None:
        super().__init__(read, job_id, run_id)
        self._connection = connection

    def pipeline(self, max_in_flight: int | None = None) -> AsyncPipeline:
        """Returns an asynchronous context manager whose stores don't wait for each other."""
        return _FencedPipeline(self._connection, max_in_flight, self)

    def atomic(self) -> AsyncAtomicBatch:
        """Returns an asynchronous context manager whose stores are stored when it is left: all or none."""
        return AsyncAtomicBatch(self._connection.store, self._fence)

    def _store(self, op: str, body: bytes) -> Coroutine[Any, Any, int]:
        return self._connection.store(op, self._fenced(body))

    def _store_nowait(self, op: str, body: bytes) -> "asyncio.Future[int]":
        return self._connection.store_nowait(op, self._fenced(body))


class _FencedPipeline(AsyncPipeline):
    """A pipeline of a resumed job."""

    def __init__(self, connection: AsyncConnection, max_in_flight: int | None, job: Resumed) -> None:
        super().__init__(connection, max_in_flight)
        self._job = job

    def _store(self, op: str, body: bytes) -> Coroutine[Any, Any, None]:
        return super()._store(op, self._job._fenced(body))
