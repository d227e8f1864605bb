"""Many at once on one daemon that is killed in between: 200 tasks of one process, and 16 processes."""

import asyncio
import multiprocessing
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from perstack_storage import AsyncClient, Client, StorageError
from tests.client.behaviour.test_without_waiting import position_of
from tests.client.behaviour.values import event
from tests.helpers.daemon import RunningDaemon, eventually, running_daemon

SECONDS = 200.0  # a whole machine of them, beside other tests
TASKS = 200
PROCESSES = 16
EACH = 24
# Quick and clean: forked from a process that has imported this module and has no threads.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__])

pytestmark = pytest.mark.timeout(900)


async def store_in_all_ways(client: AsyncClient, job_id: str, called: list[tuple[str, int]]) -> list[int]:
    """Stores the numbers from 0 on; notes each call, and returns the positions."""
    futures: list[asyncio.Future[int]] = []
    for number in range(EACH):
        called.append((job_id, number))
        if number % 4 == 3:
            futures.append(client.store_event_nowait(event(job_id, number)))
        else:
            stored = client.store_event(event(job_id, number))
            futures.append(asyncio.ensure_future(stored))
            if number % 4 == 0:
                await futures[-1]
    return [await future for future in futures]


async def tasks_of(endpoint: str, prefix: str, count: int) -> None:
    """Many tasks share one client: each finds its stores in order, and all are in the order of the calls."""
    async with AsyncClient(endpoint, timeout_s=SECONDS) as client:
        called: list[tuple[str, int]] = []
        jobs = [f"{prefix}-{n}" for n in range(count)]
        positions = await asyncio.gather(*(store_in_all_ways(client, job, called) for job in jobs))
        by_call = {(job, n): positions[i][n] for i, job in enumerate(jobs) for n in range(EACH)}
        in_order = [by_call[call] for call in called]
        assert in_order == sorted(set(in_order))
        found = await asyncio.gather(*(client.get_event_contents(job, "r") for job in jobs))
        for contents in found:
            assert [dict(value)["n"] for value in contents] == list(range(EACH))


def threads_of(endpoint: str, prefix: str) -> None:
    """Two threads on one synchronous client."""

    def work(job_id: str) -> None:
        for number in range(10 * EACH):
            if number % 4:
                client.store_event_nowait(event(job_id, number))
            else:
                client.store_event(event(job_id, number))
        client.flush()
        contents = client.get_event_contents(job_id, "r")
        assert [dict(value)["n"] for value in contents] == list(range(10 * EACH))
        done.append(job_id)

    done: list[str] = []
    with Client(endpoint, timeout_s=SECONDS) as client:
        threads = [threading.Thread(target=work, args=(f"{prefix}-{n}",)) for n in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(done) == 2


def process(endpoint: str, number: int) -> None:
    """One of the processes: every second one runs tasks, the others threads."""
    if number % 2:
        asyncio.run(tasks_of(endpoint, f"tasks-{number}", 20))
    else:
        threads_of(endpoint, f"threads-{number}")


def kill_when(daemon: RunningDaemon, *positions: int) -> None:
    """Kill the daemon when a number of records is stored, and start it again."""
    with Client(daemon.endpoint, timeout_s=SECONDS) as watcher:
        for position in positions:
            eventually(lambda wanted=position: position_of(watcher) >= wanted, f"{position} are stored")  # type: ignore[misc]
            daemon.kill()
            daemon.start()


def test_two_hundred_tasks_and_sixteen_processes_ride_out_kills_together(tmp_path: Path) -> None:
    """Every record once, in the order of the calls of its session: by job, and by position."""
    with running_daemon(tmp_path / "perstack") as daemon:
        processes = [_processes.Process(target=process, args=(daemon.endpoint, n)) for n in range(PROCESSES)]
        for one in processes:
            one.start()
        killer = threading.Thread(target=kill_when, args=(daemon, 1000, 6000))
        killer.start()
        asyncio.run(tasks_of(daemon.endpoint, "here", TASKS))
        for one in processes:
            one.join()
        killer.join()
        assert [one.exitcode for one in processes] == [0] * PROCESSES
        for one in processes:
            one.close()
        expected = TASKS * EACH + 8 * 20 * EACH + 8 * 2 * 10 * EACH
        with Client(daemon.endpoint, timeout_s=SECONDS) as client:
            values: list[Any] = [record["value"] for record in client.follow(idle_s=0)]
            seen = {(value["jobId"], value["id"]) for value in values}
            assert position_of(client) == len(seen) == expected


def test_cancelled_stores_leave_a_session_that_goes_on(tmp_path: Path) -> None:
    """Half of the tasks are cancelled while the daemon is gone: each store is there once or not, in order."""

    async def scenario(daemon: RunningDaemon) -> None:
        errors: list[StorageError] = []
        async with AsyncClient(daemon.endpoint, timeout_s=SECONDS, on_error=errors.append) as client:
            await client.ping()
            daemon.kill()
            stores: list[Coroutine[Any, Any, int]] = [client.store_event(event("j", n)) for n in range(400)]
            tasks = [asyncio.create_task(store) for store in stores]
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            outcomes = asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.to_thread(daemon.start)
            for number, outcome in enumerate(await outcomes):
                assert outcome == number + 1 if number % 2 else isinstance(outcome, asyncio.CancelledError)
            assert await client.store_event(event("j", 400)) == 401
            contents = await client.get_event_contents("j", "r")
            assert [dict(value)["n"] for value in contents] == list(range(401))
            assert errors == []

    with running_daemon(tmp_path / "perstack") as daemon:
        asyncio.run(scenario(daemon))
