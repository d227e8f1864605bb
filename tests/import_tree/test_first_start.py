"""A real daemon is started on a base that holds a tree written by Perstack."""

import os
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.daemon import RunningDaemon, captured_run, golden, running_daemon
from tests.helpers.datadir import checkpoint, dumps, event, job, setting
from tests.import_tree.trees import START_MS, Asker, answers, path_of, put, put_golden, snapshot, store

ARGUMENTS = {
    "retrieveJob": ("jobId",),
    "retrieveCheckpoint": ("jobId", "checkpointId"),
    "getCheckpointsByJobId": ("jobId",),
    "getEventsByRun": ("jobId", "runId"),
    "getEventContents": ("jobId", "runId", "maxStep"),
}


def test_answers_from_an_imported_tree_are_those_of_the_reference(tmp_path: Path) -> None:
    """The reference's own answers from the tree that it wrote, through a plain REQ socket."""
    base = tmp_path / "base"
    put_golden(base)
    with running_daemon(base) as daemon, Asker(daemon.endpoint) as asker:
        for read in golden()["reads"]:
            arguments = dict(zip(ARGUMENTS.get(read["op"], ()), read["args"], strict=False))
            if "error" in read:
                head, _ = asker.frame(read["op"], arguments)
                assert head["error"]["message"] == read["error"]
            else:
                assert asker.ask(read["op"], **arguments) == read["ok"], read
        (done,) = daemon.events("import_done")
        assert done["imported"] == {"job": 3, "checkpoint": 4, "event": 7, "run_setting": 3}
        assert done["skipped"] == {}


def test_the_tree_stays_as_it_is_to_the_inode(tmp_path: Path) -> None:
    """The projection finds each file as it would write it, so nothing is replaced, not even job.json."""
    base = tmp_path / "base"
    put_golden(base)
    put_twins(base, 1, 2, 3)
    before = snapshot(base)
    with running_daemon(base) as daemon, Asker(daemon.endpoint) as asker:
        asker.await_tree()
        assert daemon.stop() == 0
    assert snapshot(base) == before
    assert not (base / ".stored/import.state").exists()


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_a_captured_run_is_answered_as_the_reference_reads_it(tmp_path: Path, name: str) -> None:
    """Ties of events come in the order of their files' names, those of checkpoints in the order stored."""
    base = tmp_path / "base"
    last: dict[str, tuple[str, dict[str, Any]]] = {}
    for number, (op, value) in enumerate(captured_run(name)):
        store(base, op, value, written_ms=START_MS + number)
        last.pop(path_of(op, value), None)
        last[path_of(op, value)] = (op, value)
    runs = sorted({(value["jobId"], value["runId"]) for op, value in last.values() if op == "storeEvent"})
    with running_daemon(base) as daemon, Asker(daemon.endpoint) as asker:
        for job_id, run in runs:
            folder = f"jobs/{job_id}/runs/{run}/"
            events = [last[path][1] for path in sorted(last) if path.startswith(folder)]
            contents = sorted(events, key=lambda value: value["timestamp"])
            assert asker.ask("getEventContents", jobId=job_id, runId=run) == contents
            assert asker.ask("getEventsByRun", jobId=job_id, runId=run) == [
                {field: value[field] for field in ("timestamp", "stepNumber", "type")}
                for value in sorted(events, key=lambda value: value["stepNumber"])
            ]
        for job_id in {job_id for job_id, _ in runs}:
            stored = [value for op, value in last.values() if op == "storeCheckpoint"]
            of_job = [value for value in stored if value["jobId"] == job_id]
            expected = sorted(of_job, key=lambda value: value["stepNumber"])
            assert asker.ask("getCheckpointsByJobId", jobId=job_id) == expected
            assert asker.ask("retrieveJob", jobId=job_id) == last[f"jobs/{job_id}/job.json"][1]


def test_records_are_in_the_order_of_time_then_path(tmp_path: Path) -> None:
    """Events and settings by the time in them, checkpoints by the time of their file."""
    base = tmp_path / "base"
    store(base, "storeEvent", event(timestamp=START_MS + 5, type="b", id="5b"))
    store(base, "storeEvent", event(timestamp=START_MS + 5, type="a", id="5a"))
    store(base, "storeEvent", event(timestamp=START_MS + 3, jobId="job-2", id="3"))
    store(base, "storeCheckpoint", checkpoint(id="c4"), written_ms=START_MS + 4)
    store(base, "storeRunSetting", setting(startedAt=START_MS + 2, updatedAt=START_MS + 9))
    store(base, "storeJob", job(startedAt=START_MS + 1))
    with running_daemon(base) as daemon, Asker(daemon.endpoint) as asker:
        found = [value.get("id", op) for _, op, value in asker.records()]
        assert found == ["job-1", "storeRunSetting", "3", "c4", "5a", "5b"]
        assert asker.ask("getAllRuns")[0]["updatedAt"] == START_MS + 9


