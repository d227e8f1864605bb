"""Deletions through all clients: in the order of the stores, and seen by everybody."""

import pytest

from perstack_storage import Client, Refused
from tests.client.behaviour.conftest import OpenClient
from tests.client.behaviour.values import checkpoint, event, setting
from tests.helpers.daemon import RunningDaemon


def test_a_deleted_job_is_gone_for_everybody(
    shared_daemon: RunningDaemon, open_client: OpenClient, job_id: str
) -> None:
    """Its own stores before it count; late ones are refused, and a new session begins a new job."""
    client, other = open_client(shared_daemon), open_client(shared_daemon)
    for n in range(20):
        client.store_event_nowait(event(job_id, n))
    position = client.delete_job(job_id)
    assert other.get_event_contents(job_id, "r") == []
    with pytest.raises(Refused) as caught:
        client.store_event(event(job_id, 20))
    assert (caught.value.code, caught.value.field) == ("DELETED", "jobId")
    assert other.get_event_contents(job_id, "r") == []
    later = open_client(shared_daemon)
    later.store_event(event(job_id, 21))
    assert [dict(found)["n"] for found in other.get_event_contents(job_id, "r")] == [21]
    assert [one["op"] for one in other.follow(position - 1, job_id=job_id, idle_s=0)] == [
        "deleteJob", "storeEvent"
    ]  # fmt: skip


def test_a_deleted_run_leaves_the_others(client: Client, job_id: str) -> None:
    client.store_event(event(job_id, 1))
    client.store_event(event(job_id, 2) | {"runId": "other"})
    client.store_checkpoint(checkpoint(job_id, "c"))
    size = client.size_of(job_id, "r")
    assert (size["jobs"], size["runs"], size["checkpoints"], size["events"]) == (0, 1, 1, 1)
    assert client.size_of(job_id)["events"] == 2
    assert client.size_of(job_id)["bytes"] > size["bytes"] > 0
    position = client.delete_run(job_id, "r")
    assert set(client.size_of(job_id, "r").values()) == {0}
    assert client.get_event_contents(job_id, "r") == []
    assert client.get_checkpoints_by_job_id(job_id) == []
    assert len(client.get_event_contents(job_id, "other")) == 1
    (found,) = client.deletions(position - 1, limit=1)
    assert (found["position"], found["jobId"], found["runId"]) == (position, job_id, "r")
    assert (found["why"], found["erased"]) == ("asked", False)


def test_the_reason_is_kept(client: Client, job_id: str) -> None:
    """Of a job that was never there, too."""
    position = client.delete_job(job_id, "a user asked for it")
    (found,) = client.deletions(position - 1, limit=1)
    assert (found["why"], found.get("runId")) == ("a user asked for it", None)


def test_a_refused_deletion_takes_no_other_store_along(client: Client, job_id: str) -> None:
    """It goes alone, whatever else is on its way."""
    stored = [client.store_event_nowait(event(job_id, n)) for n in range(3)]
    with pytest.raises(Refused) as caught:
        client.delete_job("no/job")
    assert (caught.value.code, caught.value.field) == ("BAD_VALUE", "jobId")
    stored += [client.store_event_nowait(event(job_id, n)) for n in range(3, 6)]
    client.flush()
    assert all(future.result(60) for future in stored)
    assert len(client.get_event_contents(job_id, "r")) == 6


def test_a_setting_is_redacted(client: Client, job_id: str) -> None:
    """What was stored before is in no read any more; the run stays."""
    client.store_event(event(job_id, 1))
    client.store_run_setting(setting(job_id) | {"env": {"KEY": "secret"}})
    position = client.redact_run_setting(setting(job_id) | {"env": {"KEY": "***"}})
    (found,) = [one for one in client.get_all_runs() if one["jobId"] == job_id]
    assert found["env"] == {"KEY": "***"}
    assert len(client.get_event_contents(job_id, "r")) == 1
    records = client.follow(0, job_id=job_id, idle_s=0)
    assert [one["op"] for one in records] == ["storeEvent", "redactRunSetting"]
    (listed,) = client.deletions(position - 1, limit=1)
    assert (listed["position"], listed["settingOnly"]) == (position, True)
