"""`rebuild` gives the same index and the same tree, whatever became of them."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import zmq

from perstack_stored.config.settings import Settings
from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.offline.locked import locked_datadir
from perstack_stored.offline.rebuild import rebuild
from perstack_stored.tree.cursor import Cursor, cursor_store, load_cursor
from tests.helpers.daemon import files_of, running_daemon
from tests.offline.bases import (
    SMALL_SEGMENTS,
    Checked,
    answers,
    change_index,
    copy_base,
    event,
    job,
    one_of_each,
    run,
    segments,
    setting,
    store,
)

RUN = "jobs/j1/runs/r1"


def lose_projections(base: Path) -> None:
    shutil.rmtree(base / "jobs")
    for path in (base / ".stored").glob("index.sqlite*"):
        path.unlink()
    (base / ".stored/tree.cursor").unlink()


def lose_nothing(base: Path) -> None:
    pass


def damage_all(base: Path) -> None:
    (base / ".stored/index.sqlite").write_bytes(b"rubbish" * 1000)
    (base / ".stored/index.sqlite-wal").write_bytes(b"rubbish" * 1000)
    (base / ".stored/tree.cursor").write_bytes(b"rubbish")
    for path in (base / "jobs").rglob("*.json"):
        path.write_bytes(b"rubbish")


def damage_some(base: Path) -> None:
    change_index(base, "DELETE FROM job", "UPDATE cursor SET position = 3", "DELETE FROM twin WHERE n = 2")
    (base / RUN / "run-setting.json").unlink()
    (base / "jobs/j1/job.json").write_bytes(b"{}")
    shutil.rmtree(base / "jobs/jöb 🚀")


def leave_a_rebuild_halfway(base: Path) -> None:
    (base / ".stored/rebuild.sqlite").write_bytes(b"half of it")
    (base / ".stored/staging/aside").write_bytes(b"half of it")


LOSSES = [lose_projections, lose_nothing, damage_all, damage_some, leave_a_rebuild_halfway]


class Served(NamedTuple):
    """A base that was served once more, and stopped; and its answers."""

    base: Path
    answers: dict[str, bytes]


@pytest.fixture(scope="module")
def served(_stored: Path, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """Made once; each test damages a copy."""
    base = copy_base(_stored, tmp_path_factory.mktemp("served") / "base")
    with running_daemon(base, *SMALL_SEGMENTS) as daemon:
        answered = answers(daemon)
        daemon.stop()
    return Served(base, answered)


@pytest.mark.parametrize("lose", LOSSES)
def test_a_rebuilt_base_has_the_same_tree_and_answers(
    served: Served, tmp_path: Path, lose: Callable[[Path], None]
) -> None:
    base = copy_base(served.base, tmp_path / "base")
    before = files_of(base)
    lose(base)
    result = run("rebuild", base)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "rebuilt index and tree from 20 records\n"
    assert files_of(base) == before
    checked = Checked(base)
    assert (checked.status, checked.findings, checked.notes) == (0, [], [])
    assert not (base / ".stored/rebuild.sqlite").exists()
    with running_daemon(base, *SMALL_SEGMENTS) as daemon:
        assert answers(daemon) == served.answers
        daemon.stop()


def test_a_base_of_several_segments_is_rebuilt(base_of_segments: Path) -> None:
    before = files_of(base_of_segments)
    lose_projections(base_of_segments)
    assert run("rebuild", base_of_segments).returncode == 0
    assert files_of(base_of_segments) == before
    assert Checked(base_of_segments).status == 0


def test_files_that_are_right_are_left_alone_and_those_not_ours_too(base: Path) -> None:
    """Also a job's, of which the journal holds older versions."""
    (base / "jobs/j1/notes.txt").write_text("not ours")
    before = {path: path.stat() for path in (base / "jobs").rglob("*") if path.is_file()}
    wrong = base / "jobs/spaced/job.json"
    wrong.write_bytes(b"{}")
    assert run("rebuild", base).returncode == 0
    for path, stat in before.items():
        after = path.stat()
        changed = (after.st_ino, after.st_mtime_ns) != (stat.st_ino, stat.st_mtime_ns)
        assert changed == (path == wrong), path


