"""Many tasks on one asyncio client, and tasks that are cancelled: the order of the calls holds."""

import asyncio
import time
from typing import Any

import pytest

from perstack_storage import AsyncClient, StorageError
from tests.client.test_async import run
from tests.helpers.values import anything


def test_a_store_takes_value_and_place_at_the_call(endpoint: str) -> None:
    async def scenario(client: AsyncClient) -> None:
        value = anything({"n": 0})
        later = client.store_event(value)
        value["n"] = 1
        sooner = client.store_event(value)
        value["n"] = 2
        assert await sooner == 2
        assert await later == 1

    daemon = run(endpoint, scenario)
    assert [body for _, body in daemon.store.records] == [b'{"n":0}', b'{"n":1}']


def test_the_calls_of_many_tasks_travel_together(endpoint: str) -> None:
    async def scenario(client: AsyncClient) -> None:
        await client.ping()
        positions = await asyncio.gather(*(client.store_event(anything({"n": n})) for n in range(200)))
        assert positions == list(range(1, 201))

    daemon = run(endpoint, scenario)
    assert sum(header["op"] not in {"hello", "ping"} for header in daemon.requests) <= 6
    assert len(daemon.store.last) == 1


def test_a_cancelled_store_is_settled_and_the_numbers_go_on(endpoint: str) -> None:
    async def scenario(client: AsyncClient) -> None:
        await client.ping()
        tasks = [asyncio.create_task(client.store_event(anything({"n": n}))) for n in range(100)]
        for delay in range(50):
            tasks[2 * delay].cancel()
            await asyncio.sleep(0)
        await asyncio.wait(tasks)
        assert await client.store_event(anything({"n": 100})) == 101

    daemon = run(endpoint, scenario)
    assert [body for _, body in daemon.store.records] == [b'{"n":%d}' % n for n in range(101)]


def test_a_cancelled_store_that_is_refused_goes_to_on_error(endpoint: str) -> None:
    errors: list[StorageError] = []

    async def scenario(client: AsyncClient) -> None:
        await client.ping()
        task = asyncio.create_task(client.store_event(anything({"bad": 1})))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await client.flush()
        assert task.cancelled()

    run(endpoint, scenario, on_error=errors.append)
    assert [getattr(error, "field", None) for error in errors] == ["bad"]


def test_a_cancelled_future_takes_nothing_back(endpoint: str) -> None:
    async def scenario(client: AsyncClient) -> None:
        future = client.store_event_nowait(anything({"n": 0}))
        assert future.cancel()
        assert await client.store_event(anything({"n": 1})) == 2

    assert len(run(endpoint, scenario).store.records) == 2


def test_a_cancelled_read_leaves_nothing_behind(endpoint: str) -> None:
    def script(header: dict[str, Any], body: bytes) -> list[bytes] | None:
        return [] if header["op"] == "retrieveJob" else None

    async def scenario(client: AsyncClient) -> None:
        for _ in range(100):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await client.retrieve_job("j")
        tasks = [asyncio.create_task(client.retrieve_job("j")) for _ in range(100)]
        await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert await asyncio.gather(*(client.ping() for _ in range(100)))

    run(endpoint, scenario, script=script)


def test_cancelling_a_pipeline_keeps_what_was_queued(endpoint: str) -> None:
    async def scenario(client: AsyncClient) -> None:
        async def work() -> None:
            async with client.pipeline(max_in_flight=10) as pipeline:
                for number in range(10_000):
                    await pipeline.store_event(anything({"n": number}))
                    reached.append(number)
                    if number == 500:
                        enough.set()

        enough = asyncio.Event()
        reached: list[int] = []
        task = asyncio.create_task(work())
        await enough.wait()
        task.cancel()
        await asyncio.wait([task])
        position = await client.store_event(anything({"n": -1}))
        assert position in {reached[-1] + 2, reached[-1] + 3}

    records = [body for _, body in run(endpoint, scenario).store.records]
    assert records[:-1] == [b'{"n":%d}' % n for n in range(len(records) - 1)]


def test_two_hundred_tasks_read_and_store_at_once(endpoint: str) -> None:
    async def work(client: AsyncClient, name: int) -> None:
        for number in range(5):
            await client.store_event(anything({"task": name, "n": number}))
            assert len(await client.get_event_contents("j", "r", limit=3)) > 0

    async def scenario(client: AsyncClient) -> None:
        await asyncio.gather(*(work(client, name) for name in range(200)))

    daemon = run(endpoint, scenario)
    assert len(daemon.store.records) == 1000
    assert len(daemon.store.last) == 1


def test_a_busy_pipeline_lets_other_tasks_run(endpoint: str) -> None:
    async def scenario(client: AsyncClient) -> None:
        async def tick() -> None:
            while True:
                ticks.append(time.monotonic())
                await asyncio.sleep(0)

        ticks: list[float] = []
        ticker = asyncio.create_task(tick())
        async with client.pipeline() as pipeline:
            for number in range(20_000):
                await pipeline.store_event(anything({"n": number}))
        ticker.cancel()
        assert len(ticks) > 10

    run(endpoint, scenario)
