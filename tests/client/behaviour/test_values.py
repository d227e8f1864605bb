"""What is stored comes back: every kind, every order, bad values, hostile ids, large ones."""

from typing import Any

import pytest

from perstack_storage import CheckpointNotFound, Client, Refused
from tests.client.behaviour.conftest import OpenClient
from tests.client.behaviour.values import checkpoint, event, job, setting
from tests.helpers.daemon import RunningDaemon


def test_a_job_is_read_as_it_was_stored_last(client: Client, job_id: str) -> None:
    assert client.retrieve_job(job_id) is None
    client.store_job(job(job_id))
    completed = job(job_id) | {
        "status": "completed",
        "unknown": {"": "\ud800", "n": 1e300, "ä": [None, "🙂"]},
    }
    client.store_job(completed)
    assert client.retrieve_job(job_id) == completed


def test_an_integer_of_any_length_is_kept(python_client: Client, job_id: str) -> None:
    python_client.store_job(job(job_id) | {"n": 10**30})
    assert python_client.retrieve_job(job_id) == job(job_id) | {"n": 10**30}


def test_jobs_come_newest_first_and_in_pages(
    daemon: RunningDaemon, open_client: OpenClient, job_id: str
) -> None:
    client = open_client(daemon)
    for name, started_at in (("b", 9e14), ("a", 9e14), ("c", 9.1e14)):
        client.store_job(job(f"{job_id}-{name}", started_at))
    page = client.get_all_jobs(limit=2)
    assert [found["id"] for found in page] == [f"{job_id}-c", f"{job_id}-a"]
    assert client.get_all_jobs(limit=1, after=page.next)[0]["id"] == f"{job_id}-b"


def test_runs_come_newest_first(daemon: RunningDaemon, open_client: OpenClient, job_id: str) -> None:
    client = open_client(daemon)
    for run, updated_at in (("b", 2000), ("a", 2000), ("old", 1000.5), ("new", 3000)):
        client.store_run_setting(setting(job_id, run, updated_at))
    assert [found["runId"] for found in client.get_all_runs()] == ["new", "a", "b", "old"]


def test_checkpoints_come_by_step_and_ties_as_stored(client: Client, job_id: str) -> None:
    for name, step in (("z", 2), ("y", 1), ("x", 2)):
        client.store_checkpoint(checkpoint(job_id, name, step))
    assert [found["id"] for found in client.get_checkpoints_by_job_id(job_id)] == ["y", "z", "x"]
    assert client.retrieve_checkpoint(job_id, "x") == checkpoint(job_id, "x", 2)
    with pytest.raises(CheckpointNotFound, match="checkpoint not found: w"):
        client.retrieve_checkpoint(job_id, "w")


def test_events_come_by_time_and_ties_as_stored(client: Client, job_id: str) -> None:
    numbers = [3, 1, 2, 0]
    for number in numbers:
        client.store_event(event(job_id, number))
    client.store_event(event(job_id, 9, timestamp=1.5, stepNumber=7))
    assert [dict(found)["n"] for found in client.get_event_contents(job_id, "r")] == [9, *numbers]
    assert [dict(found)["n"] for found in client.get_event_contents(job_id, "r", max_step=6)] == numbers
    steps = client.get_events_by_run(job_id, "r")
    assert [found["stepNumber"] for found in steps] == [1, 1, 1, 1, 7]
    assert client.get_event_contents(job_id, "another") == []


def test_a_run_setting_is_kept_and_comes_with_what_it_lacks(client: Client, job_id: str) -> None:
    client.store_run_setting(setting(job_id))
    client.store_run_setting(setting(job_id) | {"model": "another"})
    (found,) = [found for found in client.get_all_runs() if found["jobId"] == job_id]
    completed = setting(job_id) | {"reasoningBudget": "low", "maxSteps": 100}
    assert found["updatedAt"] > 1000
    assert found == completed | {"updatedAt": found["updatedAt"]}


def test_every_record_is_read_by_position(client: Client, job_id: str) -> None:
    first = client.store_job_nowait(job(job_id)).result(60)
    last = client.store_event_nowait(event(job_id, 1)).result(60)
    records = client.read_all(after=first - 1, limit=2)
    assert [(record["position"], record["op"]) for record in records] == [
        (first, "storeJob"),
        (last, "storeEvent"),
    ]
    assert records.next == last
    assert [r["position"] for r in client.follow(first - 1, job_id=job_id, idle_s=0)] == [first, last]


def test_the_daemon_says_who_it_is(client: Client) -> None:
    assert client.hello()["server"] == "perstack-stored"
    assert client.stats()["position"] >= 0
    assert 0 < client.ping() < 5


def store_changing(client: Client, value: dict[str, Any], count: int) -> None:
    """Stores that many without awaiting, and changes the value after each call."""
    if hasattr(client, "store_changing"):  # in the Node process, at the calls
        client.store_changing(value, count)
        return
    for number in range(count):
        value["n"] = number
        value["id"] = f"e{number}"
        client.store_event_nowait(value)
    value["n"] = -1
    client.flush()


def test_the_value_at_the_call_is_stored(client: Client, job_id: str) -> None:
    store_changing(client, event(job_id, 0), 100)
    assert [dict(found)["n"] for found in client.get_event_contents(job_id, "r")] == list(range(100))


