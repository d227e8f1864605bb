"""`import` takes another tree into a base, names what it can not take, and shows how far it is."""

import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.daemon import captured_run, running_daemon
from tests.helpers.datadir import checkpoint, dumps, event, job, setting
from tests.import_tree.imported import Imported, put_stored, records
from tests.import_tree.trees import START_MS, Asker, answers, put, put_golden, snapshot, store
from tests.offline.bases import run


def test_a_tree_is_answered_from_the_new_base_as_from_its_own(base: Path, source: Path) -> None:
    """And is not touched; and is whole in the new base's tree, to the byte."""
    put_golden(source)
    for number, (op, value) in enumerate(captured_run("b")):
        store(source, op, value, written_ms=START_MS + number)
    before = snapshot(source)
    files = sum(content is not None for *_, content in before.values())
    imported = Imported(base, source)
    assert (imported.status, imported.lines, imported.stderr) == (0, [], "")
    assert imported.counts == (files, 0, 0, 0)
    assert snapshot(source) == before
    runs = [(path.parts[-3], path.name) for path in sorted((source / "jobs").glob("*/runs/*"))]
    with running_daemon(base) as daemon, Asker(daemon.endpoint) as asker:
        answered = answers(asker, runs)
        asker.await_tree()
        assert daemon.events("import_begun") == []
    for path, (*_, content) in before.items():
        if content is not None:
            assert (base / path).read_bytes() == content
    with running_daemon(source) as daemon, Asker(daemon.endpoint) as asker:
        assert answers(asker, runs) == answered


def test_a_second_import_finds_everything_held(base: Path, source: Path) -> None:
    put_golden(source)
    first = Imported(base, source)
    stored = records(base)
    second = Imported(base, source)
    assert (second.status, second.lines) == (0, [])
    assert second.counts == (0, first.summary["taken"], 0, 0)
    assert records(base) == stored


def test_records_are_added_after_those_that_are_there(ours: Path, source: Path) -> None:
    """Nothing that the base holds changes its position."""
    before = records(ours)
    store(source, "storeJob", job(id="there"))
    assert Imported(ours, source).counts == (1, 0, 0, 0)
    assert records(ours) == [*before, (5, "storeJob", job(id="there"))]


def test_equal_events_are_dropped_and_others_of_the_same_name_kept(base: Path, source: Path) -> None:
    put_stored(base, ("storeEvent", event(id="same")), ("storeEvent", event(id="ours", timestamp=5)))
    store(source, "storeEvent", event(id="same"))
    store(source, "storeEvent", event(id="theirs", timestamp=5))
    assert Imported(base, source).counts == (1, 1, 0, 0)
    with running_daemon(base) as daemon, Asker(daemon.endpoint) as asker:
        assert [value["id"] for _, _, value in asker.records()] == ["same", "ours", "theirs"]
        asker.await_tree()
    names = sorted(path.name for path in (base / "jobs/job-1/runs/run-1").iterdir())
    assert "event-5-0-startRun.n0002.json" in names


def test_the_base_s_own_tree_is_taken_first(base: Path, source: Path) -> None:
    """Once something is stored in a base, the daemon looks no more at a tree that was there before."""
    store(base, "storeJob", job(id="own"))
    store(source, "storeJob", job(id="other", startedAt=1))
    assert Imported(base, source).status == 0
    with running_daemon(base) as daemon, Asker(daemon.endpoint) as asker:
        assert [value["id"] for _, _, value in asker.records()] == ["own", "other"]
        asker.await_tree()
    assert run("check", base).returncode == 0


def test_files_written_past_the_daemon_are_taken_from_the_base_s_own_tree(base: Path) -> None:
    """What the daemon wrote there itself is known, with settings stored again and jobs laid out again."""
    with running_daemon(base) as daemon, Asker(daemon.endpoint) as asker:
        stored = [("storeJob", job()), ("storeRunSetting", setting()), ("storeRunSetting", setting())]
        for op, value in [*stored, ("storeCheckpoint", checkpoint()), ("storeEvent", event())]:
            assert asker.frame(op, value)[0]["ok"]
        asker.await_tree()
        daemon.stop()
    store(base, "storeEvent", event(id="past", timestamp=3))
    imported = Imported(base, base)
    assert (imported.status, imported.lines) == (0, [])
    assert imported.counts == (1, 4, 0, 0)


def test_damage_is_named_and_the_rest_taken(base: Path, source: Path) -> None:
    """The exit status says that something was left out."""
    store(source, "storeJob", job())
    put(source, "jobs/job-1/runs/run-1/event-1-0-x.json", dumps(event())[:-9])
    put(source, "jobs/job-1/runs/run-1/event-2-0-x.json", dumps(event(timestamp=9, type="x")))
    (source / "jobs/job-2").symlink_to("job-1")
    imported = Imported(base, source)
    assert imported.status == 1
    assert imported.counts == (2, 0, 0, 2)
    assert [(line["name"], line["path"], line.get("reason", line.get("due"))) for line in imported.lines] == [
        ("import_skipped", "jobs/job-1/runs/run-1/event-1-0-x.json", "not_json"),
        ("import_name_differs", "jobs/job-1/runs/run-1/event-2-0-x.json", "event-9-0-x.json"),
        ("import_skipped", "jobs/job-2", "link"),
    ]


def test_a_served_base_is_refused_and_its_daemon_named(base: Path, source: Path) -> None:
    store(source, "storeJob", job())
    with running_daemon(base) as daemon, Asker(daemon.endpoint) as asker:
        imported = Imported(base, source)
        assert imported.status == 2
        assert f"the base is held by the daemon with process id {daemon.pid}" in imported.stderr
        assert asker.records() == []


@pytest.mark.parametrize("make", [False, True])
def test_a_source_that_is_no_tree_is_refused_and_no_base_is_made(
    base: Path, source: Path, make: bool
) -> None:
    if make:
        put(source, "job.json", b"{}")
    imported = Imported(base, source)
    assert imported.status == 2
    assert str(source) in imported.stderr
    assert not base.exists()


def test_a_terminal_sees_how_far_it_is(base: Path, source: Path) -> None:
    """A bar for each part, and in the end what was done."""
    put_golden(source)
    shutil.copytree(source, base)
    reader, writer = pty.openpty()
    command = [sys.executable, "-m", "perstack_stored", "import", "--base-path", str(base), str(source)]
    done = subprocess.run(command, stderr=writer, stdout=subprocess.PIPE, check=False, timeout=120)
    os.close(writer)
    shown = os.read(reader, 65536)
    os.close(reader)
    for label in (b"reading (files)", b"journal (records)", b"storing (files)"):
        assert label in shown
    assert done.stdout.endswith(b"of the tree: 17 files, 0 taken, 17 held, 0 kept, 0 skipped\n")
