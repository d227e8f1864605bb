"""The offline tools know deletions: what is deleted stays so, and nothing else is lost."""

import json
from pathlib import Path
from typing import Any

import pytest

from perstack_storage import Client
from tests.helpers import commands
from tests.helpers.daemon import running_daemon
from tests.helpers.once import made_once
from tests.offline.bases import (
    SMALL_SEGMENTS,
    Call,
    Checked,
    as_call,
    change_index,
    copy_base,
    event,
    job,
    make_base,
    one_of_each,
    run,
    segments,
    setting,
    store,
)
from tests.offline.damages import flip


def delete(job_id: str, run_id: str | None = None) -> Call:
    if run_id is None:
        return as_call("deleteJob", {"jobId": job_id})
    return as_call("deleteRun", {"jobId": job_id, "runId": run_id})


AGAIN = [job("j1", status="again"), event("again")]


@pytest.fixture(scope="module")
def deleted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty records, the deletion of a run and of a job, and that job again; never changed."""
    calls = [*one_of_each(), delete("jöb 🚀", "rün"), delete("j1"), *AGAIN]
    made = made_once(tmp_path_factory, "deleted", lambda folder: make_base(folder / "base", calls))
    return copy_base(made / "base", tmp_path_factory.mktemp("deleted") / "base")


@pytest.fixture
def base(deleted: Path, tmp_path: Path) -> Path:
    return copy_base(deleted, tmp_path / "base")


def shown(base: Path) -> list[Any]:
    """What a daemon shows of all jobs, runs and events, and its tree."""
    with running_daemon(base, *SMALL_SEGMENTS) as daemon, Client(daemon.endpoint) as client:
        jobs = [dict(found) for found in client.get_all_jobs()]
        events = [
            [dict(one) for one in client.get_event_contents(run["jobId"], run["runId"])]
            for run in client.list_runs(newest_first=False)
        ]
        assert daemon.stop() == 0
    tree = sorted(str(path.relative_to(base)) for path in (base / "jobs").rglob("*") if path.is_file())
    return [jobs, sorted(events, key=repr), tree]


def test_check_finds_nothing_wrong(base: Path) -> None:
    """Index and tree are as a fresh index says; nothing of the job is foreign."""
    checked = Checked(base)
    assert (checked.status, checked.names) == (0, set())
    assert not list((base / "jobs/j1").rglob("checkpoints/*"))
    assert [path.name for path in (base / "jobs/j1/runs/r1").iterdir()] == [
        "event-1700000000001-0-startRun.json"
    ]


def test_files_of_a_deletion_that_the_tree_has_not_reached_are_not_foreign(base: Path) -> None:
    """The next start removes them."""
    with running_daemon(base, *SMALL_SEGMENTS) as daemon:
        store(daemon.endpoint, [delete("events only")])
        daemon.kill()
    assert "tree_foreign_file" not in Checked(base).names


def test_a_rebuild_does_not_bring_it_back(base: Path) -> None:
    """Of index and tree, from the journal alone."""
    before = shown(base)
    assert run("rebuild", base, "--tree", "--index").returncode == 0
    assert shown(base) == before


def test_a_dump_leaves_out_what_was_deleted(base: Path) -> None:
    """The deletions are in it; with --deletions nothing else."""
    records = [json.loads(line) for line in run("dump", base).stdout.split("\n")[:-1]]
    assert {"deleteRun", "deleteJob"} <= {record["op"] for record in records}
    values = [record for record in records if not record["op"].startswith("delete")]
    assert all("rün" not in json.dumps(record, ensure_ascii=False) for record in values)
    of_job = [r["position"] for r in values if "j1" in {r["value"].get("jobId"), r["value"]["id"]}]
    assert of_job == [23, 24]
    listed = [json.loads(line) for line in run("dump", base, "--deletions").stdout.splitlines()]
    assert [(one["position"], one["jobId"], one.get("runId")) for one in listed] == [
        (21, "jöb 🚀", "rün"), (22, "j1", None)
    ]  # fmt: skip


def test_a_restore_from_before_deletes_it_again(tmp_path: Path) -> None:
    """With the list of the base; without it, it comes back. What the backup knows is not deleted twice."""
    base, saved, listed = tmp_path / "base", tmp_path / "saved", tmp_path / "list"
    make_base(base, [*one_of_each(), delete("events only"), *AGAIN])
    assert run("backup", base, str(saved)).returncode == 0
    with running_daemon(base, *SMALL_SEGMENTS) as daemon:
        store(daemon.endpoint, [delete("j1"), delete("spaced")])
        assert daemon.stop() == 0
    listed.write_text(run("dump", base, "--deletions").stdout)
    assert len(listed.read_text().splitlines()) == 3
    for name, more in (("without", []), ("with", ["--deletions", str(listed)])):
        done = commands.run("restore", "--base-path", str(tmp_path / name), "--json", *more, str(saved))
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["position"] == 23 + 2 * bool(more)
    jobs, _, tree = shown(tmp_path / "with")
    assert [found["id"] for found in jobs] == ["jöb 🚀"]
    assert not any("jobs/j1/" in path or "jobs/spaced/" in path for path in tree)
    jobs, _, _ = shown(tmp_path / "without")
    assert sorted(found["id"] for found in jobs) == ["j1", "jöb 🚀", "spaced"]
    assert Checked(tmp_path / "with").names == set()


def test_a_restore_from_before_redacts_it_again(tmp_path: Path) -> None:
    """Secrets don't come back; a setting that the backup lacks does not come with its redaction."""
    base, saved, listed = tmp_path / "base", tmp_path / "saved", tmp_path / "list"

    def with_key(run_id: str, key: str, pad: str = "") -> dict[str, Any]:
        value: dict[str, Any] = json.loads(setting(jobId="j1", runId=run_id)[1])
        return {**value, "providerConfig": {"apiKey": key}, "query": f"word-of-{run_id}", "pad": pad}

    large = "x" * (3 << 19)  # an entry that is read in pieces
    settings = (with_key("a", "sk-first", large), with_key("b", "sk-first"), with_key("gone", "sk-first"))
    make_base(base, [job("j1"), *(as_call("storeRunSetting", one) for one in settings)])
    assert run("backup", base, str(saved)).returncode == 0
    with running_daemon(base, *SMALL_SEGMENTS) as daemon:
        with Client(daemon.endpoint) as client:
            client.redact_run_setting(with_key("a", "sk-between"))
            client.redact_run_setting(with_key("a", "sk-left"))
            client.redact_run_setting(with_key("gone", "sk-gone"))
            client.delete_run("j1", "gone")
            client.store_run_setting(with_key("late", "sk-late"))
            client.redact_run_setting(with_key("late", "sk-late-too"))
        assert daemon.stop() == 0
    masked = run("dump", base, "--deletions").stdout
    assert ("sk-" in masked, len(masked.splitlines())) == (False, 3)
    listed.write_text(run("dump", base, "--deletions", "--show-secrets").stdout)
    assert [json.loads(line)["runId"] for line in listed.read_text().splitlines()] == ["a", "gone", "late"]
    new = tmp_path / "new"
    done = commands.run("restore", "--base-path", str(new), "--deletions", str(listed), str(saved))
    assert done.returncode == 0, done.stderr
    with running_daemon(new, *SMALL_SEGMENTS) as daemon, Client(daemon.endpoint) as client:
        found = {one["runId"]: one["providerConfig"]["apiKey"] for one in client.get_all_runs()}
        assert found == {"a": "sk-left", "b": "sk-first"}
        assert daemon.stop() == 0
    assert Checked(new).names == set()


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "[]",
        '{"jobId":"j"}',
        '{"position":0,"jobId":"j"}',
        '{"position":1,"jobId":"../j"}',
        '{"position":1,"jobId":"j","runId":"r","setting":{}}',
    ],
)
def test_a_wrong_list_restores_nothing(base: Path, tmp_path: Path, line: str) -> None:
    """It names the line."""
    assert run("backup", base, str(tmp_path / "saved")).returncode == 0
    (tmp_path / "list").write_text(line + "\n")
    done = commands.run(
        "restore", "--base-path", str(tmp_path / "new"), "--deletions", str(tmp_path / "list"),
        str(tmp_path / "saved"),
    )  # fmt: skip
    assert (done.returncode, "line 1" in done.stderr) == (2, True)
    assert not (tmp_path / "new/.stored").exists()


