"""Retention of a real daemon: it says first what goes, then deletes it, and spares what goes on."""

import json
from pathlib import Path
from typing import Any

from perstack_storage import Client
from tests.client.behaviour.values import event
from tests.helpers import commands
from tests.helpers.daemon import eventually, running_daemon
from tests.offline.bases import USAGE

SETTINGS = ("--retain-jobs", "2", "--retain-sweep-seconds", "1")


def ended(name: str) -> dict[str, Any]:
    return {
        "id": name, "status": "completed", "coordinatorExpertKey": "x", "totalSteps": 1, "startedAt": 1,
        "usage": USAGE,
    }  # fmt: skip


def store(client: Client, name: str) -> None:
    for n in range(5):
        client.store_event(event(name, n))
    client.store_job(ended(name))


def dry_run(base: Path, *settings: str) -> list[Any]:
    """What the command says."""
    done = commands.run("retention", "--dry-run", "--json", "--base-path", str(base), *settings)
    assert done.returncode == 0
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_oldest_jobs_go_and_their_files_with_them(tmp_path: Path) -> None:
    """The dry run tells beside the daemon; a subscriber hears why; nothing else changes."""
    with running_daemon(tmp_path / "base") as daemon:
        with Client(daemon.endpoint) as client:
            for n in range(5):
                store(client, f"job-{n}")
            eventually(lambda: client.stats()["index"]["position"] == 30, "indexed")
        assert [one["job"] for one in dry_run(daemon.base, "--retain-jobs", "2")] == [
            "job-0",
            "job-1",
            "job-2",
        ]
        assert daemon.stop() == 0
    with running_daemon(tmp_path / "base", *SETTINGS) as daemon, Client(daemon.endpoint) as client:
        eventually(lambda: client.stats()["retention"]["deleted"] == 3, "deleted")
        assert [job["id"] for job in client.get_all_jobs()] == ["job-3", "job-4"]
        assert [(one["jobId"], one["why"]) for one in client.deletions()] == [
            ("job-0", "jobs"), ("job-1", "jobs"), ("job-2", "jobs")
        ]  # fmt: skip
        jobs = daemon.base / "jobs"
        eventually(lambda: sorted(path.name for path in jobs.iterdir()) == ["job-3", "job-4"], "removed")
        assert len(client.get_event_contents("job-3", "r")) == 5
        assert client.stats()["retention"]["fault"] == ""
        assert dry_run(daemon.base, "--retain-jobs", "2") == []
        assert daemon.events("retention_planned")[0]["jobs"] == 3
        assert [one["job"] for one in daemon.events("job_retired")] == ["job-0", "job-1", "job-2"]


def test_without_a_setting_nothing_is_deleted(tmp_path: Path) -> None:
    with (
        running_daemon(tmp_path / "base", "--retain-sweep-seconds", "1") as daemon,
        Client(daemon.endpoint) as client,
    ):
        for n in range(3):
            store(client, f"job-{n}")
        said: dict[str, Any] = {**client.stats()["retention"]}
        assert said.pop("timeMs") > 1_700_000_000_000
        assert said == {"sweeps": 0, "deleted": 0, "candidates": 0, "candidateBytes": 0, "fault": ""}
        assert len(client.get_all_jobs()) == 3


def test_a_new_base_has_no_fault(tmp_path: Path) -> None:
    """A sweep waits for the index, which is made at the first start."""
    with (
        running_daemon(tmp_path / "base", *SETTINGS) as daemon,
        Client(daemon.endpoint) as client,
    ):
        eventually(lambda: client.stats()["retention"]["sweeps"] > 0, "a sweep")
        assert client.stats()["retention"]["fault"] == ""
        assert not daemon.events("retention_failed")
