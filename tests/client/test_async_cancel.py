"""A task that is cancelled, wherever it is: only its own call ends, and nothing else is harmed or said."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from perstack_storage import AsyncClient, StorageError
from tests.client.fake_daemon import FakeDaemon, Store, failure, frame
from tests.helpers.values import anything

STEPS = 16
"""More turns of the event loop than any of the operations takes with a daemon that answers at once."""

Operation = Callable[[AsyncClient], Coroutine[Any, Any, Any]]


async def _pipeline(client: AsyncClient) -> None:
    async with client.pipeline(max_in_flight=2) as pipeline:
        for n in range(6):
            await pipeline.store_event(anything({"n": n}))


async def _follow(client: AsyncClient) -> None:
    async for _ in client.follow():
        pass


async def _nowait(client: AsyncClient) -> None:
    for n in range(5):
        client.store_event_nowait(anything({"n": n}))
    await client.flush()


async def _within_time(client: AsyncClient) -> None:
    async with asyncio.timeout(30):
        await asyncio.gather(client.store_event(anything({"n": 1})), client.retrieve_job("j"), client.ping())


async def _own_client(client: AsyncClient) -> None:
    async with AsyncClient(client.endpoint, timeout_s=5) as own:
        own.store_event_nowait(anything({"n": 1}))
        await own.store_event(anything({"n": 2}))


OPERATIONS: dict[str, Operation] = {
    "store": lambda client: client.store_event(anything({"n": 1})),
    "large store": lambda client: client.store_event(anything({"n": "x" * 300_000})),
    "refused store": lambda client: client.store_event(anything({"bad": 1})),
    "read": lambda client: client.get_all_jobs(),
    "large read": lambda client: client.get_event_contents("j", "r"),
    "hello": lambda client: client.hello(),
    "flush": _nowait,
    "flush with a limit": lambda client: client.flush(5),
    "ready": lambda client: client.ready(),
    "pipeline": _pipeline,
    "follow": _follow,
    "several at once": _within_time,
    "a client of its own": _own_client,
}


@asynccontextmanager
async def _no_complaints() -> AsyncIterator[None]:
    complaints: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(str(context)))
    yield
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_call_that_is_cancelled_at_any_step_harms_no_other(endpoint: str, name: str) -> None:
    """After any number of turns of the loop: the next calls work, queued stores settle, `close` returns."""
    fake = Store()
    fake.records = [("storeEvent", b'{"n":0}')] * 3

    async def main() -> None:
        errors: list[StorageError] = []
        async with _no_complaints():
            for steps in range(STEPS):
                for connected in (True, False):
                    client = AsyncClient(endpoint, timeout_s=20, on_error=errors.append)
                    if connected:
                        await client.ping()
                    queued = [client.store_event_nowait(anything({"queued": n})) for n in range(2)]
                    task = asyncio.create_task(OPERATIONS[name](client))
                    for _ in range(steps):
                        await asyncio.sleep(0)
                    task.cancel()
                    await asyncio.wait([task], timeout=120)
                    assert task.done()
                    await asyncio.gather(*queued, client.store_event(anything({"next": 1})), client.ping())
                    await client.flush()
                    connection = client._current
                    assert connection is not None
                    assert not connection._waiters
                    assert not connection._reads.all()
                    assert not connection.outstanding._calls
                    await client.close()
                    if name != "refused store":
                        del task
        assert all("refused" in str(error) for error in errors)

    with FakeDaemon(endpoint, fake) as daemon:
        daemon.answer_bytes = 16
        asyncio.run(main())


def test_a_store_that_is_cancelled_never_hides_its_failure(endpoint: str) -> None:
    """Cancelled before it began, while it waits, or when its answer came: raised, or given to `on_error`."""

    async def main() -> None:
        async with _no_complaints():
            for steps in range(STEPS):
                errors: list[StorageError] = []
                async with AsyncClient(endpoint, timeout_s=10, on_error=errors.append) as client:
                    await client.ping()
                    task = asyncio.create_task(client.store_event(anything({"bad": 1})))
                    for _ in range(steps):
                        await asyncio.sleep(0)
                    task.cancel()
                    await asyncio.wait([task])
                    await client.flush()
                    await asyncio.sleep(0)
                    raised = [] if task.cancelled() else [task.exception()]
                    assert len(errors) + len(raised) == 1, f"cancelled after {steps} turns"

    with FakeDaemon(endpoint):
        asyncio.run(main())


def test_an_answer_and_a_cancellation_in_one_turn_hide_no_failure(endpoint: str) -> None:
    """The task is cancelled between the answer and its own next step."""

    async def main() -> None:
        errors: list[StorageError] = []
        async with _no_complaints(), AsyncClient(endpoint, timeout_s=10, on_error=errors.append) as client:
            await client.ping()
            task = asyncio.create_task(client.store_event(anything({"bad": 1})))
            connection = client._current
            assert connection is not None
            (future,) = (future for _, future in connection._awaited)
            future.add_done_callback(lambda _: task.cancel())
            await asyncio.wait([task])
            await asyncio.sleep(0)
            assert task.cancelled()
        assert len(errors) == 1

    with FakeDaemon(endpoint):
        asyncio.run(main())


def test_waits_that_are_cancelled_leave_nothing_behind(endpoint: str) -> None:
    """A wait that is given up again and again while nobody answers takes no memory."""

    async def main() -> None:
        client = AsyncClient(endpoint, timeout_s=20, max_outstanding=2)
        client.store_event_nowait(anything({}))
        client.store_event_nowait(anything({}))
        for wait in (client.flush, client.ready):
            for _ in range(50):
                task = asyncio.create_task(wait())
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
        connection = client._current
        assert connection is not None
        assert not connection._waiters
        await client.close()

    asyncio.run(main())


def test_an_exception_of_on_error_harms_nothing(endpoint: str) -> None:
    """It is logged; a handler may store, and what it stores is kept."""
    fake = Store()

    async def main() -> None:
        def on_error(_: StorageError) -> None:
            client.store_event_nowait(anything({"from": "the handler"}))
            raise RuntimeError("mine")

        client = AsyncClient(endpoint, timeout_s=10, on_error=on_error)
        async with _no_complaints(), client:
            client.store_event_nowait(anything({"bad": 1}))
            await client.flush()
            await asyncio.sleep(0)
            assert await client.store_event(anything({"n": 1})) == 2

    with FakeDaemon(endpoint, fake):
        asyncio.run(main())
    assert [body for _, body in fake.records] == [b'{"from":"the handler"}', b'{"n":1}']


@pytest.mark.parametrize("retry_after", ["soon", [], None, -5, 1e400])
def test_an_answer_of_nonsense_ends_the_calls_and_not_the_client(endpoint: str, retry_after: Any) -> None:
    """Whatever a field of an answer holds, each call has its end."""
    answered: list[dict[str, Any]] = []

    def script(header: dict[str, Any], _: bytes) -> list[bytes] | None:
        if header["op"] != "storeEvent" or answered:
            return None
        answered.append(header)
        error = failure("BUSY", retryable=True, retryAfterMs=retry_after)
        return [frame({"id": header["id"], "ok": False, "error": error})]

    async def main() -> None:
        async with _no_complaints(), AsyncClient(endpoint, timeout_s=5) as client:
            outcomes = await asyncio.gather(client.store_event(anything({"n": 1})), return_exceptions=True)
            assert isinstance(outcomes[0], (int, StorageError))
            assert await client.store_event(anything({"n": 2})) >= 1

    with FakeDaemon(endpoint, script=script):
        asyncio.run(main())
