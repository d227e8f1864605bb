"""A start on a damaged base: index rebuilt, damaged journal refused; foreign things in the tree stay."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from perstack_storage import Client
from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.tree.cursor import Cursor, load_cursor
from tests.helpers.daemon import RunningDaemon, eventually, files_of, running_daemon
from tests.helpers.raw_client import Raw, event, job
from tests.integration.filled import Filled, answers, assert_checked, fill, refusal, settled_tree


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Filled:
    """Some of everything, and a whole tree."""
    folder = tmp_path_factory.mktemp("filled")
    with running_daemon(folder / "stopped") as daemon:
        with Raw(daemon.endpoint) as raw:
            fill(raw)
            expected = answers(raw)
            eventually(lambda: settled_tree(raw), "the tree is complete")
        daemon.kill()
        shutil.copytree(daemon.base, folder / "killed", ignore=shutil.ignore_patterns("*.sock"))
        daemon.start()
        assert daemon.stop() == 0
        return Filled(folder / "killed", daemon.base, expected, files_of(daemon.base))


def _garbage(path: Path) -> None:
    path.write_bytes(b"no database at all" * 500)


def _garbage_within(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _wal(path: Path) -> None:
    path.with_name("index.sqlite-wal").write_bytes(os.urandom(50_000))


@pytest.mark.parametrize(
    ("damage", "kill"),
    [
        (_garbage, False),
        (_garbage_within, False),
        (_cut, True),
        (_wal, True),
        (Path.unlink, False),
    ],
)
def test_a_damaged_index_is_built_again(
    tmp_path: Path, filled: Filled, damage: Callable[[Path], None], *, kill: bool
) -> None:
    """Deleted, cut or overwritten while nothing runs: all answers are the same, and no file changes."""
    base = filled.copy(tmp_path / "base", killed=kill)
    damage(base / ".stored" / "index.sqlite")
    with running_daemon(base) as daemon:
        with Raw(daemon.endpoint) as raw:
            assert answers(raw) == filled.answers
            eventually(lambda: settled_tree(raw), "the tree is complete")
            assert files_of(daemon.base) == filled.files
            raw.store("storeEvent", event("new", jobId="j0"))
            eventually(lambda: len(files_of(daemon.base)) == len(filled.files) + 1, "the tree goes on")
        assert daemon.stop() == 0
    assert_checked(daemon.base)


@pytest.mark.parametrize("damage", [Path.unlink, _empty, _garbage])
def test_a_lost_tree_cursor_makes_the_tree_be_written_again(
    tmp_path: Path, filled: Filled, damage: Callable[[Path], None]
) -> None:
    """What was removed from the tree meanwhile is there again; the rest is as it was."""
    base = filled.copy(tmp_path / "base")
    damage(base / ".stored" / "tree.cursor")
    shutil.rmtree(base / "jobs" / "j1")
    with running_daemon(base) as daemon:
        with Raw(daemon.endpoint) as raw:
            eventually(lambda: settled_tree(raw), "the tree is complete")
        assert files_of(base) == filled.files
        assert daemon.stop() == 0
    assert_checked(daemon.base)


def test_a_new_base_has_a_tree_cursor_from_the_start(tmp_path: Path) -> None:
    """A crash before the tree was begun leaves nothing to go through before the next start is ready."""
    with running_daemon(tmp_path / "base") as daemon:
        with Client(daemon.endpoint) as client:
            store = bytes.fromhex(client.hello()["store"])
        stored_dir = os.open(daemon.base / ".stored", os.O_RDONLY)
        try:
            assert load_cursor(FileSystem(), stored_dir, store) == Cursor(0, clean=True)
        finally:
            os.close(stored_dir)


def test_damage_in_the_journal_stops_the_start(tmp_path: Path) -> None:
    """Status 1 names segment, offset and position; nothing is changed, and no socket appears."""
    with running_daemon(tmp_path / "base") as daemon, Raw(daemon.endpoint) as raw:
        fill(raw)
        assert daemon.stop() == 0
    segment = max((daemon.base / ".stored" / "journal").glob("*.segment"))
    data = segment.read_bytes()
    entries = [n for n in range(0, len(data), 8) if data[n : n + 4] == b"PSE1"]
    # Two entries in the head of a segment, and a mark at its end, hold no records.
    for victim in (entries[2], entries[len(entries) // 2], entries[-2]):
        position = int.from_bytes(data[victim + 16 : victim + 24], "little")
        damaged = bytearray(data)
        damaged[victim + 70] ^= 1
        segment.write_bytes(damaged)
        reason = refusal(daemon.base)
        for word in (segment.name, f"offset {victim}", f"position {position}"):
            assert word in reason
        assert segment.read_bytes() == damaged
        assert not (daemon.base / ".stored" / "stored.sock").exists()
    segment.write_bytes(data)
    with running_daemon(daemon.base) as again, Raw(again.endpoint) as raw:
        assert raw.ask("ping").header["position"] == 240


def test_damage_before_the_last_segment_is_reported_while_it_runs(tmp_path: Path, filled: Filled) -> None:
    """The index can't be built over it: stats and log say so, stores go on, reads are given up in time."""
    base = filled.copy(tmp_path / "base")
    segment, _ = sorted((base / ".stored" / "journal").glob("*.segment"))
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    (base / ".stored" / "index.sqlite").unlink()
    with running_daemon(base) as daemon:
        with Raw(daemon.endpoint) as raw:
            eventually(
                lambda: raw.ask("stats").value["index"]["fault"] == "the journal is damaged", "it is reported"
            )
            assert segment.name in daemon.events("journal_damaged")[-1]["reason"]
            assert raw.store("storeEvent", event("behind")) == 241
            assert raw.ask("getAllJobs", timeoutMs=100).code == "DEADLINE"
        assert daemon.stop() == 0
        assert segment.read_bytes() == data


