"""Stores that are not waited for one by one: pipelines, futures, flush, bounds, and who hears of failures."""

from typing import Any

import pytest

from perstack_storage import (
    Client,
    DaemonUnavailable,
    NotFlushed,
    OutcomeUnknown,
    Refused,
    StorageError,
    TooMuchOutstanding,
)
from tests.client.behaviour.conftest import OpenClient
from tests.client.behaviour.values import checkpoint, event, job, setting
from tests.helpers.daemon import RunningDaemon, eventually


def position_of(client: Client) -> int:
    """The last position there is."""
    return client.read_all(limit=1).position or 0


def numbers_of(client: Client, job_id: str) -> list[int]:
    contents: list[Any] = client.get_event_contents(job_id, "r")
    return [found["n"] for found in contents]


def test_a_pipeline_stores_everything_in_order(python_client: Client, job_id: str) -> None:
    with python_client.pipeline() as pipeline:
        for number in range(3000):
            pipeline.store_event(event(job_id, number))
    assert numbers_of(python_client, job_id) == list(range(3000))
    positions = [position or 0 for position in pipeline.positions]
    assert len(positions) == 3000
    assert positions == sorted(set(positions))


def test_a_pipeline_names_the_refused_store_and_stores_the_others(python_client: Client, job_id: str) -> None:
    pipeline = python_client.pipeline()
    for number in range(200):
        pipeline.store_event(event(job_id, number, stepNumber=-1 if number in {50, 60} else 1))
    with pytest.raises(Refused) as caught:
        pipeline.flush()
    assert (caught.value.index, caught.value.field) == (50, "stepNumber")
    assert [refusal.index for refusal in pipeline.refusals] == [50, 60]
    assert [i for i, position in enumerate(pipeline.positions) if position is None] == [50, 60]
    assert numbers_of(python_client, job_id) == [n for n in range(200) if n not in {50, 60}]


def test_max_in_flight_of_one_is_one_after_the_other(python_client: Client, job_id: str) -> None:
    with python_client.pipeline(max_in_flight=1) as pipeline:
        for number in range(50):
            pipeline.store_event(event(job_id, number))
            assert number - len(pipeline.positions) <= 1
    assert numbers_of(python_client, job_id) == list(range(50))


def test_a_future_gives_the_position(client: Client, job_id: str) -> None:
    futures = [
        client.store_job_nowait(job(job_id)),
        client.store_checkpoint_nowait(checkpoint(job_id, "c")),
        client.store_run_setting_nowait(setting(job_id)),
        client.store_event_nowait(event(job_id, 1)),
    ]
    positions = [future.result(60) for future in futures]
    assert positions == sorted(positions)
    assert client.retrieve_job(job_id) == job(job_id)
    assert client.retrieve_checkpoint(job_id, "c")["id"] == "c"
    assert numbers_of(client, job_id) == [1]


def test_the_order_of_the_calls_is_the_order_stored_in_any_way(python_client: Client, job_id: str) -> None:
    numbers = iter(range(10_000))
    futures = []
    with python_client.pipeline() as pipeline:
        for turn in range(40):
            futures += [python_client.store_event_nowait(event(job_id, next(numbers))) for _ in range(turn)]
            if turn % 3 == 0:
                python_client.store_event(event(job_id, next(numbers)))
            for _ in range(turn % 7):
                pipeline.store_event(event(job_id, next(numbers)))
            if turn % 10 == 9:
                python_client.flush()
    python_client.flush()
    stored = numbers_of(python_client, job_id)
    assert stored == list(range(len(stored)))
    assert len(stored) == next(numbers)
    assert all(future.done() for future in futures)