def put_twins(base: Path, *numbers: int) -> None:
    """Different events that share a name, as this daemon writes them."""
    for n in numbers:
        twin = "" if n == 1 else f".n{n:04d}"
        put(
            base,
            f"jobs/job-1/runs/run-1/event-7-0-x{twin}.json",
            dumps(event(timestamp=7, type="x", id=f"{n}")),
        )


def test_events_numbered_by_an_earlier_daemon_keep_their_order(tmp_path: Path) -> None:
    """Also beyond four digits, where the names alone would sort otherwise."""
    base = tmp_path / "base"
    put_twins(base, 1, 2, 3, 10, 9999, 10000)
    with running_daemon(base) as daemon, Asker(daemon.endpoint) as asker:
        found = asker.ask("getEventContents", jobId="job-1", runId="run-1")
        assert [value["id"] for value in found] == ["1", "2", "3", "10", "9999", "10000"]


def test_an_event_under_the_name_of_another_is_imported_by_its_content(tmp_path: Path) -> None:
    """It does not take the file of the event that is named rightly."""
    base = tmp_path / "base"
    right = store(base, "storeEvent", event(timestamp=9, type="x", id="right"))
    put(base, "jobs/job-1/runs/run-1/event-1-0-x.json", dumps(event(timestamp=9, type="x", id="wrong")))
    put(base, "jobs/job-1/runs/run-1/event-8.5-0-x.json", dumps(event(timestamp=8.5, type="x", id="half")))
    before = snapshot(base)
    with running_daemon(base) as daemon, Asker(daemon.endpoint) as asker:
        found = asker.ask("getEventContents", jobId="job-1", runId="run-1")
        assert [(value["id"], value["timestamp"]) for value in found] == [
            ("half", 8.5),
            ("right", 9),
            ("wrong", 9),
        ]
        asker.await_tree()
        differ = daemon.events("import_name_differs")
        assert {line["file"].rpartition("/")[2]: line["due"] for line in differ} == {
            "event-1-0-x.json": "event-9-0-x.json",
            "event-8.5-0-x.json": "event-8-0-x.json",
        }
    after = snapshot(base)
    name = str(right.relative_to(base))
    assert after[name] == before[name]
    new = {path.rpartition("/")[2] for path in after.keys() - before.keys()}
    assert new == {"event-9-0-x.n0002.json", "event-8-0-x.json"}


Maker = Callable[[Path], object]


def content(data: bytes) -> Maker:
    """Makes a file with this content."""

    def make(path: Path) -> None:
        path.write_bytes(data)

    return make


def large(path: Path) -> None:
    path.write_bytes(b"{")
    os.truncate(path, (256 << 20) + 1)


def unix_socket(path: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o600)  # binding one would bound the length of the path