def test_a_job_is_restored_from_before_its_deletion(tmp_path: Path) -> None:
    """That is a new store: it is asked for by name."""
    base, saved = tmp_path / "base", tmp_path / "saved"
    make_base(base, one_of_each())
    assert run("backup", base, str(saved)).returncode == 0
    before = shown(base)
    with running_daemon(base, *SMALL_SEGMENTS) as daemon:
        store(daemon.endpoint, [delete("j1")])
        assert daemon.stop() == 0
    assert "j1" not in {found["id"] for found in shown(base)[0]}
    done = commands.run("restore", "--base-path", str(base), "--job", "j1", str(saved))
    assert done.returncode == 0, done.stderr
    after = shown(base)
    assert after[0] == before[0]
    assert after[2] == before[2]


def test_a_backup_holds_nothing_of_a_job_that_is_deleted_in_it(base: Path, tmp_path: Path) -> None:
    """Only what was stored after the deletion is restored."""
    saved = tmp_path / "saved"
    assert run("backup", base, str(saved)).returncode == 0
    new = tmp_path / "new"
    done = commands.run("restore", "--base-path", str(new), "--job", "j1", str(saved))
    assert done.returncode == 0, done.stderr
    jobs, events, _ = shown(new)
    assert [found["status"] for found in jobs] == ["again"]
    assert [[one["id"] for one in run] for run in events] == [["again"]]


def test_a_repair_takes_a_lost_deletion_back_from_the_index(base: Path) -> None:
    """Else what was deleted would come back with the damage."""
    path = next(path for path in segments(base) if b'{"jobId": "j1"}' in path.read_bytes())
    flip(path, path.read_bytes().index(b'{"jobId": "j1"}') + 2)
    done = run("repair", base)
    assert done.returncode == 0, done.stdout + done.stderr
    with running_daemon(base, *SMALL_SEGMENTS) as daemon, Client(daemon.endpoint) as client:
        assert [one["jobId"] for one in client.deletions()] == ["jöb 🚀", "j1"]
        assert [one["id"] for one in client.get_event_contents("j1", "r1")] == ["again"]
        assert client.get_checkpoints_by_job_id("j1") == []
        assert daemon.stop() == 0


def test_a_record_that_counts_as_erased_and_is_there_is_damage(base: Path) -> None:
    """It is named by segment and position."""
    change_index(base, "UPDATE deletion SET erased = 1")
    checked = Checked(base)
    assert checked.names == {"journal_not_erased"}
    assert all(found["position"] > 0 and found["segment"] for found in checked.findings)
