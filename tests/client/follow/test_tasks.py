"""Following with asyncio."""

import asyncio
from typing import Any

import pytest

from perstack_storage import AsyncClient, PositionGone
from tests.client.follow.subscriber import SUBSCRIBERS, event
from tests.helpers.daemon import RunningDaemon


async def _collect(client: AsyncClient, **arguments: Any) -> list[int]:
    return [record["position"] async for record in client.follow(**arguments)]


@pytest.mark.usefixtures("_short_waits")
def test_tasks_follow_over_one_connection_while_others_store(daemon: RunningDaemon) -> None:
    """Fifty of them, half of a run where nothing happens; with a kill -9 in between."""

    async def run() -> None:
        async with AsyncClient(daemon.endpoint, timeout_s=60) as client:
            busy = [asyncio.create_task(_collect(client, idle_s=3)) for _ in range(SUBSCRIBERS // 2)]
            quiet = [
                asyncio.create_task(_collect(client, job_id="j", run_id=f"q{n}", idle_s=3))
                for n in range(SUBSCRIBERS // 2)
            ]
            stored = [await client.store_event(event(number)) for number in range(100)]
            daemon.kill()
            await asyncio.to_thread(daemon.start)
            stored += [await client.store_event(event(number)) for number in range(100, 200)]
            assert await asyncio.gather(*busy) == [stored] * len(busy)
            assert await asyncio.gather(*quiet) == [[]] * len(quiet)

    asyncio.run(run())


def test_a_task_that_follows_can_be_cancelled_or_leave(daemon: RunningDaemon) -> None:
    async def run() -> None:
        async with AsyncClient(daemon.endpoint, timeout_s=60) as client:
            task = asyncio.create_task(_collect(client))
            while (await client.stats())["reads"]["following"] == 0:
                pass
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await client.store_event(event(1))
            async for record in client.follow():
                assert record["position"] == 1
                break
            with pytest.raises(PositionGone):
                await _collect(client, after=2)
            assert await client.ping() < 5
            task = asyncio.create_task(_collect(client, after=1))
            while (await client.stats())["reads"]["following"] == 0:
                pass
        assert await task == []  # closing the client ends it

    asyncio.run(run())
