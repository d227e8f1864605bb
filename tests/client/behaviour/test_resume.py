"""A job that two programs go on with, through all clients: exactly one of them does."""

from typing import Any

import pytest

from perstack_storage import Client, JobTakenOver
from tests.client.behaviour.conftest import OpenClient
from tests.client.behaviour.values import checkpoint, event, job
from tests.helpers.daemon import RunningDaemon


def numbers_of(client: Client, job_id: str) -> list[Any]:
    contents: list[Any] = client.get_event_contents(job_id, "r")
    return [found["n"] for found in contents]


def test_who_stores_first_goes_on_until_the_other_resumes_again(
    shared_daemon: RunningDaemon, open_client: OpenClient, job_id: str
) -> None:
    one, two = open_client(shared_daemon), open_client(shared_daemon)
    position = one.store_job_nowait(job(job_id)).result(60)
    mine, theirs = one.resume(job_id), two.resume(job_id)
    assert mine.job == theirs.job == job(job_id)
    assert mine.position >= position
    mine.store_event(event(job_id, 1))
    for _ in range(2):
        with pytest.raises(JobTakenOver) as caught:
            theirs.store_event(event(job_id, 2))
        assert caught.value.code == "CONFLICT"
        assert caught.value.position == mine.position
    mine.store_checkpoint(checkpoint(job_id, "c"))
    again = two.resume(job_id)
    again.store_event(event(job_id, 3))
    with pytest.raises(JobTakenOver):
        mine.store_event(event(job_id, 4))
    assert numbers_of(one, job_id) == [1, 3]


def test_stores_that_nobody_waits_for_are_fenced(
    shared_daemon: RunningDaemon, open_client: OpenClient, other_client: Client, job_id: str
) -> None:
    client = open_client(shared_daemon, on_error=lambda _error: None)
    mine = client.resume(job_id)
    assert mine.job is None
    futures = [mine.store_event_nowait(event(job_id, n)) for n in range(300)]
    positions = [future.result(60) for future in futures]
    assert positions == sorted(positions)
    other_client.resume(job_id).store_event(event(job_id, 300))
    futures = [mine.store_event_nowait(event(job_id, 1000 + n)) for n in range(300)]
    assert all(isinstance(future.exception(60), JobTakenOver) for future in futures)
    assert numbers_of(client, job_id) == list(range(301))


def test_pipelines_and_atomic_batches_are_fenced(
    python_client: Client, other_client: Client, job_id: str
) -> None:
    mine = python_client.resume(job_id)
    with mine.pipeline() as pipeline:
        for n in range(200):
            pipeline.store_event(event(job_id, n))
    with mine.atomic() as batch:
        batch.store_event(event(job_id, 200))
        batch.store_checkpoint(checkpoint(job_id, "c"))
    assert mine.position == batch.positions[-1]
    other_client.resume(job_id).store_event(event(job_id, 201))

    def go_on(block: Any) -> None:
        with block as stores:
            stores.store_event(event(job_id, 999))

    for block in (mine.pipeline(), mine.atomic()):
        with pytest.raises(JobTakenOver):
            go_on(block)
    assert numbers_of(python_client, job_id) == list(range(202))


def test_the_values_may_be_large(python_client: Client, other_client: Client, job_id: str) -> None:
    """They travel in parts, and are fenced all the same."""
    mine = python_client.resume(job_id)
    mine.store_event(event(job_id, 1, text="x" * (20 << 20)))
    other_client.resume(job_id).store_event(event(job_id, 2))
    with pytest.raises(JobTakenOver):
        mine.store_event(event(job_id, 3, text="x" * (20 << 20)))
    assert numbers_of(python_client, job_id) == [1, 2]


def test_a_run_is_resumed_by_itself(python_client: Client, other_client: Client, job_id: str) -> None:
    mine = python_client.resume(job_id, "r")
    other_client.store_event(event(job_id, 1) | {"runId": "another"})
    mine.store_event(event(job_id, 2))
    other_client.store_event(event(job_id, 3))
    with pytest.raises(JobTakenOver):
        mine.store_event(event(job_id, 4))
    assert numbers_of(python_client, job_id) == [2, 3]


def test_a_restart_of_the_daemon_takes_nothing_over(daemon: RunningDaemon, open_client: OpenClient) -> None:
    """What the client held before is remembered from the end of the history; so is who took it over."""
    one, two = open_client(daemon), open_client(daemon)
    mine = one.resume("job")
    for turn in range(2):
        mine.store_event(event("job", turn))
        daemon.kill()
        daemon.start()
    two.resume("job").store_event(event("job", 2))
    daemon.kill()
    daemon.start()
    with pytest.raises(JobTakenOver):
        mine.store_event(event("job", 3))
    assert numbers_of(one, "job") == list(range(3))


def test_it_is_a_block_that_waits_for_its_stores(other_client: Client, job_id: str) -> None:
    """Of the synchronous client; the asyncio client's `flush` does that."""
    with other_client.resume(job_id) as mine:
        futures = [mine.store_event_nowait(event(job_id, n)) for n in range(100)]
    assert all(future.done() for future in futures)
