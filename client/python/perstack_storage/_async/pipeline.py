"""Stores of an asyncio client that don't wait for each other."""

from collections.abc import Coroutine
from types import TracebackType
from typing import Any

from perstack_storage._async.connection import AsyncConnection
from perstack_storage._core.calls import Stores
from perstack_storage._core.errors import noting
from perstack_storage._core.outcomes import PipelineOutcomes


class AsyncPipeline(PipelineOutcomes, Stores[Coroutine[Any, Any, None]]):
    """Made by `AsyncClient.pipeline`; used within `async with`, by one task or several.

        async with client.pipeline() as pipeline:
            for event in events:
                await pipeline.store_event(event)

    Each method queues the value at the call, and is awaited so that no more than `max_in_flight` are
    unanswered: mostly that ends at once. What is queued is sent without further calls; `flush`, and leaving,
    promise that it is on disk. Leaving the block through an exception still stores what was queued; should
    that fail too, the exception gets a note. Cancelling takes nothing back that was queued.
    """

    def __init__(self, connection: AsyncConnection, max_in_flight: int | None) -> None:
        super().__init__(max_in_flight)
        self._connection = connection
        self._records_max = max_in_flight
        self._queued = 0

    async def flush(self) -> None:
        """Waits until everything queued so far is on disk or refused; raises as `Pipeline.flush`."""
        self._connection.check_open()
        queued = self._queued
        await self._connection.wait_while(lambda: self._answered < queued)
        self._raise_first()

    def _store(self, op: str, body: bytes) -> Coroutine[Any, Any, None]:
        self._connection.submit(op, body, self)
        self._queued += 1
        return self._wait_for_room()

    async def _wait_for_room(self) -> None:
        if self._full():
            await self._connection.wait_while(self._full)
        self._raise_unheard()  # also where it was given up before the window was full

    def _full(self) -> bool:
        unanswered = self._queued - self._answered
        records_max = self._records_max or self._connection.window_records
        return unanswered >= records_max or self._connection.crowded

    async def __aenter__(self) -> "AsyncPipeline":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with noting(error, "the pipeline, while it stored what was queued"):
            await self.flush()