def test_only_the_index_is_rebuilt_when_asked_for(base: Path) -> None:
    lose_projections(base)
    result = run("rebuild", base, "--index")
    assert (result.returncode, result.stdout) == (0, "rebuilt index from 20 records\n")
    assert not (base / "jobs").exists()
    assert Checked(base).note_names == {"tree_behind"}


def test_the_new_index_is_on_disk_before_it_takes_the_place_of_the_old_one(base: Path) -> None:
    """Whenever the power is cut, the index is whole: the old one, the new one, or none."""
    calls: list[str] = []

    class Recorder(FileSystem):
        def sync_data(self, fd: int) -> None:
            calls.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
            super().sync_data(fd)

        def rename(self, source: str, target: str, *, source_dir: int, target_dir: int) -> None:
            calls.append(f"{source} to {target}")
            super().rename(source, target, source_dir=source_dir, target_dir=target_dir)

        def sync(self, fd: int) -> None:
            calls.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
            super().sync(fd)

    with locked_datadir(str(base), "test", reads_only=False) as held:
        rebuild(held._replace(files=Recorder()), Settings(), index_too=True, tree_too=False)
    sums, itself = "rebuild.sqlite-sums to index.sqlite-sums", "rebuild.sqlite to index.sqlite"
    assert calls[-4:] == ["rebuild.sqlite", sums, itself, ".stored"]


def test_a_rebuilt_tree_is_synced_and_its_cursor_says_so(base: Path) -> None:
    """The start after a rebuild has nothing to wait for."""
    lose_projections(base)
    with locked_datadir(str(base), "test", reads_only=False) as held:
        done = rebuild(held, Settings(), index_too=True, tree_too=True)
        store = cursor_store(held.files, held.folders.stored)
        assert store is not None
        assert load_cursor(held.files, held.folders.stored, store) == Cursor(done.position, clean=True)


def test_only_the_tree_is_rebuilt_when_asked_for(base: Path) -> None:
    before = files_of(base)
    shutil.rmtree(base / "jobs")
    index = (base / ".stored/index.sqlite").stat().st_ino
    result = run("rebuild", base, "--tree")
    assert (result.returncode, result.stdout) == (0, "rebuilt tree from 20 records\n")
    assert (base / ".stored/index.sqlite").stat().st_ino == index
    assert files_of(base) == before


def test_an_index_that_is_behind_is_completed_for_the_tree(base: Path, tmp_path: Path) -> None:
    for name in ("index.sqlite", "index.sqlite-sums"):
        shutil.copy(base / ".stored" / name, tmp_path)
    with running_daemon(base, *SMALL_SEGMENTS) as daemon:
        store(daemon.endpoint, [event("e1", note="a twin"), job("later"), setting()])
        daemon.stop()
    before = files_of(base)
    for name in ("index.sqlite", "index.sqlite-sums"):
        shutil.copy(tmp_path / name, base / ".stored")
    shutil.rmtree(base / "jobs")
    assert run("rebuild", base, "--tree").returncode == 0
    assert files_of(base) == before
    assert Checked(base).status == 0


@pytest.mark.parametrize("lose", [lose_projections, damage_all])
def test_a_tree_alone_is_not_rebuilt_by_a_bad_index(base: Path, lose: Callable[[Path], None]) -> None:
    lose(base)
    before = files_of(base) if (base / "jobs").exists() else {}
    result = run("rebuild", base, "--tree")
    assert result.returncode == 2
    assert "rebuild both" in result.stderr
    assert (files_of(base) if (base / "jobs").exists() else {}) == before


def test_modes_are_those_of_the_daemon(base: Path) -> None:
    shutil.rmtree(base / "jobs")
    assert run("rebuild", base, "--file-mode", "644", "--folder-mode", "755").returncode == 0
    assert (base / "jobs/j1").stat().st_mode & 0o7777 == 0o755
    assert (base / "jobs/j1/job.json").stat().st_mode & 0o7777 == 0o644


