"""`restore --job` brings a job back as the backup has it, into a new base or another one, and only once."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from perstack_stored.config.settings import Settings
from perstack_stored.journal.writer import Append, JournalWriter
from perstack_stored.offline.backup.restore_jobs import JobsWanted, restore_jobs
from perstack_stored.offline.dump import Wanted, dump
from perstack_stored.offline.findings import Report
from perstack_stored.offline.locked import locked_datadir
from perstack_stored.tree_import import first_start
from tests.helpers import commands
from tests.helpers.daemon import running_daemon
from tests.offline.bases import (
    Call,
    answers,
    checkpoint,
    copy_base,
    event,
    job,
    make_base,
    run,
    setting,
    store,
)

OTHER = "jöb 🚀"


@pytest.fixture(scope="module")
def saved(original: Path) -> Path:
    """Its backup."""
    target = original.parent / "backup"
    assert run("backup", original, str(target)).returncode == 0
    return target


def restored(saved: Path, base: Path, *arguments: str, status: int = 0) -> dict[str, Any]:
    """Restore; returns the counts of the summary, and under "findings" what was named."""
    done = commands.run("restore", "--base-path", str(base), "--json", *arguments, str(saved))
    assert done.returncode == status, done.stdout + done.stderr
    *named, summary = [json.loads(line) for line in done.stdout.splitlines()]
    return {"counts": [summary[name] for name in ("stored", "held", "kept")], "named": named}


def records(base: Path) -> list[dict[str, Any]]:
    with locked_datadir(str(base), "test", reads_only=True) as held:
        return [json.loads(line) for line in dump(held, Wanted(show_secrets=True))]


def answered(base: Path) -> dict[str, Any]:
    """What a daemon says of the base."""
    with running_daemon(base) as daemon:
        found = {name: json.loads(body) for name, body in answers(daemon).items()}
        daemon.stop()
    return found


def of_job(found: dict[str, Any], id: str) -> dict[str, Any]:
    """Answers about one job."""
    listed = {
        "job": [one for one in found["getAllJobs {}"] if one["id"] == id],
        "runs": [one for one in found["getAllRuns {}"] if one["jobId"] == id],
    }
    return listed | {name: body for name, body in found.items() if f"'jobId': '{id}'" in name}


@pytest.mark.parametrize("id", ["j1", OTHER])
def test_a_job_comes_back_into_a_new_base_as_it_was(
    original: Path, saved: Path, tmp_path: Path, id: str
) -> None:
    """All answers about it are equal, also the time of a setting that was stored again. No other is there."""
    base = tmp_path / "base"
    counts = restored(saved, base, "--job", id)["counts"]
    assert counts[0] == len(records(base)) > 2
    assert counts[1:] == ([1, 0] if id == "j1" else [0, 0])  # an event was stored twice
    expected, found = answered(copy_base(original, tmp_path / "copy")), answered(base)
    assert of_job(found, id) == of_job(expected, id)
    assert {one["id"] for one in found["getAllJobs {}"]} == {id}


def test_a_second_run_stores_nothing(original: Path, saved: Path, tmp_path: Path) -> None:
    """Into a new base, into the base of the backup, and after the base was used."""
    base = copy_base(original, tmp_path / "base")
    before = records(base)
    assert restored(saved, base, "--job", "j1", "--force")["counts"][0] == 0
    assert records(base) == before
    new = tmp_path / "new"
    first = restored(saved, new, "--job", "j1", "--job", OTHER)["counts"]
    assert first[0] == len(records(new))
    assert restored(saved, new, "--job", OTHER, "--job", "j1")["counts"] == [0, sum(first), 0]
    with running_daemon(new) as daemon:
        store(daemon.endpoint, [event("new", jobId="j1", timestamp=5)])
        daemon.stop()
    assert restored(saved, new, "--job", "j1")["counts"][0] == 0


def test_what_was_changed_is_kept_and_named_or_replaced_by_force(saved: Path, tmp_path: Path) -> None:
    """A job, a checkpoint and a setting that differ; events that are missing come back beside them."""
    base = tmp_path / "base"
    changed: list[Call] = [
        job(status="stoppedByError"),
        checkpoint("c1", status="stoppedByError"),
        setting(model="another"),
        event("e1"),
    ]
    make_base(base, changed)
    told = restored(saved, base, "--job", "j1", status=1)
    kept = {(one["kind"], one.get("id")) for one in told["named"]}
    assert kept == {("job", None), ("checkpoint", "c1"), ("run_setting", "r1")}
    assert {one["name"] for one in told["named"]} == {"restore_kept"}
    assert told["counts"][2] == 3
    found = answered(base)
    assert of_job(found, "j1")["job"][0]["status"] == "stoppedByError"
    assert found["getAllRuns {}"][0]["model"] == "another"
    assert len(found["getEventContents {'jobId': 'j1', 'runId': 'r1'}"]) == 6
    forced = restored(saved, base, "--job", "j1", "--force")
    assert forced["counts"][0] == 3
    assert {one["name"] for one in forced["named"]} == {"restore_overwritten"}
    found = answered(base)
    assert of_job(found, "j1")["job"][0]["status"] == "completed"
    assert found["getAllRuns {}"][0]["model"] == "m"
    assert restored(saved, base, "--job", "j1", "--force")["counts"][0] == 0


def test_a_value_that_the_base_has_replaced_is_named_too(original: Path, saved: Path, tmp_path: Path) -> None:
    """The base of the backup itself, in which somebody's mistake came later: --force undoes it."""
    base = copy_base(original, tmp_path / "base")
    with running_daemon(base) as daemon:
        store(daemon.endpoint, [job(status="stoppedByError")])
        daemon.stop()
    told = restored(saved, base, "--job", "j1", status=1)
    assert [(one["name"], one["kind"]) for one in told["named"]] == [("restore_kept", "job")]
    assert restored(saved, base, "--job", "j1", "--force")["counts"][0] == 1
    assert of_job(answered(base), "j1")["job"][0]["status"] == "completed"