RUN = "jobs/job-1/runs/run-1"
SECRET = "sk-do-not-show"
DAMAGED: list[tuple[str, Maker, str]] = [
    # an event
    (f"{RUN}/event-1-0-empty.json", content(b""), "empty"),
    (f"{RUN}/event-1-0-torn.json", content(dumps(event(timestamp=1, type="torn"))[:-20]), "not_json"),
    (f"{RUN}/event-1-0-two.json", content(dumps(event(timestamp=1, type="two")) * 2), "not_json"),
    (f"{RUN}/event-1-0-zeros.json", content(bytes(500)), "not_json"),
    (f"{RUN}/event-1-0-list.json", content(b"[1]"), "not_json"),
    (f"{RUN}/event-1-0-latin.json", content(b'{"type":"\xff","text":"sk-do-not-show"}'), "not_json"),
    (f"{RUN}/event-1-0-lacking.json", content(b'{"type":"lacking"}'), "bad_value"),
    (f"{RUN}/event-1--1-step.json", content(dumps(event(stepNumber=-1))), "bad_value"),
    (f"{RUN}/event-1-0-job.json", content(dumps(event(jobId="job-2"))), "wrong_place"),
    (f"{RUN}/event-1-0-run.json", content(dumps(event(runId="run-2"))), "wrong_place"),
    (f"{RUN}/event-1-0-out.json", content(dumps(event(runId="../../run-1"))), "bad_value"),
    (f"{RUN}/event-1-0-link.json", lambda path: path.symlink_to("/etc/hostname"), "link"),
    (f"{RUN}/event-1-0-loop.json", lambda path: path.symlink_to(path.name), "link"),
    (f"{RUN}/event-1-0-folder.json", lambda path: path.mkdir(), "not_a_file"),
    (f"{RUN}/event-1-0-pipe.json", os.mkfifo, "not_a_file"),
    (f"{RUN}/event-1-0-socket.json", unix_socket, "not_a_file"),
    (f"{RUN}/event-1-0-large.json", large, "too_large"),
    # the others
    ("jobs/job-2/job.json", content(dumps(job(id="job-1"))), "wrong_place"),
    ("jobs/job-3/job.json", content(b'{\n  "id": "job-3",\n'), "not_json"),
    ("jobs/job-4/job.json", lambda path: path.mkdir(), "not_a_file"),
    ("jobs/job-1/checkpoints/cp-2.json", content(dumps(checkpoint(id="cp-3"))), "wrong_place"),
    ("jobs/job-1/checkpoints/cp-4.json", content(dumps(checkpoint(id="cp-4", usage=None))), "bad_value"),
    (
        "jobs/job-1/runs/run-7/run-setting.json",
        content(dumps(setting(runId="run-8", env={"KEY": SECRET}))),
        "wrong_place",
    ),
    # what the tree has no place for
    ("jobs/README.md", content(b"hello"), "not_ours"),
    ("jobs/job-1/notes.txt", content(b"hello"), "not_ours"),
    ("jobs/job-1/checkpoints/cp-1.json.bak", content(b"{}"), "not_ours"),
    ("jobs/job-1/checkpoints/folder", lambda path: path.mkdir(), "not_ours"),
    (f"{RUN}/.DS_Store", content(b"x"), "not_ours"),
    (f"{RUN}/event-1-0-x.json~", content(b"x"), "not_ours"),
    ("jobs/job-5/runs", content(b"x"), "not_ours"),
    ("jobs/job-6/checkpoints", lambda path: path.symlink_to("/etc"), "link"),
    ("jobs/job-7", lambda path: path.symlink_to("job-1"), "link"),
    ("jobs/bad\nname", lambda path: path.mkdir(), "not_ours"),
    ("jobs/job-8/runs/" + "r" * 201, lambda path: path.mkdir(), "not_ours"),
]


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], dict[str, Any], bool]:
    """What the log says of a damaged tree, what was stored, and whether the tree was left alone."""
    base = tmp_path_factory.mktemp("damaged") / "base"
    store(base, "storeJob", job())
    store(base, "storeCheckpoint", checkpoint())
    store(base, "storeRunSetting", setting())
    store(base, "storeEvent", event())
    for path, make, _ in DAMAGED:
        (base / path).parent.mkdir(parents=True, exist_ok=True)
        make(base / path)
    big = base / RUN / "event-1-0-large.json"
    held = {path: value[:3] for path, value in snapshot_without(base, big).items()}
    with running_daemon(base) as daemon, Asker(daemon.endpoint) as asker:
        stored = {f"{op} {value.get('id')}": value for _, op, value in asker.records()}
        asker.await_tree()
        assert SECRET not in daemon.log.read_text()
        lines = daemon.events("import_file_skipped") + daemon.events("import_done")
    return lines, stored, {path: value[:3] for path, value in snapshot_without(base, big).items()} == held


def snapshot_without(base: Path, big: Path) -> dict[str, tuple[object, ...]]:
    """The tree without a file that is too large to be held here."""
    aside = base / "big"
    big.rename(aside)
    found = snapshot(base)
    aside.rename(big)
    # Moving it to and fro changed the time of its folder.
    found.pop(str(big.parent.relative_to(base)))
    return found


@pytest.mark.parametrize(("path", "reason"), [(path, reason) for path, _, reason in DAMAGED])
def test_what_cannot_be_imported_is_named_in_the_log(
    damaged: tuple[list[dict[str, Any]], dict[str, Any], bool], path: str, reason: str
) -> None:
    """With its path and a reason, and without anything that it holds."""
    found = [(line["file"], line["reason"]) for line in damaged[0] if line.get("file") == path]
    assert found == [(path, reason)]


def test_damage_stays_in_place_and_the_rest_is_served(
    damaged: tuple[list[dict[str, Any]], dict[str, Any], bool],
) -> None:
    """The four whole values are stored, all the others counted by their reason."""
    lines, stored, untouched = damaged
    done = lines[-1]
    assert stored == {
        "storeJob job-1": job(),
        "storeCheckpoint cp-1": checkpoint(),
        "storeRunSetting None": setting(),
        "storeEvent ev-1": event(),
    }
    reasons = [reason for _, _, reason in DAMAGED]
    assert done["skipped"] == {reason: reasons.count(reason) for reason in set(reasons)}
    assert sum(done["imported"].values()) == 4
    assert untouched