def test_an_obstacle_is_named_and_all_else_is_written(base: Path, tmp_path: Path) -> None:
    before = files_of(base)
    shutil.rmtree(base / "jobs/j1/runs")
    (base / "jobs/j1/runs").symlink_to(tmp_path)
    (base / "jobs/spaced/job.json").unlink()
    result = run("rebuild", base)
    assert result.returncode == 1
    assert f"can't be written: {RUN}/run-setting.json: " in result.stderr
    missing = {path for path in before if path not in files_of(base)}
    assert missing == {path for path in before if path.startswith("jobs/j1/runs")}
    assert not list(tmp_path.glob("r1"))


def test_a_damaged_journal_leaves_index_and_tree_as_they_are(base_of_segments: Path) -> None:
    """What could still be read must not be thrown away."""
    base = base_of_segments
    path = segments(base)[1]
    data = path.read_bytes()
    path.write_bytes(data.replace(b"proceeding", b"proceedinG"))
    tree, index = files_of(base), (base / ".stored/index.sqlite").read_bytes()
    result = run("rebuild", base)
    assert result.returncode == 1
    assert "damage in journal segment 0000000002.segment at offset" in result.stderr
    assert files_of(base) == tree
    assert (base / ".stored/index.sqlite").read_bytes() == index
    assert not (base / ".stored/rebuild.sqlite").exists()


def test_a_base_whose_daemon_was_killed_is_recovered_first(tmp_path: Path) -> None:
    base = tmp_path / "base"
    with running_daemon(base, *SMALL_SEGMENTS) as daemon:
        store(daemon.endpoint, one_of_each())
        daemon.kill()
    result = run("rebuild", base)
    assert result.returncode == 0
    assert result.stdout.startswith("the last stop was unclean: 1 records were secured, 0 bytes of")
    checked = Checked(base)
    assert (checked.status, checked.findings, checked.notes) == (0, [], [])
    assert checked.summary["records"] == 20


def test_a_rebuild_forgets_no_session(tmp_path: Path) -> None:
    """A store that is sent again after a crash and a rebuild gets its first position."""
    base = tmp_path / "base"
    op, value = event()

    def send(endpoint: str, session: int) -> int:
        with zmq.Context() as context, context.socket(zmq.REQ) as socket:
            socket.linger = 0
            socket.connect(endpoint)
            header = {"v": 1, "op": op, "id": 1, "session": f"{session:032x}", "seq": 1}
            socket.send(json.dumps(header).encode() + b"\n" + value.replace(b"e1", b"e%d" % session))
            return int(json.loads(socket.recv())["position"])

    with running_daemon(base, *SMALL_SEGMENTS) as daemon:
        first = [send(daemon.endpoint, session) for session in range(1, 30)]
        daemon.kill()
    assert run("rebuild", base).returncode == 0
    with running_daemon(base, *SMALL_SEGMENTS) as daemon:
        assert [send(daemon.endpoint, session) for session in range(1, 30)] == first
        daemon.stop()


def test_an_import_that_was_cut_short_is_not_rebuilt(base: Path) -> None:
    """The journal does not hold the whole tree yet, and Perstack may have written more into it."""
    (base / ".stored/import.state").touch()
    before = files_of(base)
    result = run("rebuild", base)
    assert result.returncode == 2
    assert "import" in result.stderr
    assert files_of(base) == before


def test_a_setting_out_of_bounds_is_refused(base: Path) -> None:
    result = run("rebuild", base, "--file-mode", "0")
    assert result.returncode == 2
    assert "file-mode must be between" in result.stderr
    assert os.listdir(base / "jobs")


def test_the_deepest_values_that_the_daemon_takes_can_be_read_by_the_tools(tmp_path: Path) -> None:
    """A lone surrogate takes the way over the standard library's decoder."""
    base = tmp_path / "base"
    op, value = event(jobId="deep")
    with running_daemon(base) as daemon:
        stored = 0
        for lone in (b"", b'"lone": "\\ud800", '):
            for depth in range(960, 700, -1):
                deep = b'{"deep": ' + b"[" * depth + b"]" * depth + b", " + lone + value[1:]
                try:
                    store(daemon.endpoint, [(op, deep)])
                except AssertionError:
                    continue
                stored += 1
                break
        daemon.stop()
    assert stored == 2
    lose_projections(base)
    assert run("rebuild", base).returncode == 0
    assert Checked(base).summary["files"] == 2
    assert run("dump", base, "--job", "deep").stdout.count("\n") == 2