def test_left_overs_of_a_crash_are_no_hindrance(tmp_path: Path, filled: Filled) -> None:
    """Half-made segments, staged files and a half-written cursor."""
    daemon = RunningDaemon(filled.copy(tmp_path / "base", killed=True))
    stored = daemon.base / ".stored"
    try:
        for name in ("next.segment.part", "new.segment.part", "other.part", "0000000099.segment.part"):
            (stored / "journal" / name).write_bytes(b"half")
        (stored / "staging").mkdir(exist_ok=True)
        for name in ("aside", "x.json"):
            (stored / "staging" / name).write_bytes(b"half")
        (stored / "tree.cursor.new").write_bytes(b"half")
        for _ in range(2):
            daemon.start()
            with Raw(daemon.endpoint) as raw:
                assert answers(raw) == filled.answers
                eventually(lambda: settled_tree(raw), "the tree is complete")
            assert list((stored / "staging").iterdir()) == []
            assert daemon.stop() == 0
    finally:
        daemon.make_sure_it_ended()
    assert_checked(daemon.base)


def test_a_planted_link_leads_nowhere(tmp_path: Path) -> None:
    """In the place of a job's folder, of a run's and of a file: counted, logged, nothing written outside."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious.json").write_text("precious")
    with running_daemon(tmp_path / "base") as daemon, Raw(daemon.endpoint) as raw:
        jobs = daemon.base / "jobs"
        (jobs / "k" / "runs").mkdir(parents=True)
        (jobs / "j").symlink_to(outside)
        (jobs / "k" / "runs" / "r1").symlink_to(outside)
        (jobs / "k" / "job.json").symlink_to(outside / "precious.json")
        raw.store("storeEvent", event(jobId="j"))
        raw.store("storeEvent", event(jobId="k"))
        raw.store("storeJob", job("k"))
        raw.store("storeEvent", event(jobId="fine"))
        eventually(lambda: settled_tree(raw), "the tree is complete")
        assert raw.ask("stats").value["tree"]["blocked"] == 3
        blocked = {line["file"] for line in daemon.events("tree_file_blocked")}
        assert "jobs/k/job.json" in blocked
        assert {path.name: path.read_text() for path in outside.iterdir()} == {"precious.json": "precious"}
        assert len(list((jobs / "fine").rglob("event-*"))) == 1
        assert len(raw.read_all()) == 4


def test_a_folder_in_the_place_of_a_file_stops_nothing_else(tmp_path: Path) -> None:
    """It is left where it is; later versions, other files and a restart go on."""
    with running_daemon(tmp_path / "base") as daemon:
        jobs = daemon.base / "jobs"
        (jobs / "j" / "job.json" / "within").mkdir(parents=True)
        with Raw(daemon.endpoint) as raw:
            for n in range(3):
                raw.store("storeJob", job("j", totalSteps=n))
                raw.store("storeJob", job("fine", totalSteps=n))
                eventually(lambda: settled_tree(raw), "the tree is complete")
            assert raw.ask("stats").value["tree"]["blocked"] == 3
            assert raw.ask("stats").value["tree"]["fault"] == ""
        assert (jobs / "j" / "job.json" / "within").is_dir()
        assert daemon.stop() == 0
        daemon.start()
        with Raw(daemon.endpoint) as raw:
            raw.store("storeJob", job("fine", totalSteps=7))
            eventually(lambda: settled_tree(raw), "the tree is complete")
            assert raw.ask("stats").value["tree"]["starts"] == 1
        assert json.loads((jobs / "fine" / "job.json").read_text())["totalSteps"] == 7


def test_a_folder_that_somebody_removes_is_made_again(tmp_path: Path) -> None:
    """While the daemon holds it open: what is stored later is there."""
    with running_daemon(tmp_path / "base") as daemon, Raw(daemon.endpoint) as raw:
        fill(raw)
        eventually(lambda: settled_tree(raw), "the tree is complete")
        shutil.rmtree(daemon.base / "jobs")
        raw.store("storeJob", job("j1", totalSteps=99))
        raw.store("storeEvent", event("late", jobId="j1"))
        eventually(lambda: settled_tree(raw), "the tree is complete")
        assert len(files_of(daemon.base)) == 2
