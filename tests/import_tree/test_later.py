"""`import` takes another tree into a base, overwrites nothing newer, and can be cut short anywhere."""

import itertools
import json
import os
import pty
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from perstack_stored import startup
from perstack_stored.config.settings import Settings
from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.datadir.layout import DataDir, open_folders, set_up
from perstack_stored.journal.entry_format import record_places
from perstack_stored.journal.options import JournalOptions
from perstack_stored.journal.reader import JournalReader, LogPosition
from perstack_stored.journal.sessions import Sessions
from perstack_stored.journal.writer import JournalWriter
from perstack_stored.offline import import_tree as import_later
from perstack_stored.offline.check.journal import recover_only
from perstack_stored.offline.findings import Report
from perstack_stored.offline.locked import locked_datadir
from perstack_stored.tree_import import first_start
from tests.helpers.daemon import captured_run, eventually, running_daemon
from tests.helpers.datadir import checkpoint, dumps, event, job, setting
from tests.import_tree.test_resume import FailingFiles, PowerCutError
from tests.import_tree.trees import START_MS, Asker, answers, path_of, put, put_golden, snapshot, store
from tests.offline.bases import copy_base, run

LONG_AGO_MS = 1_600_000_000_000


class Imported:
    """What `import --json` says."""

    def __init__(self, base: Path, source: Path, *arguments: str) -> None:
        process = run("import", base, "--json", *arguments, str(source))
        assert "Traceback" not in process.stderr, process.stderr
        self.status = process.returncode
        self.stderr = process.stderr
        lines = [json.loads(line) for line in process.stdout.splitlines()]
        self.summary = lines.pop() if lines else {}
        self.lines = [{k: v for k, v in line.items() if k != "note"} for line in lines]

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Files taken, held, kept as the base has them, skipped."""
        taken, held, kept, skipped = (self.summary[name] for name in ("taken", "held", "kept", "skipped"))
        return taken, held, kept, skipped


def records(base: Path) -> list[tuple[int, str, Any]]:
    """Every record of a base that is not served."""
    lines = map(json.loads, run("dump", base, "--show-secrets").stdout.rstrip().split("\n"))
    return [(line["position"], line["op"], line["value"]) for line in lines]


def put_stored(base: Path, *calls: tuple[str, dict[str, Any]]) -> None:
    """Let clients store values in a base."""
    with running_daemon(base) as daemon, Asker(daemon.endpoint) as asker:
        for op, value in calls:
            head, _ = asker.frame(op, value)
            assert head["ok"], head
        assert daemon.stop() == 0


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "base"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "source"


# --- what is taken ---------------------------------------------------------------------------------


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


# --- conflicts -------------------------------------------------------------------------------------

OURS = (
    ("storeJob", job(status="ours")),
    ("storeCheckpoint", checkpoint(status="ours")),
    ("storeRunSetting", setting(model="ours")),
)
THEIRS = (
    ("storeJob", job(status="theirs")),
    ("storeCheckpoint", checkpoint(status="theirs")),
    ("storeRunSetting", setting(model="theirs")),
)
PATHS = [path_of(op, value) for op, value in THEIRS]


@pytest.fixture(scope="module")
def _ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("ours") / "base"
    put_stored(base, *OURS, ("storeEvent", event()))
    return base


@pytest.fixture
def ours(_ours: Path, base: Path) -> Path:
    """A base in which clients stored `OURS`."""
    return copy_base(_ours, base)


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


# --- what goes wrong -------------------------------------------------------------------------------


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


def written(base: Path) -> int:
    """Entries of the journal, counted from outside."""
    return sum(path.read_bytes().count(b"PSE1") for path in (base / ".stored/journal").glob("*.segment"))


def test_an_import_that_was_killed_goes_on_when_it_is_run_again(
    base: Path, source: Path, tmp_path: Path
) -> None:
    """The records are those of one that nobody disturbed; a daemon may run in between."""
    for number in range(800):
        store(source, "storeEvent", event(id=f"e{number}", timestamp=START_MS + number, text="x" * 600))
    whole = tmp_path / "whole"
    assert Imported(whole, source).counts == (800, 0, 0, 0)
    command = [sys.executable, "-m", "perstack_stored", "import", "--base-path", str(base), str(source)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    eventually(lambda: base.exists() and written(base) >= 2, "it has stored some", 30)
    process.kill()
    process.wait()
    with running_daemon(base) as daemon, Asker(daemon.endpoint) as asker:
        held = len(asker.records())
        daemon.kill()
    last = Imported(base, source)
    assert last.status == 0
    assert last.counts == (800 - held, held, 0, 0)
    assert records(base) == records(whole)


def import_in_this_process(base: Path, source: Path, files: FileSystem) -> None:
    """As the command does, with a file system that may fail."""
    set_up(str(base), Settings().folder_mode)
    folders = open_folders(files, str(base))
    report = Report(lambda _: None, import_later.FINDINGS, import_later.NOTES)
    descriptor = import_later.open_source(str(source))
    try:
        held = DataDir(str(base), files, folders)
        import_later.import_later(held, Settings(first_segment_bytes=1 << 16), descriptor, report, force=True)
    finally:
        for fd in (descriptor, *folders):
            os.close(fd)


def _without_ahead(
    files: FileSystem, dir_fd: int, sessions: Sessions, options: JournalOptions, **given: Any
) -> JournalWriter:
    return JournalWriter(files, dir_fd, sessions, options._replace(ahead=False), **given)


def test_an_import_may_end_at_any_change_to_the_disk(
    ours: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time, running it again makes of it what an undisturbed one makes; also with --force."""
    monkeypatch.setattr(first_start, "BATCH_RECORDS_MAX", 3)
    # Made ahead, a segment would change the disk from a thread of its own.
    monkeypatch.setattr(startup, "JournalWriter", _without_ahead)
    limit, umask = sys.getrecursionlimit(), os.umask(0o022)
    for op, value in (*THEIRS, ("storeEvent", event())):
        store(source, op, value, written_ms=START_MS)
    for number in range(4):
        store(source, "storeEvent", event(id=f"e{number}", timestamp=START_MS + number))
        store(source, "storeCheckpoint", checkpoint(id=f"c{number}"), written_ms=START_MS + number)
    found = []
    for changes in itertools.count():
        copy = copy_base(ours, tmp_path / f"cut{changes}")
        try:
            import_in_this_process(copy, source, FailingFiles(changes))
        except PowerCutError:
            import_in_this_process(copy, source, FileSystem())
            found.append(copy)
            continue
        expected = all_payloads(copy)
        break
    sys.setrecursionlimit(limit)
    os.umask(umask)
    assert len(expected) == 4 + 11
    assert len(found) > 10
    for copy in found:
        assert all_payloads(copy) == expected, f"{copy.name}"


def all_payloads(base: Path) -> list[bytes]:
    """What every record of a base holds, read in this process."""
    files = FileSystem()
    with locked_datadir(str(base), "test", reads_only=True) as held:
        end = recover_only(files, held.folders.journal)
        reader = JournalReader(files, held.folders.journal)
        found = [
            bytes(entry.data[place.start : place.start + place.length])
            for entry in reader.entries(reader.start(), LogPosition(end.position, end.number, end.end))
            for place in record_places(entry.data, entry.header)
        ]
        reader.close()
    return found


def test_an_import_cut_short_at_the_start_of_a_daemon_is_finished_first(base: Path, source: Path) -> None:
    """The tree of the base, then the other."""
    put_stored(base)
    store(base, "storeJob", job(id="own"))
    (base / ".stored/import.state").touch()
    store(source, "storeJob", job(id="other", startedAt=1))
    assert Imported(base, source).counts == (1, 0, 0, 0)
    assert not (base / ".stored/import.state").exists()
    assert [value["id"] for _, _, value in records(base)] == ["own", "other"]


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
