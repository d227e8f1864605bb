"""The stores of an event loop that have a future: what is awaited, and the errors that no task raises."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from perstack_storage._core.errors import StorageError
from perstack_storage._core.outcomes import GivenUp
from perstack_storage._core.outstanding import NowaitSettings, Outcomes, Outstanding


class TaskOutstanding(Outstanding):
    """The futures of the stores of an event loop."""

    def __init__(self, settings: NowaitSettings, given_up: GivenUp, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(settings, given_up)
        self._loop = loop
        self._calls: dict[asyncio.Future[int], Coroutine[Any, Any, int]] = {}

    def outcome(self, future: "asyncio.Future[int]") -> Coroutine[Any, Any, int]:
        """Returns what a caller awaits."""
        call = self._calls[future] = self._outcome(future)
        return call

    async def _outcome(self, future: "asyncio.Future[int]") -> int:
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():  # the outcome came in the same turn of the loop
                error = future.exception()
                if isinstance(error, StorageError):
                    self._report_soon(error)
            raise

    def _deliver(self, outcomes: Outcomes) -> None:
        for future, outcome in outcomes:
            self._resolve(future, outcome)

    def _resolve(self, future: "asyncio.Future[int]", outcome: int | StorageError) -> None:
        renounced = future.done()
        call = self._calls.pop(future, None)
        if not isinstance(outcome, StorageError):
            if not renounced:
                future.set_result(outcome)
            return
        if not renounced:
            future.set_exception(outcome)
        # A task that is cancelled before it begins ends its call without waiting for the future.
        waited_for = call is not None and call.cr_frame is not None  # type: ignore[attr-defined]
        if renounced or not waited_for:
            self._report_soon(outcome)
        if not renounced and not waited_for:
            future.exception()  # reported already: asyncio need not complain that nobody asked

    def _report_soon(self, error: StorageError) -> None:
        # Not from here: it may call the client, which is in the middle of a call.
        self._loop.call_soon(self.report, error)
