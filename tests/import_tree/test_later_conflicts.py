"""`import` overwrites nothing newer, unless it is forced to."""

import json
import time
from pathlib import Path
from typing import Any

from tests.helpers.daemon import running_daemon
from tests.helpers.datadir import event, job, setting
from tests.import_tree.imported import LONG_AGO_MS, OURS, THEIRS, Imported, records
from tests.import_tree.trees import START_MS, Asker, path_of, store

PATHS = [path_of(op, value) for op, value in THEIRS]


def newest(base: Path) -> list[Any]:
    """Job, checkpoint and setting as the daemon answers them, and as they are in the tree."""
    with running_daemon(base) as daemon, Asker(daemon.endpoint) as asker:
        asker.await_tree()
        answered = [
            asker.ask("retrieveJob", jobId="job-1")["status"],
            asker.ask("retrieveCheckpoint", jobId="job-1", checkpointId="cp-1")["status"],
            asker.ask("getAllRuns")[0]["model"],
        ]
        daemon.stop()
    found = [json.loads((base / path).read_bytes()) for path in PATHS]
    assert [found[0]["status"], found[1]["status"], found[2]["model"]] == answered
    return answered


def test_what_clients_stored_is_kept_and_named(ours: Path, source: Path) -> None:
    """However new the files are; the rest is taken."""
    later_ms = time.time_ns() // 1_000_000 + 3_600_000
    for op, value in THEIRS:
        store(source, op, value, written_ms=later_ms)
    store(source, "storeEvent", event(id="theirs"))
    imported = Imported(ours, source)
    assert imported.status == 1
    assert imported.counts == (1, 0, 3, 0)
    assert sorted(imported.lines, key=lambda line: PATHS.index(line["path"])) == [
        {"name": "import_conflict", "path": path} for path in PATHS
    ]
    assert newest(ours) == ["ours"] * 3


def test_force_takes_the_files(ours: Path, source: Path) -> None:
    for op, value in THEIRS:
        store(source, op, value, written_ms=LONG_AGO_MS)
    imported = Imported(ours, source, "--force")
    assert imported.status == 0
    assert imported.counts == (3, 0, 0, 0)
    assert {line["name"] for line in imported.lines} == {"import_overwritten"}
    assert newest(ours) == ["theirs"] * 3
    again = Imported(ours, source, "--force")
    assert (again.lines, again.counts) == ([], (0, 3, 0, 0))


def test_a_file_that_was_written_after_its_import_is_taken_again(base: Path, source: Path) -> None:
    """Perstack went on in its own tree; what it had before is known and no conflict."""
    for op, value in OURS[:2]:
        store(source, op, value, written_ms=LONG_AGO_MS)
    assert Imported(base, source).status == 0
    later_ms = time.time_ns() // 1_000_000 + 3_600_000
    for op, value in THEIRS[:2]:
        store(source, op, value, written_ms=later_ms)
    assert Imported(base, source).counts == (2, 0, 0, 0)
    for op, value in OURS[:2]:
        store(source, op, value, written_ms=LONG_AGO_MS)
    old = Imported(base, source)
    assert (old.status, old.counts) == (0, (0, 2, 0, 0))
    store(source, "storeJob", job(status="a third"), written_ms=LONG_AGO_MS)
    other = Imported(base, source)
    assert (other.status, other.counts) == (1, (0, 1, 1, 0))
    assert [value["status"] for _, _, value in records(base)] == ["ours", "ours", "theirs", "theirs"]


def test_a_setting_that_was_only_touched_later_gets_the_later_time(base: Path, source: Path) -> None:
    for updated_at, taken in ((START_MS, 1), (START_MS + 5, 1), (START_MS + 2, 0)):
        store(source, "storeRunSetting", setting(updatedAt=updated_at))
        imported = Imported(base, source)
        assert (imported.status, imported.counts) == (0, (taken, 1 - taken, 0, 0))
    with running_daemon(base) as daemon, Asker(daemon.endpoint) as asker:
        assert [run["updatedAt"] for run in asker.ask("getAllRuns")] == [START_MS + 5]
