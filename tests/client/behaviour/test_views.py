"""Reads for those who look at runs, through both Python clients."""

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from perstack_storage import Client, PositionGone, Refused
from tests.client.behaviour.conftest import OpenClient
from tests.client.behaviour.values import checkpoint, event, job
from tests.helpers.daemon import RunningDaemon


def test_a_record_is_read_by_its_position(python_client: Client, job_id: str) -> None:
    position = python_client.store_event(event(job_id, 1))
    record = python_client.get_event(position)
    assert (record["position"], record["op"], record["value"]) == (position, "storeEvent", event(job_id, 1))
    assert record["time"] > 0
    with pytest.raises(Refused) as caught:
        python_client.get_event(2**53 - 1)
    assert caught.value.code == "NOT_FOUND"


def test_a_time_stands_for_a_position(python_client: Client, job_id: str) -> None:
    position = python_client.store_event(event(job_id, 1))
    time_ms = python_client.get_event(position)["time"]
    assert python_client.position_at(time_ms) >= position
    assert python_client.position_at(0) == 0


def test_a_job_its_checkpoints_and_events_are_read_as_they_were(python_client: Client, job_id: str) -> None:
    """As of a position, and of a time; a position that is not there is gone."""
    client = python_client
    client.store_job(job(job_id))
    client.store_checkpoint(checkpoint(job_id, "c"))
    then = client.store_event(event(job_id, 1))
    client.store_checkpoint(checkpoint(job_id, "c") | {"status": "later"})
    client.store_event(event(job_id, 2))
    last = client.store_job(job(job_id) | {"status": "later"})
    found = client.retrieve_job(job_id, as_of=then)
    assert found is not None
    assert found["status"] == job(job_id)["status"]
    assert client.retrieve_job(job_id, as_of=then - 3) is None
    assert client.retrieve_checkpoint(job_id, "c", as_of=then) == checkpoint(job_id, "c")
    page = client.get_checkpoints_by_job_id(job_id, as_of=then, omit=["usage"])
    assert ([one["status"] for one in page], page.as_of) == ([checkpoint(job_id, "c")["status"]], then)
    assert len(client.get_events_by_run(job_id, "r", as_of=then)) == 1
    assert [dict(one)["n"] for one in client.get_event_contents(job_id, "r", as_of=then)] == [1]
    assert client.get_event_contents(job_id, "r").as_of is None
    future = datetime.now(tz=UTC) + timedelta(days=1)
    assert client.get_event_contents(job_id, "r", as_of=future).as_of == last
    assert client.get_events_by_run(job_id, "r", as_of=datetime(1990, 1, 1, tzinfo=UTC)) == []
    with pytest.raises(PositionGone):
        client.retrieve_job(job_id, as_of=2**53 - 1)
    with pytest.raises(TypeError, match="as_of"):
        client.retrieve_checkpoint(job_id, "c", as_of=cast("int", 1.5))


def test_events_are_filtered_and_parts_left_out(python_client: Client, job_id: str) -> None:
    for n in range(6):
        more: dict[str, Any] = {
            "type": "ab"[n % 2],
            "stepNumber": n,
            "checkpoint": {"messages": ["m"], "n": n},
        }
        python_client.store_event(event(job_id, n) | more)
    page = python_client.get_event_contents(job_id, "r", newest_first=True, limit=2)
    assert [dict(found)["n"] for found in page] == [5, 4]
    page = python_client.get_event_contents(job_id, "r", newest_first=True, limit=2, after=page.next)
    assert [dict(found)["n"] for found in page] == [3, 2]
    found = python_client.get_event_contents(
        job_id, "r", types=["b"], min_step=2, omit=["checkpoint.messages"]
    )
    assert [dict(one)["checkpoint"] for one in found] == [{"n": 3}, {"n": 5}]
    assert python_client.get_event_contents(job_id, "r", max_step=2, min_step=3) == []


def test_jobs_and_runs_are_found_without_a_job_or_setting(
    daemon: RunningDaemon, open_python_client: OpenClient
) -> None:
    """Of what Perstack's command line stores: events and checkpoints."""
    client = open_python_client(daemon)
    for n in range(5):
        client.store_event(event(f"job-{n}", n) | {"timestamp": 1000 + n})
    client.store_checkpoint(checkpoint("job-3", "c") | {"status": "completed"})
    assert client.get_all_jobs() == []
    assert client.get_all_runs() == []
    page = client.list_jobs(limit=2)
    assert [found["jobId"] for found in page] == ["job-4", "job-3"]
    assert [found["jobId"] for found in client.list_jobs(limit=9, after=page.next)] == [
        "job-2",
        "job-1",
        "job-0",
    ]
    (run,) = client.list_runs(job_id="job-3")
    assert (run["startedAt"], run["status"], run["parent"]) == (1003, "completed", None)
    assert run["records"] == {"runSettings": 0, "checkpoints": 1, "events": 1}
    assert [found["jobId"] for found in client.list_runs(status="completed", since=1003, until=1004)] == [
        "job-3"
    ]
    assert client.list_jobs(newest_first=False)[0]["jobId"] == "job-0"
    assert client.list_jobs(expert_key="nobody") == []
    assert [found["jobId"] for found in client.list_jobs(contains="OB-2")] == ["job-2"]
    assert [found["jobId"] for found in client.list_jobs(job_id="job-3")] == ["job-3"]


def test_checkpoints_come_without_their_messages(python_client: Client, job_id: str) -> None:
    python_client.store_checkpoint(checkpoint(job_id, "c"))
    (found,) = python_client.get_checkpoints_by_job_id(job_id, omit=["messages", "usage"])
    assert found == {k: v for k, v in checkpoint(job_id, "c").items() if k not in {"messages", "usage"}}


def test_wrong_arguments_are_errors(python_client: Client, job_id: str) -> None:
    """A string is no list of its characters, and a misspelt name is not passed over."""
    with pytest.raises(TypeError, match="list of strings"):
        python_client.get_event_contents(job_id, "r", types="a")
    with pytest.raises(TypeError, match="ommit"):
        python_client.get_checkpoints_by_job_id(job_id, ommit=["x"])  # type: ignore[call-arg]
    with pytest.raises(Refused) as caught:
        python_client.get_event_contents(job_id, "r", omit=["x"] * 65)
    assert (caught.value.code, caught.value.field) == ("BAD_REQUEST", "omit")
