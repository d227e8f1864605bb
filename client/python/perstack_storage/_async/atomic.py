"""Values that are stored all or none, by the asyncio client."""

from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any

from perstack_storage._core.conditions import BATCH_OP, Collected, Fence


class AsyncAtomicBatch(Collected):
    """Made by `AsyncClient.atomic`; used within `async with`.

        async with client.atomic() as batch:
            batch.store_event(event)
            batch.store_checkpoint(checkpoint)

    Its methods are not awaited: each takes the value as it is at the call. Leaving the block stores all of
    them, or none: where one is refused, `Refused` has its `index`. A block that ends by an exception stores
    nothing.
    """

    def __init__(
        self, store: Callable[[str, bytes], Coroutine[Any, Any, int]], fence: Fence | None = None
    ) -> None:
        super().__init__(fence)
        self._store_all = store

    async def __aenter__(self) -> "AsyncAtomicBatch":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        body = self._end(error)
        if body is not None:
            self._stored(await self._store_all(BATCH_OP, body))
