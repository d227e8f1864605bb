"""The asyncio client alone: surface, retries, time limits, closing, event loops, forks."""

import asyncio
import gc
import inspect
import os
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from perstack_storage import (
    AsyncClient,
    AsyncPipeline,
    Client,
    ClosedError,
    DaemonUnavailable,
    OutcomeUnknown,
    Pipeline,
    ProtocolError,
    Refused,
)
from tests.client.fake_daemon import FakeDaemon, Script, Store, failure
from tests.client.scripts import once, refuse, silence
from tests.client.waiting import run_in_child, wait_until
from tests.helpers.values import anything

Scenario = Callable[[AsyncClient], Coroutine[Any, Any, None]]


def run(
    endpoint: str,
    scenario: Scenario,
    *,
    script: Script | None = None,
    store: Store | None = None,
    **arguments: Any,
) -> FakeDaemon:
    """Runs a scenario with a client and a daemon; returns the daemon."""

    async def main() -> None:
        async with AsyncClient(endpoint, **{"timeout_s": 10.0, **arguments}) as client:
            await scenario(client)

    with FakeDaemon(endpoint, store, script) as daemon:
        asyncio.run(main())
    return daemon


def public(kind: type) -> dict[str, list[str]]:
    """Public methods with their parameters."""
    return {
        name: list(inspect.signature(method).parameters)
        for name, method in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_") or name == "__init__"
    }


def test_both_clients_have_the_same_surface() -> None:
    assert public(AsyncClient) == public(Client) | {"ready": ["self"]}
    assert public(AsyncPipeline) == public(Pipeline)


def test_a_ready_client_has_room_for_half_of_the_bound(endpoint: str) -> None:
    async def scenario(client: AsyncClient) -> None:
        for number in range(2000):
            if number % 50 == 0:
                await client.ready()
            client.store_event_nowait(anything({"n": number}))

    daemon = run(endpoint, scenario, max_outstanding=100)
    assert [body for _, body in daemon.store.records] == [b'{"n":%d}' % n for n in range(2000)]


@pytest.mark.usefixtures("_quick_patience")
def test_lost_answers_are_fetched_again(endpoint: str) -> None:
    lost = [once(op, silence) for op in ("storeEvent", "retrieveJob", "storeJob")]

    def script(header: dict[str, Any], body: bytes) -> list[bytes] | None:
        answers = [answer for one in lost if (answer := one(header, body)) is not None]
        return answers[0] if answers else None

    async def scenario(client: AsyncClient) -> None:
        assert await client.store_event(anything({})) == 1
        assert await client.store_job(anything({})) == 2
        assert await client.retrieve_job("j") is not None

    assert len(run(endpoint, scenario, script=script).store.records) == 2


@pytest.mark.parametrize("code", ["BUSY", "SEQUENCE_GAP", "STOPPING"])
def test_retryable_errors_are_ridden_out(endpoint: str, code: str) -> None:
    async def scenario(client: AsyncClient) -> None:
        assert await asyncio.gather(*(client.store_event(anything({"n": n})) for n in range(300))) == list(
            range(1, 301)
        )

    busy = once("store", refuse(failure(code, retryable=True)))
    run(endpoint, scenario, script=busy)


def test_each_store_has_a_time_of_its_own(endpoint: str) -> None:
    """The oldest is given up alone; those that came later have their time, and the numbers go on."""

    async def scenario() -> None:
        async with AsyncClient(endpoint, timeout_s=6) as client:
            first = asyncio.create_task(client.store_event(anything({"n": 0})))
            await asyncio.sleep(3)
            second = asyncio.create_task(client.store_event(anything({"n": 1})))
            with pytest.raises(DaemonUnavailable):
                await first
            assert not second.done()
            with FakeDaemon(endpoint) as daemon:
                assert await client.store_event(anything({"n": 2})) == 2
                assert await second == 1
            assert next(h["seq"] for h in daemon.requests if "seq" in h) == 2

    asyncio.run(scenario())


def test_a_store_without_an_answer_has_an_unknown_outcome(endpoint: str) -> None:
    async def scenario(client: AsyncClient) -> None:
        with pytest.raises(OutcomeUnknown) as caught:
            await client.store_event(anything({}))
        assert caught.value.count == 1
        assert await client.store_event(anything({})) == 1

    daemon = run(endpoint, scenario, script=once("storeEvent", silence), timeout_s=0.9)
    assert (daemon.requests[-1]["seq"], daemon.requests[-1]["settled"]) == (2, 1)


