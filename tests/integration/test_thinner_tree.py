"""A tree that leaves files out: whatever happens, checks agree with each change, and reads notice nothing."""

import json
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from perstack_storage import Client
from perstack_stored.model.kinds import Kind
from tests.helpers import commands
from tests.helpers.daemon import RunningDaemon, eventually, files_of, running_daemon
from tests.helpers.datadir import Base
from tests.helpers.replay import METHODS, calls_of, tree_is_complete

CALLS = calls_of("a", "job")
DELTAS = ("streamReasoning", "streamRunResult")


def replay(daemon: RunningDaemon, job: str) -> list[dict[str, Any]]:
    """Store a captured run under a job; its events."""
    calls = calls_of("a", job)
    with Client(daemon.endpoint) as client, client.pipeline() as pipeline:
        for op, value in calls:
            getattr(pipeline, METHODS[op])(value)
    return [value for op, value in calls if op == "storeEvent"]


def flags(types: tuple[str, ...]) -> list[str]:
    return [word for type in types for word in ("--tree-leave-out", type)]


def file_names(records: list[Any]) -> dict[int, tuple[str, str]]:
    """Path and type of the file of each event, by its position."""
    names: dict[int, tuple[str, str]] = {}
    taken = set()
    for record in records:
        if record["op"] != "storeEvent":
            continue
        event = record["value"]
        folder = f"jobs/{event['jobId']}/runs/{event['runId']}"
        plain = f"{folder}/event-{event['timestamp']}-{event['stepNumber']}-{event['type']}"
        n, path = 1, f"{plain}.json"
        while path in taken:
            n += 1
            path = f"{plain}.n{n:04d}.json"
        taken.add(path)
        names[record["position"]] = (path, event["type"])
    return names


def everything(client: Client) -> list[Any]:
    records: list[Any] = []
    while page := client.read_all(after=records[-1]["position"] if records else 0, limit=5000):
        records += page
    return records


def cursor_position(base: Path) -> int:
    return int.from_bytes((base / ".stored/tree.cursor").read_bytes()[24:32], "little")


def as_upstream_reads(base: Path, job: str) -> list[tuple[int, int, str]]:
    """Time, step and type of a job's events as Perstack's own tools take them from the names of the files."""
    names = [path.name.split(".")[0].split("-") for path in (base / "jobs" / job).glob("runs/*/event-*.json")]
    return sorted((int(name[1]), int(name[2]), name[3]) for name in names)


def test_changes_of_the_setting_through_kills(tmp_path: Path) -> None:
    """Changed thrice, killed in between, index and tree rebuilt: `check` and `audit` find nothing."""
    base = tmp_path / "base"
    settings = ((), DELTAS, DELTAS[:1], ())
    sent: dict[str, list[dict[str, Any]]] = {}
    for number, types in enumerate(settings):
        with running_daemon(base, *flags(types)) as daemon:
            with Client(daemon.endpoint) as client:
                eventually(lambda: tree_is_complete(client), "complete")
            sent[f"job-{number}"] = replay(daemon, f"job-{number}")
            if number < len(settings) - 1:  # later changes count from here
                synced = len(sent) * len(CALLS)
                eventually(lambda: cursor_position(base) == synced, "synced")  # noqa: B023 - not later
            daemon.kill()
    changes = [(one["after_position"], tuple(one["types"])) for one in daemon.events("tree_leaves_out")]
    assert changes == [(number * len(CALLS), types) for number, types in enumerate(settings) if number]

    with running_daemon(base) as daemon, Client(daemon.endpoint) as client:
        eventually(lambda: tree_is_complete(client), "complete")
        records = everything(client)
        for job, events in sent.items():
            runs = {event["runId"] for event in events}
            read = [event for run in runs for event in client.get_event_contents(job, run)]
            assert len(read) == len(events)
        assert daemon.stop() == 0

    def is_wanted(position: int, type: str) -> bool:
        before = [types for after, types in changes if after < position]
        return not before or type not in before[-1]

    names = file_names(records)
    wanted = {path for position, (path, type) in names.items() if is_wanted(position, type)}
    assert {path for path in files_of(base) if "/event-" in path} == wanted
    assert len(names) - len(wanted) > 50
    assert as_upstream_reads(base, "job-0") == sorted(
        (event["timestamp"], event["stepNumber"], event["type"]) for event in sent["job-0"]
    )
    assert_clean(base)

    (base / ".stored/index.sqlite").unlink()
    shutil.rmtree(base / "jobs")
    done = commands.run("rebuild", "--base-path", str(base))
    assert done.returncode == 0, done.stderr
    assert {path for path in files_of(base) if "/event-" in path} == wanted
    assert_clean(base)