def test_a_job_comes_back_as_it_was_at_a_position(saved: Path, tmp_path: Path) -> None:
    """Position 2 is the first version of the job, position 3 its first event."""
    base = tmp_path / "base"
    assert restored(saved, base, "--job", "j1", "--to-position", "3")["counts"] == [3, 0, 0]
    found = answered(base)
    assert [one["status"] for one in of_job(found, "j1")["job"]] == ["running"]
    assert len(found["getEventContents {'jobId': 'j1', 'runId': 'r1'}"]) == 1


def test_what_can_not_be_restored_is_refused_and_changes_nothing(
    original: Path, saved: Path, tmp_path: Path
) -> None:
    """A job that is not in the backup, or not yet; a damaged backup; a served base; --force alone."""
    base = tmp_path / "base"
    for arguments in (["--job", "no such job"], ["--job", OTHER, "--to-position", "5"]):
        done = run("restore", base, *arguments, str(saved))
        assert done.returncode == 2
        assert "holds nothing of the job" in done.stderr
    bad = tmp_path / "bad"
    shutil.copytree(saved, bad)
    segment = min(bad.glob("*.segment"))
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    done = run("restore", base, "--job", "j1", str(bad))
    assert (done.returncode, "backup is damaged" in done.stderr) == (2, True)
    assert run("restore", base, "--force", str(saved)).returncode == 2
    assert not base.exists()
    with running_daemon(copy_base(original, tmp_path / "served")) as daemon:
        done = run("restore", daemon.base, "--job", "j1", str(saved))
    assert (done.returncode, "held by the daemon" in done.stderr) == (2, True)


def ends_after(appends: int, saved: Path, base: Path) -> bool:
    """Restore in a process that dies before a later write to the journal; whether it did."""
    pid = os.fork()
    if not pid:
        try:
            left = [appends]
            real = JournalWriter.append

            def append(self: JournalWriter, batches: Sequence[Append]) -> object:
                left[0] -= 1
                if left[0] < 0:
                    os._exit(9)
                return real(self, batches)

            patch = pytest.MonkeyPatch()  # of this process only
            patch.setattr(first_start, "BATCH_RECORDS_MAX", 2)
            patch.setattr(JournalWriter, "append", append)
            wanted = JobsWanted(frozenset({"j1"}), None, force=False)
            restore_jobs(str(saved), str(base), wanted, Settings(), Report(lambda _finding: None))
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in {0, 9}
    return status == 9


def test_a_restore_that_was_killed_goes_on(saved: Path, tmp_path: Path) -> None:
    """After each of its writes; in the end the base is that of one run."""
    whole = tmp_path / "whole"
    stored = restored(saved, whole, "--job", "j1")["counts"][0]
    deaths = 0
    while ends_after(deaths, saved, tmp_path / str(deaths)):
        base = tmp_path / str(deaths)
        before = len(records(base))
        assert before == 2 * deaths
        assert restored(saved, base, "--job", "j1")["counts"][0] == stored - before
        assert [one["value"] for one in records(base)] == [one["value"] for one in records(whole)]
        deaths += 1
    assert deaths == -(-stored // 2) > 3


def test_the_other_ways_to_say_it(saved: Path, tmp_path: Path) -> None:
    """Lines for people end with counts."""
    done = run("restore", tmp_path / "base", "--job", "j1", str(saved))
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].startswith("clean; of the jobs: ")
