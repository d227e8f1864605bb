"""The asyncio client with the methods of the synchronous one, so that one suite runs on both."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any

from perstack_storage import AsyncAtomicBatch, AsyncClient, AsyncPipeline, AsyncResumedJob


class Blocking:
    """Calls of an asynchronous object; each runs the event loop until it is done."""

    def __init__(self, runner: asyncio.Runner, target: Any) -> None:
        self._runner = runner
        self._wrapped = target

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._wrapped, name)
        if not callable(attribute):
            return attribute
        return lambda *args, **kwargs: self._runner.run(self._call(attribute, *args, **kwargs))

    async def _call(self, method: Any, *args: Any, **kwargs: Any) -> Any:
        result = method(*args, **kwargs)
        if isinstance(result, asyncio.Future):
            return BlockingFuture(self._runner, result)
        if isinstance(result, (AsyncAtomicBatch, AsyncPipeline)):
            return BlockingContext(self._runner, result)
        if isinstance(result, AsyncIterator):
            return self._iterate(result)
        found = await result if inspect.isawaitable(result) else result
        return Blocking(self._runner, found) if isinstance(found, AsyncResumedJob) else found

    def _iterate(self, iterator: AsyncIterator[Any]) -> Iterator[Any]:
        async def following() -> Any:
            return await anext(iterator, None)

        while (item := self._runner.run(following())) is not None:
            yield item


class BlockingContext(Blocking):
    """An asynchronous context manager in a `with` block."""

    def __enter__(self) -> Any:
        self._runner.run(self._wrapped.__aenter__())
        return self

    def __exit__(self, *raised: Any) -> None:
        self._runner.run(self._wrapped.__aexit__(*raised))


class BlockingClient(BlockingContext):
    """`AsyncClient` with an event loop of its own, which runs during the calls only."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(asyncio.Runner(), AsyncClient(*args, **kwargs))
        self._left = False

    def __exit__(self, *raised: Any) -> None:
        if not self._left:
            self._left = True
            with self._runner:
                super().__exit__(*raised)


class BlockingFuture:
    """A future, and the loop that has to run for it."""

    def __init__(self, runner: asyncio.Runner, future: "asyncio.Future[int]") -> None:
        self._runner = runner
        self._future = future
        self.done = future.done

    def result(self, timeout: float | None = None) -> int:
        async def wait() -> int:
            async with asyncio.timeout(timeout):
                return await asyncio.shield(self._future)

        return self._runner.run(wait())

    def exception(self, timeout: float | None = None) -> BaseException | None:
        async def wait() -> BaseException | None:
            await asyncio.wait([self._future], timeout=timeout)
            return self._future.exception()

        return self._runner.run(wait())
