"""An event loop that stands still is no silence of the daemon: nothing is reported lost that was kept."""

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from perstack_storage import AsyncClient, DaemonUnavailable, NotFlushed
from tests.client.fake_daemon import FakeDaemon
from tests.client.waiting import wait_until
from tests.helpers import signals
from tests.helpers.values import anything

TIMEOUT_S = 1.0
STANDSTILL_S = 1.4


def stand_still(seconds: float = STANDSTILL_S) -> None:
    """Keeps the event loop from turning, as a computation or a child process that is waited for does."""
    time.sleep(seconds)


async def turns(count: int) -> None:
    """Lets the event loop turn a number of times."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("transport", ["ipc", "tcp"])
def test_a_standstill_beyond_the_timeout_fails_no_call(
    endpoint: str, transport: str, free_endpoint: str
) -> None:
    """Wherever a call is when the loop stops to turn, connected or not: it goes on, and has its answer."""

    async def main(where: str) -> None:
        clients = [AsyncClient(where, timeout_s=TIMEOUT_S) for _ in range(10)]
        for client in clients[:5]:
            await client.ping()
        calls: list[asyncio.Task[Any]] = []
        for stage in range(5):
            for client in (clients[stage], clients[5 + stage]):
                calls.append(asyncio.create_task(client.store_event(anything({"n": stage}))))
                calls.append(asyncio.create_task(client.retrieve_job("j")))
            await turns(1)
        stand_still()
        failed = [
            one for one in await asyncio.gather(*calls, return_exceptions=True) if isinstance(one, Exception)
        ]
        assert failed == []
        for client in clients:
            await client.close()

    where = endpoint if transport == "ipc" else free_endpoint
    with FakeDaemon(where) as daemon:
        asyncio.run(main(where))
    assert len(daemon.store.records) == 10


def test_a_flush_with_a_limit_of_its_own_takes_what_has_arrived(endpoint: str) -> None:
    """The limit of a flush is over only if the loop could take answers for so long."""

    async def main() -> None:
        async with AsyncClient(endpoint) as client:
            await client.ping()
            for n in range(20):
                client.store_event_nowait(anything({"n": n}))
            flush = asyncio.create_task(client.flush(TIMEOUT_S))
            await turns(2)
            stand_still()
            await flush

    with FakeDaemon(endpoint):
        asyncio.run(main())


def test_a_flush_whose_limit_is_over_says_so_and_gives_nothing_up(endpoint: str) -> None:
    """`NotFlushed`; the stores go on."""

    async def main() -> None:
        async with AsyncClient(endpoint, timeout_s=10) as client:
            stored = client.store_event_nowait(anything({}))
            with pytest.raises(NotFlushed):
                await client.flush(0.1)
            with FakeDaemon(endpoint):
                assert await stored == 1

    asyncio.run(main())


def test_a_loop_that_often_stalls_still_gives_up(endpoint: str) -> None:
    """Where nobody answers, the time limit holds in the end."""

    async def main() -> None:
        async with AsyncClient(endpoint, timeout_s=0.3) as client:
            store = asyncio.create_task(client.store_event(anything({})))
            for _ in range(500):
                await turns(1)
                if store.done():
                    break
                stand_still(0.06)  # beyond two ticks of its clock, each time
            with pytest.raises(DaemonUnavailable):
                await store

    asyncio.run(main())


PROGRAM = """
import asyncio, sys
from perstack_storage import AsyncClient

async def main():
    async with AsyncClient(sys.argv[1], timeout_s=float(sys.argv[2])) as client:
        going = True
        async def store():
            while going:
                await client.store_event({"n": 1})
        async def read():
            while going:
                await client.retrieve_job("j")
        tasks = [asyncio.create_task(one()) for one in (store, store, read)]
        print("going", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        going = False
        await asyncio.gather(*tasks)

asyncio.run(main())
"""


def test_a_process_that_is_stopped_and_goes_on_fails_no_call(endpoint: str, tmp_path: Path) -> None:
    """SIGSTOP for longer than the timeout, in the midst of stores and reads."""
    with FakeDaemon(endpoint) as daemon:
        program = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, endpoint, str(TIMEOUT_S)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
        try:
            wait_until(lambda: len(daemon.store.records) > 10)
            signals.stop(program.pid)
            time.sleep(STANDSTILL_S)
            stored = len(daemon.store.records)
            program.send_signal(signal.SIGCONT)
            wait_until(lambda: len(daemon.store.records) > stored + 10)
            _, complaints = program.communicate("enough\n", timeout=120)
        finally:
            program.kill()
            program.wait()
    assert (program.returncode, complaints) == (0, "")