def test_awaited_and_un_awaited_stores_of_every_kind_stand_in_the_order_of_the_calls(
    client: Client, job_id: str
) -> None:
    first = position_of(client)
    for turn in range(60):
        client.store_event_nowait(event(job_id, 3 * turn))
        client.store_checkpoint_nowait(checkpoint(job_id, f"c{turn}", turn))
        if turn % 7 == 0:
            client.store_event(event(job_id, 3 * turn + 1))
        else:
            client.store_event_nowait(event(job_id, 3 * turn + 1))
        client.store_job_nowait(job(job_id) | {"totalSteps": turn})
    client.flush()
    assert client.retrieve_job(job_id) == job(job_id) | {"totalSteps": 59}
    stored = [record["value"] for record in client.follow(first, job_id=job_id, idle_s=0)]
    of_a_turn = [("n", 0), ("id", 0), ("n", 1), ("totalSteps", 0)]
    assert [dict(value)[of_a_turn[i % 4][0]] for i, value in enumerate(stored)] == [
        what for turn in range(60) for what in (3 * turn, f"c{turn}", 3 * turn + 1, turn)
    ]


def test_a_refused_one_in_between_fails_alone(
    shared_daemon: RunningDaemon, open_client: OpenClient, job_id: str
) -> None:
    client = open_client(shared_daemon, on_error=lambda error: None)
    futures = [client.store_event_nowait(event(job_id, n, stepNumber=1 - 2 * (n == 50))) for n in range(100)]
    client.flush()
    problem = futures[50].exception(60)
    assert isinstance(problem, Refused)
    assert (problem.code, problem.field) == ("BAD_VALUE", "stepNumber")
    kept = [future.result(60) for n, future in enumerate(futures) if n != 50]
    assert kept == sorted(set(kept))
    assert numbers_of(client, job_id) == [n for n in range(100) if n != 50]


def test_flush_waits_for_all(client: Client, job_id: str) -> None:
    futures = [client.store_event_nowait(event(job_id, number)) for number in range(5000)]
    client.flush()
    assert all(future.done() for future in futures)
    assert numbers_of(client, job_id) == list(range(5000))
    client.flush()


def test_leaving_the_client_flushes(
    shared_daemon: RunningDaemon, open_client: OpenClient, job_id: str
) -> None:
    with open_client(shared_daemon) as client:
        for number in range(500):
            client.store_event_nowait(event(job_id, number))
    assert numbers_of(open_client(shared_daemon), job_id) == list(range(500))


def test_leaving_the_client_by_an_exception_flushes_too(
    shared_daemon: RunningDaemon, open_python_client: OpenClient, job_id: str
) -> None:
    client = open_python_client(shared_daemon)
    client.store_event_nowait(event(job_id, 1))
    client.store_event_nowait(event(job_id, 2, stepNumber=-1))
    with pytest.raises(KeyError, match="mine") as caught, client:
        raise KeyError("mine")
    assert numbers_of(open_python_client(shared_daemon), job_id) == [1]
    assert "stepNumber" in caught.value.__notes__[0]


def test_a_refused_one_fails_its_future_and_goes_to_on_error(
    shared_daemon: RunningDaemon, open_python_client: OpenClient, job_id: str
) -> None:
    errors: list[StorageError] = []
    client = open_python_client(shared_daemon, on_error=errors.append)
    futures = [client.store_event_nowait(event(job_id, n, stepNumber=1 - 2 * (n == 5))) for n in range(10)]
    client.flush()
    problem = futures[5].exception(0)
    assert isinstance(problem, Refused)
    assert (problem.field, problem.op) == ("stepNumber", "storeEvent")
    assert errors == [problem]
    assert numbers_of(client, job_id) == [n for n in range(10) if n != 5]


def test_without_on_error_flush_raises_the_first_failure_once(python_client: Client, job_id: str) -> None:
    for number in range(10):
        python_client.store_event_nowait(event(job_id, number, stepNumber=-1))
    with pytest.raises(Refused, match="stepNumber") as caught:
        python_client.flush()
    assert "9 more" in caught.value.__notes__[0]
    python_client.flush()


