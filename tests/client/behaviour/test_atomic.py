"""Values that are stored all or none, through all clients."""

from typing import Any

import pytest

from perstack_storage import Client, ClosedError, Refused
from tests.client.behaviour.conftest import OpenClient
from tests.client.behaviour.values import checkpoint, event, job, setting
from tests.helpers.daemon import RunningDaemon


def ids_of(client: Client, job_id: str) -> list[Any]:
    """The numbers of the events of a run."""
    contents: list[Any] = client.get_event_contents(job_id, "r")
    return [found["n"] for found in contents]


def test_values_of_all_kinds_are_stored_together(client: Client, job_id: str) -> None:
    client.store_event_nowait(event(job_id, 0))
    with client.atomic() as batch:
        batch.store_event(event(job_id, 1))
        batch.store_checkpoint(checkpoint(job_id, "c"))
        batch.store_job(job(job_id))
        batch.store_run_setting(setting(job_id))
    first = batch.positions[0]
    assert batch.positions == [first, first + 1, first + 2, first + 3]
    client.store_event(event(job_id, 2))
    assert ids_of(client, job_id) == [0, 1, 2]
    assert client.retrieve_checkpoint(job_id, "c")["id"] == "c"
    assert client.retrieve_job(job_id) == job(job_id)


def test_where_one_is_refused_none_is_stored(client: Client, job_id: str) -> None:
    def store_all() -> None:
        with client.atomic() as batch:
            batch.store_event(event(job_id, 1))
            batch.store_checkpoint(checkpoint(job_id, "c"))
            batch.store_event(event(job_id, 2, stepNumber=-1))
            batch.store_event(event(job_id, 3))

    with pytest.raises(Refused) as caught:
        store_all()
    error = caught.value
    assert (error.code, error.field, error.index) == ("BAD_VALUE", "stepNumber", 2)
    client.store_event(event(job_id, 4))
    assert ids_of(client, job_id) == [4]
    assert client.get_checkpoints_by_job_id(job_id) == []


def test_a_block_that_fails_stores_nothing(client: Client, job_id: str) -> None:
    def fail() -> None:
        with client.atomic() as batch:
            batch.store_event(event(job_id, 1))
            raise KeyError("of the program")

    with pytest.raises(KeyError):
        fail()
    with client.atomic() as batch:
        pass
    assert batch.positions == []
    assert ids_of(client, job_id) == []


def test_a_batch_is_used_once(python_client: Client, job_id: str) -> None:
    with python_client.atomic() as batch:
        batch.store_event(event(job_id, 1))
    with pytest.raises(ClosedError):
        batch.store_event(event(job_id, 2))


def test_it_keeps_its_place_among_stores_that_nobody_waits_for(client: Client, job_id: str) -> None:
    """Also beyond the window: the numbers of a batch are counted, and a read waits for all of them."""
    for start in range(0, 3000, 30):
        for number in range(start, start + 20):
            client.store_event_nowait(event(job_id, number))
        with client.atomic() as batch:
            for number in range(start + 20, start + 30):
                batch.store_event(event(job_id, number))
    assert ids_of(client, job_id) == list(range(3000))


@pytest.mark.parametrize(("count", "size"), [(1025, 1), (3, 6 << 20)])
def test_what_no_frame_holds_is_refused_at_the_call(
    client: Client, job_id: str, count: int, size: int
) -> None:
    text = "x" * size

    def store_all() -> None:
        with client.atomic() as batch:
            for number in range(count):
                batch.store_event(event(job_id, number, text=text))

    with pytest.raises(Refused) as caught:
        store_all()
    assert caught.value.code == "TOO_LARGE"
    assert ids_of(client, job_id) == []


def test_many_at_once_and_large_ones_arrive(client: Client, job_id: str) -> None:
    with client.atomic() as batch:
        for number in range(1024):
            batch.store_event(event(job_id, number))
    with client.atomic() as batch:
        for number in range(1024, 1027):
            batch.store_event(event(job_id, number, text="x" * (5 << 20)))
    assert len(batch.positions) == 3
    assert ids_of(client, job_id) == list(range(1027))


def test_a_restart_of_the_daemon_is_ridden_out(daemon: RunningDaemon, open_client: OpenClient) -> None:
    """Each batch is there once, whole, whatever was under way."""
    client = open_client(daemon)
    for turn in range(6):
        if turn % 2:
            daemon.kill()
            daemon.start()
        with client.atomic() as batch:
            for number in range(turn * 50, turn * 50 + 50):
                batch.store_event(event("job", number))
        assert len(batch.positions) == 50
    assert ids_of(client, "job") == list(range(300))