def assert_clean(base: Path, left_out: int = 51) -> None:
    """`check` and `audit` find nothing; at least this number of files need not be there."""
    checked = commands.run("check", "--json", "--base-path", str(base))
    assert checked.returncode == 0, checked.stdout
    assert json.loads(checked.stdout.splitlines()[-1]).get("left_out", 0) >= left_out
    audited = commands.run("audit", str(base))
    assert audited.returncode == 0, audited.stdout


def store_long_ago(base: Path, jobs: list[str]) -> None:
    """Make a base whose records were stored forty days ago."""
    made = Base(base)
    long_ago = time.time_ns() // 1_000_000 - 40 * 86_400_000
    made.journal.clock = SimpleNamespace(now_ms=lambda: long_ago, latest_ms=long_ago)  # type: ignore[assignment]
    kinds = {"storeJob": Kind.JOB, "storeCheckpoint": Kind.CHECKPOINT, "storeEvent": Kind.EVENT}
    for job in jobs:
        made.store(*[(kinds[op], value) for op, value in calls_of("a", job)])
    made.journal.close()


def test_old_jobs_leave_the_tree_and_nothing_else(tmp_path: Path) -> None:
    """Beside a real daemon that is killed meanwhile: reads, checks and the command agree with it."""
    base = tmp_path / "base"
    store_long_ago(base, ["old-1", "old-2", "old-3"])
    with running_daemon(base) as daemon, Client(daemon.endpoint) as client:
        replay(daemon, "new")
        eventually(lambda: tree_is_complete(client), "complete")
        answers = everything(client)
        assert daemon.stop() == 0
    whole = files_of(base)
    folders = base / "jobs"

    with running_daemon(base, "--tree-keep-days", "30") as daemon:
        eventually(lambda: len(files_of(base)) < len(whole) - 20, "they begin to leave")
        daemon.kill()
    assert_clean(base, 20)
    with running_daemon(base, "--tree-keep-days", "30") as daemon, Client(daemon.endpoint) as client:
        eventually(lambda: [path.name for path in folders.iterdir()] == ["new"], "they left")
        assert everything(client) == answers
        again = client.retrieve_job("old-1")
        assert again is not None
        client.store_job(again)
        eventually(lambda: "old-1" in os.listdir(folders), "it is back")
        eventually(lambda: tree_is_complete(client), "complete")
        done = commands.run("tree", "--write", "old-2", "--base-path", str(base))
        assert (done.returncode, done.stdout) == (
            0, "the files of the job are in the tree, written by its daemon\n"
        )  # fmt: skip
        assert {path: data for path, data in whole.items() if "/old-3/" not in path} == files_of(base)
        done = commands.run("tree", "--write", "none", "--base-path", str(base))
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.endswith("the base has no such job, or it was deleted\n")
        assert daemon.stop() == 0
    assert_clean(base, 20)
    done = commands.run("tree", "--write", "old-3", "--base-path", str(base))
    assert (done.returncode, done.stdout) == (0, "the files of the job are in the tree\n")
    assert files_of(base) == whole
    assert_clean(base, 0)