@pytest.mark.parametrize(
    ("broken", "field"),
    [
        ({"stepNumber": -1}, "stepNumber"),
        ({"timestamp": "now"}, "timestamp"),
        ({"runId": ""}, "runId"),
        ({"type": "a.b"}, "type"),
        ({"id": "a/b"}, "id"),
        ({"jobId": "../../x"}, "jobId"),
        ({"runId": ".."}, "runId"),
        ({"jobId": "x" * 201}, "jobId"),
        ({"runId": "a\nb"}, "runId"),
        ({"jobId": "a\0b"}, "jobId"),
    ],
)
def test_a_bad_value_is_refused_by_name_and_the_next_one_is_stored(
    client: Client, job_id: str, broken: dict[str, Any], field: str
) -> None:
    with pytest.raises(Refused) as caught:
        client.store_event(event(job_id, 1, **broken))
    assert (caught.value.code, caught.value.field, caught.value.retryable) == ("BAD_VALUE", field, False)
    client.store_event(event(job_id, 2))
    assert [dict(found)["n"] for found in client.get_event_contents(job_id, "r")] == [2]


def test_what_json_has_no_form_for_is_an_error_of_the_call(python_client: Client, job_id: str) -> None:
    with pytest.raises(TypeError, match="bad"):
        python_client.store_event(event(job_id, 1, bad=object()))
    python_client.store_event(event(job_id, 2))
    assert len(python_client.get_event_contents(job_id, "r")) == 1


HOSTILE_IDS = [
    "",
    ".",
    "..",
    "a/b",
    "a\\b",
    "../../x",
    "a\0b",
    "a\nb",
    "\x7f",
    "\x85",
    "\ud800",
    "x" * 201,
    "ä" * 101,
]


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("job", "id"),
        ("checkpoint", "id"),
        ("checkpoint", "jobId"),
        ("checkpoint", "runId"),
        ("run_setting", "jobId"),
        ("run_setting", "runId"),
        ("event", "id"),
        ("event", "runId"),
    ],
)
def test_hostile_ids_are_refused_in_every_kind(client: Client, job_id: str, kind: str, field: str) -> None:
    make: dict[str, Any] = {
        "job": job(job_id),
        "checkpoint": checkpoint(job_id, "c"),
        "run_setting": setting(job_id),
        "event": event(job_id, 1),
    }
    store = getattr(client, f"store_{kind}")
    for name in HOSTILE_IDS:
        with pytest.raises(Refused) as caught:
            store(make[kind] | {field: name})
        assert (caught.value.code, caught.value.field) == ("BAD_VALUE", field), repr(name)
    assert client.retrieve_job(job_id) is None
    assert client.get_checkpoints_by_job_id(job_id) == []
    store(make[kind])


@pytest.mark.parametrize("name", HOSTILE_IDS)
def test_hostile_ids_find_nothing(client: Client, name: str) -> None:
    for call, field in (
        (lambda: client.retrieve_job(name), "jobId"),
        (lambda: client.retrieve_checkpoint("j", name), "checkpointId"),
        (lambda: client.get_checkpoints_by_job_id(name), "jobId"),
        (lambda: client.get_events_by_run("j", name), "runId"),
        (lambda: client.get_event_contents(name, "r"), "jobId"),
    ):
        with pytest.raises(Refused) as caught:
            call()
        # Arguments with a lone surrogate are no JSON to the daemon.
        assert caught.value.code == "BAD_REQUEST"
        assert caught.value.field == (None if name == "\ud800" else field)


@pytest.mark.parametrize("name", ["a b", "ä🙂", "a'b\"c", "x" * 200, "%2e%2e", "-rf", "job.json"])
def test_strange_ids_are_ids(client: Client, job_id: str, name: str) -> None:
    client.store_event(event(job_id, 1, runId=name))
    assert [found["runId"] for found in client.get_event_contents(job_id, name)] == [name]


def test_an_event_of_40_mib_and_an_answer_of_80_mib_travel_in_parts(
    shared_daemon: RunningDaemon, open_client: OpenClient, job_id: str
) -> None:
    client = open_client(shared_daemon, timeout_s=100)
    first, second = (event(job_id, number, text=f"{number}" * 41_943_040) for number in (1, 2))
    small = event(job_id, 3)
    for value in (first, small, second):
        client.store_event_nowait(value)
    client.flush()
    assert [dict(found) for found in client.get_event_contents(job_id, "r")] == [first, small, second]


def test_a_large_listing_comes_whole_and_in_order(client: Client, job_id: str) -> None:
    text = "x" * 20_000
    for number in range(500):
        client.store_event_nowait(event(job_id, number, text=text))
    client.flush()
    assert [dict(found)["n"] for found in client.get_event_contents(job_id, "r")] == list(range(500))


def test_repeats_are_kept_once_and_other_bytes_under_the_same_id_beside_them(
    client: Client, job_id: str
) -> None:
    client.store_event(event(job_id, 1))
    client.store_event(event(job_id, 1))
    client.store_event(event(job_id, 1, more=True))
    contents = [dict(found) for found in client.get_event_contents(job_id, "r")]
    assert contents == [event(job_id, 1), event(job_id, 1, more=True)]
