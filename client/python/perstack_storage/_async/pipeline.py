"""Stores of an asyncio client that don't wait for each other."""

from collections.abc import Coroutine, Mapping
from types import TracebackType
from typing import Any

from perstack_storage._async.connection import AsyncConnection
from perstack_storage._core.errors import StorageError
from perstack_storage._core.jsonio import dumps
from perstack_storage._core.outcomes import PipelineOutcomes


class AsyncPipeline(PipelineOutcomes):
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
        if max_in_flight is not None and max_in_flight < 1:
            raise ValueError("max_in_flight must be at least 1")
        super().__init__()
        self._connection = connection
        self._records_max = max_in_flight
        self._queued = 0

    def store_job(self, job: Mapping[str, Any]) -> Coroutine[Any, Any, None]:
        """Queues a job; see `AsyncClient.store_job`."""
        return self._store("storeJob", dumps(job))

    def store_checkpoint(self, checkpoint: Mapping[str, Any]) -> Coroutine[Any, Any, None]:
        """Queues a checkpoint; see `AsyncClient.store_checkpoint`."""
        return self._store("storeCheckpoint", dumps(checkpoint))

    def store_event(self, event: Mapping[str, Any]) -> Coroutine[Any, Any, None]:
        """Queues an event; see `AsyncClient.store_event`."""
        return self._store("storeEvent", dumps(event))

    def store_run_setting(self, setting: Mapping[str, Any]) -> Coroutine[Any, Any, None]:
        """Queues a run setting; see `AsyncClient.store_run_setting`."""
        return self._store("storeRunSetting", dumps(setting))

    async def flush(self) -> None:
        """Waits until everything queued so far is on disk or refused; raises as `Pipeline.flush`."""
        self._connection.check_open()
        queued = self._queued
        await self._connection.wait_while(lambda: len(self.positions) < queued)
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
        unanswered = self._queued - len(self.positions)
        records_max = self._records_max or self._connection.window_records
        return unanswered >= records_max or self._connection.crowded

    async def __aenter__(self) -> "AsyncPipeline":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.flush()
        except StorageError as problem:
            if error is None:
                raise
            error.add_note(f"and the pipeline, while it stored what was queued: {problem}")