def test_a_store_that_is_refused_for_now_until_the_end_is_refused(endpoint: str) -> None:
    def script(header: dict[str, Any], body: bytes) -> list[bytes] | None:
        return (
            refuse(failure("STORAGE_FULL", retryable=True))(header) if header["op"] == "storeEvent" else None
        )

    async def scenario(client: AsyncClient) -> None:
        with pytest.raises(Refused) as caught:
            await client.store_event(anything({}))
        assert (caught.value.code, caught.value.retryable) == ("STORAGE_FULL", True)

    run(endpoint, scenario, script=script, timeout_s=2)


def test_an_answer_that_is_no_answer_is_an_error_of_every_call(endpoint: str) -> None:
    async def scenario(client: AsyncClient) -> None:
        calls: list[Awaitable[Any]] = [
            client.store_event(anything({})),
            client.retrieve_job("j"),
            client.ping(),
        ]
        for outcome in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(outcome, ProtocolError)
        await client.close()

    run(
        endpoint,
        scenario,
        script=lambda header, body: [b"HTTP/1.1 400"],
        on_error=lambda error: None,
        timeout_s=2,
    )


def test_closing_ends_every_call(endpoint: str) -> None:
    async def scenario(client: AsyncClient) -> None:
        pipeline = client.pipeline()
        await pipeline.store_event(anything({}))
        calls = [
            asyncio.ensure_future(call)
            for call in (
                client.store_event(anything({})),
                client.retrieve_job("j"),
                client.flush(),
                pipeline.flush(),
            )
        ]
        nobody = client.store_event_nowait(anything({}))
        await asyncio.sleep(0.01)
        await client.close()
        for outcome in await asyncio.gather(*calls, nobody, return_exceptions=True):
            assert isinstance(outcome, ClosedError)
        await client.close()
        for name in ("store_event_nowait", "store_event"):
            with pytest.raises(ClosedError):
                getattr(client, name)({})

    run(endpoint, scenario, script=lambda header, body: [], on_error=lambda error: None)


def test_it_goes_on_in_a_new_event_loop_when_the_old_one_is_closed(endpoint: str) -> None:
    client = AsyncClient(endpoint, timeout_s=10)
    with FakeDaemon(endpoint):
        with asyncio.Runner() as first:
            assert first.run(client.__aenter__()) is client
            assert first.run(store(client)) == 1
            with asyncio.Runner() as second, pytest.raises(ClosedError, match="event loop"):
                second.run(store(client))
        assert asyncio.run(store(client)) == 2
        asyncio.run(client.close())


async def store(client: AsyncClient) -> int:
    return await client.store_event(anything({}))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_goes_on_with_a_session_of_its_own(endpoint: str) -> None:
    client = AsyncClient(endpoint, timeout_s=10)
    with FakeDaemon(endpoint) as daemon:
        with asyncio.Runner() as runner:
            assert runner.run(store(client)) == 1
            assert run_in_child(lambda: asyncio.run(store(client)))
            assert runner.run(store(client)) == 3
            runner.run(client.close())
        assert len(daemon.store.last) == 2


def test_nothing_stays_open(endpoint: str) -> None:
    async def scenario(client: AsyncClient) -> None:
        await client.ping()

    def open_files() -> int:
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    run(endpoint, scenario)
    before = open_files()
    for _ in range(5):
        run(endpoint, scenario)
    wait_until(lambda: open_files() <= before)


def test_waiting_takes_no_processor_time(endpoint: str) -> None:
    def script(header: dict[str, Any], body: bytes) -> None:
        if header["op"] == "storeEvent":
            time.sleep(0.3)

    async def scenario(client: AsyncClient) -> None:
        start = time.thread_time()
        await client.store_event(anything({}))
        assert time.thread_time() - start < 0.1

    run(endpoint, scenario, script=script)


def test_flush_tells_of_all_failures_in_whatever_order_the_loop_calls(endpoint: str) -> None:
    """Answers may come in two turns before `flush` goes on: the last callbacks are called after it then."""

    async def scenario(client: AsyncClient) -> None:
        for _ in range(10):
            client.store_event_nowait(anything({}))
        connection = client._connection()
        settled = connection.outstanding.settled

        def wake_and_settle(batch: Any) -> None:
            connection._wake()
            settled(batch)

        connection.outstanding.settled = wake_and_settle  # type: ignore[method-assign]
        with pytest.raises(Refused) as caught:
            await client.flush()
        assert caught.value.__notes__ == ["and 9 more of the stores that nobody waited for failed"]

    def script(header: dict[str, Any], _: bytes) -> list[bytes] | None:
        if not header["op"].startswith("store"):
            return None
        return refuse(failure("FORBIDDEN", retryable=False))(header)

    run(endpoint, scenario, script=script)
