"""A tree that leaves files out: whatever happens, checks agree with each change, and reads notice nothing."""

import json
import shutil
from pathlib import Path
from typing import Any

from perstack_storage import Client
from tests.helpers import commands
from tests.helpers.daemon import RunningDaemon, eventually, files_of, running_daemon
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


def assert_clean(base: Path) -> None:
    checked = commands.run("check", "--json", "--base-path", str(base))
    assert checked.returncode == 0, checked.stdout
    assert json.loads(checked.stdout.splitlines()[-1])["left_out"] > 50
    audited = commands.run("audit", str(base))
    assert audited.returncode == 0, audited.stdout