def test_an_on_error_that_raises_stops_nothing(
    shared_daemon: RunningDaemon, open_python_client: OpenClient, job_id: str
) -> None:
    def on_error(error: StorageError) -> None:
        raise RuntimeError("mine")

    client = open_python_client(shared_daemon, on_error=on_error)
    for number in range(4):
        client.store_event_nowait(event(job_id, number, stepNumber=number % 2 - 1))
    client.flush()
    assert numbers_of(client, job_id) == [1, 3]


def test_on_error_may_store(
    shared_daemon: RunningDaemon, open_python_client: OpenClient, job_id: str
) -> None:
    def on_error(error: StorageError) -> None:
        # The asyncio client itself is called here, not its adapter: the event loop is running.
        getattr(client, "_wrapped", client).store_event_nowait(event(job_id, 2))

    client = open_python_client(shared_daemon, on_error=on_error)
    client.store_event_nowait(event(job_id, 1, stepNumber=-1))
    client.flush()
    eventually(lambda: client.ping() > 0 and numbers_of(client, job_id) == [2], "it is stored")


def test_flush_with_too_little_time_gives_nothing_up(
    daemon: RunningDaemon, open_python_client: OpenClient, job_id: str
) -> None:
    client = open_python_client(daemon)
    client.store_event(event(job_id, 0))
    daemon.kill()
    future = client.store_event_nowait(event(job_id, 1))
    with pytest.raises(NotFlushed, match="1 stores") as caught:
        client.flush(timeout_s=0.1)
    assert (caught.value.count, isinstance(caught.value, TimeoutError)) == (1, True)
    daemon.start()
    assert future.result(60) == 2


def stored_when_it_answers(client: Client, value: dict[str, Any]) -> None:
    """Stores through a client of little patience, as soon as the daemon has come up."""
    while True:
        try:
            client.store_event(value)
            return
        except (DaemonUnavailable, OutcomeUnknown):
            continue


def test_beyond_the_bound_it_blocks_or_says_so(
    daemon: RunningDaemon, open_python_client: OpenClient, job_id: str
) -> None:
    client = open_python_client(daemon, max_outstanding=100, timeout_s=1.0, on_error=lambda error: None)
    stored_when_it_answers(client, event(job_id, -1))
    daemon.kill()
    futures = [client.store_event_nowait(event(job_id, number)) for number in range(100)]
    # Blocking ends as any store does: with nothing answered for `timeout_s`.
    is_sync = isinstance(client, Client)
    with pytest.raises((OutcomeUnknown, DaemonUnavailable) if is_sync else TooMuchOutstanding):
        client.store_event_nowait(event(job_id, 100))
    daemon.start()
    client.flush()
    if not is_sync:
        client.ready()  # type: ignore[attr-defined]
    stored_when_it_answers(client, event(job_id, 101))
    problems = [future.exception(0) for future in futures]
    stored = numbers_of(open_python_client(daemon), job_id)
    # An unknown outcome may be either; every other outcome is as reported.
    assert [n for n in stored if not 0 <= n < 100 or not isinstance(problems[n], OutcomeUnknown)] == [
        -1,
        *(number for number, problem in enumerate(problems) if problem is None),
        101,
    ]
    assert stored == sorted(stored)


def test_what_is_given_up_fails_and_the_session_goes_on(
    daemon: RunningDaemon, open_client: OpenClient, job_id: str
) -> None:
    client = open_client(daemon, timeout_s=1.0, on_error=lambda error: None)
    stored_when_it_answers(client, event(job_id, 0))
    daemon.kill()
    futures = [client.store_event_nowait(event(job_id, number)) for number in range(1, 300)]
    client.flush()
    assert all(isinstance(future.exception(60), StorageError) for future in futures)
    daemon.start()
    stored_when_it_answers(client, event(job_id, 300))
    assert numbers_of(open_client(daemon), job_id) == [0, 300]