def test_a_tree_is_imported_once(tmp_path: Path) -> None:
    """A later start does not look at the tree, whatever has come into it."""
    base = tmp_path / "base"
    put_golden(base)
    with running_daemon(base) as daemon, Asker(daemon.endpoint) as asker:
        before = asker.records()
        daemon.stop()
        store(base, "storeEvent", event())
        daemon.start()
        assert asker.records() == before
        assert len(daemon.events("import_begun")) == 1


def test_an_empty_base_is_not_imported(tmp_path: Path) -> None:
    """Nor is one with an empty jobs/."""
    base = tmp_path / "base"
    (base / "jobs").mkdir(parents=True)
    with running_daemon(base) as daemon:
        assert daemon.events("import_begun") == []


def test_a_link_for_jobs_keeps_the_daemon_from_starting(tmp_path: Path) -> None:
    """Going on would leave out the rest of the tree for ever."""
    base = tmp_path / "base"
    base.mkdir()
    put_golden(tmp_path / "elsewhere")
    (base / "jobs").symlink_to(tmp_path / "elsewhere" / "jobs")
    daemon = RunningDaemon(base).start(wait=False)
    assert daemon.process is not None
    assert daemon.process.wait(timeout=120) == 78
    (line,) = daemon.events("failed")
    assert line["error"] == "ConfigError"


MANY = 6_000


def put_many(base: Path) -> list[tuple[str, str]]:
    """A tree of `MANY` files in five jobs; returns its runs."""
    put_golden(base)
    padding = "x" * 600
    runs = [(f"job{number % 5}", f"run{number % 10}") for number in range(10)]
    folders = [base / f"jobs/{job_id}/runs/{run}" for job_id, run in runs]
    for folder in folders:
        folder.mkdir(parents=True)
    for number in range(MANY):
        job_id, run = runs[number % 10]
        value = event(
            id=f"e{number}", jobId=job_id, runId=run, timestamp=START_MS + number // 3,
            stepNumber=number // 500, type=f"t{number % 7}", text=padding,
        )  # fmt: skip
        name = f"event-{value['timestamp']}-{value['stepNumber']}-{value['type']}.json"
        (folders[number % 10] / name).write_bytes(dumps(value))
    for job_id, _ in runs[:5]:
        store(base, "storeJob", job(id=job_id))
    return runs


def entries_written(base: Path) -> int:
    """How many entries the journal has: all stand at the beginning of their segments."""
    count = 0
    for path in (base / ".stored/journal").glob("*.segment"):
        with path.open("rb") as file:
            count += file.read(8 << 20).count(b"PSE1")
    return count


def kill_after(daemon: RunningDaemon, entries: int) -> None:
    """Kill a daemon as soon as the journal has a count of entries: it must not get far beyond."""
    deadline = time.monotonic() + 60
    while entries_written(daemon.base) < entries:
        assert time.monotonic() < deadline, "the import does not come so far"
        time.sleep(0.005)
    daemon.kill()


@pytest.mark.long
def test_a_killed_import_goes_on_where_it_was(tmp_path: Path) -> None:
    """Twice SIGKILL in the middle: the records are those of an import that nobody disturbed."""
    one, other = tmp_path / "one", tmp_path / "other"
    runs = put_many(one)
    shutil.copytree(one, other)
    with running_daemon(one) as daemon, Asker(daemon.endpoint) as asker:
        records, answered = asker.records(), answers(asker, runs)
        (done,) = daemon.events("import_done")
        total = sum(done["imported"].values())
        assert len(records) == total > MANY * 0.9
    daemon = RunningDaemon(other, prefix=("nice", "-n", "19"))
    at_kill: list[int] = []
    for _ in range(2):
        # A start adds a segment with a snapshot of the sessions, and keeps what may not have been synced.
        aim = entries_written(other) + 7 if at_kill else 4
        daemon.start(wait=False)
        kill_after(daemon, aim)
        assert (other / ".stored/import.state").exists()
        at_kill.append(entries_written(other))
    assert daemon.events("import_done") == []
    with running_daemon(other) as daemon, Asker(daemon.endpoint) as asker:
        assert asker.records() == records
        assert answers(asker, runs) == answered
        (done,) = daemon.events("import_done")
        assert 0 < done["taken_up"] < total
        assert sum(done["imported"].values()) == total
        begun = [line["records"] for line in daemon.events("import_begun")]
        assert begun[0] == 0
        assert begun == sorted(set(begun))
        asker.await_tree()
    assert not (other / ".stored/import.state").exists()
