"""The tree: the documented files, whole, never older than what was shown, and never outside the base."""

import errno
import shutil
import stat
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest

from perstack_stored.datadir.background_sync import BackgroundSync
from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.errors import TreeUnsyncedError
from perstack_stored.model import json_text
from perstack_stored.model.kinds import Kind
from perstack_stored.tree import cursor as tree_cursor
from perstack_stored.tree.cursor import CURSOR_NAME, Cursor, load_cursor, save_cursor
from perstack_stored.tree.write import event_name
from perstack_stored.tree.writer import TreeWriter
from tests.helpers.datadir import (
    Base,
    Died,
    FailingFiles,
    SimulatedDisk,
    checkpoint,
    dumps,
    event,
    job,
    setting,
)

RUN = "jobs/job-1/runs/run-1"


def grown(base: Base) -> TreeWriter:
    """A tree that has come up to the end, opened again."""
    made = base.open_tree()
    base.grow(made)
    return made


# --- names and content -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("timestamp", "step", "type", "n", "name"),
    [
        (1700000000000, 3, "startRun", 1, "event-1700000000000-3-startRun.json"),
        (1700000000000.75, 3.0, "a-b", 1, "event-1700000000000-3-a-b.json"),
        (0, 0, "x", 2, "event-0-0-x.n0002.json"),
        (-0.0, 0, "x", 12345, "event-0-0-x.n12345.json"),
        (
            9007199254740991.0,
            9007199254740991,
            "y" * 100,
            9999,
            f"event-9007199254740991-9007199254740991-{'y' * 100}.n9999.json",
        ),
    ],
)
def test_an_event_is_named_as_the_reference_names_it(
    timestamp: float, step: float, type: str, n: int, name: str
) -> None:
    """Timestamp by its whole part, step, type; a twin has its number before the suffix; any name fits."""
    assert event_name(timestamp, step, type, n) == name
    assert len(name) < 255


def test_the_files_are_the_documented_ones(base: Base) -> None:
    """job.json is indented, all else is byte for byte what was sent, each at its place, with its modes."""
    odd = b' {"x" : 1e400, "y":"\\ud800", ' + dumps(event(id="odd", type="a-b"))[1:] + b"\n"
    a_job = b'{"big":123456789012345678901234567890,' + dumps(job())[1:]
    base.store((Kind.JOB, a_job), (Kind.CHECKPOINT, checkpoint()), (Kind.EVENT, event()), (Kind.EVENT, odd))
    base.store((Kind.RUN_SETTING, setting()), (Kind.EVENT, event(id="twin")), (Kind.EVENT, event()))
    grown(base)
    assert base.files() == {
        "jobs/job-1/job.json": json_text.indent(a_job),
        "jobs/job-1/checkpoints/cp-1.json": dumps(checkpoint()),
        f"{RUN}/run-setting.json": dumps(setting()),
        f"{RUN}/event-1700000000000-0-startRun.json": dumps(event()),
        f"{RUN}/event-1700000000000-0-startRun.n0002.json": dumps(event(id="twin")),
        f"{RUN}/event-1700000000000-0-a-b.json": odd,
    }
    for path in (base.path / "jobs").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o750 if path.is_dir() else 0o640)
    assert not list((base.path / ".stored" / "staging").iterdir())


def test_of_a_setting_the_tree_has_what_the_index_has(base: Base) -> None:
    """A setting stored again has its first content, the time of the last store, and no defaults."""
    first = {k: v for k, v in setting().items() if k != "maxSteps"}
    base.store((Kind.RUN_SETTING, first))
    made = grown(base)
    base.store((Kind.RUN_SETTING, setting(model="other")))
    base.grow(made)
    (updated_at,) = base.database.execute("SELECT updated_at FROM setting").fetchone()
    assert base.files() == {f"{RUN}/run-setting.json": dumps(first | {"updatedAt": updated_at})}
    assert updated_at > first["updatedAt"]


def test_any_id_that_is_allowed_has_a_file(base: Base) -> None:
    """The longest ids, dots, spaces, quotes and other scripts all work as names."""
    for i, name in enumerate(
        ["x" * 200, "é" * 100, "...", ".hidden", "a b", "a'\"b", "日本", "-rf", "~", "%2F", "job.json"]
    ):
        base.store(
            (Kind.JOB, job(id=name)),
            (Kind.CHECKPOINT, checkpoint(id=name, jobId=name)),
            (Kind.EVENT, event(jobId=name, runId=name)),
        )
        grown(base)
        assert {f"jobs/{name}/job.json", f"jobs/{name}/checkpoints/{name}.json"} <= set(base.files())
        assert len(base.files()) == 3 * (i + 1)


# --- folding and replay ----------------------------------------------------------------------------


class Recorder(FileSystem):
    """Real files that tell which names appear, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def give_name(self, fd: int, name: str, *, dir_fd: int) -> None:
        super().give_name(fd, name, dir_fd=dir_fd)
        if name != "aside":
            self.names.append(name)

    def exchange(self, source: str, target: str, *, source_dir: int, target_dir: int) -> None:
        super().exchange(source, target, source_dir=source_dir, target_dir=target_dir)
        self.names.append(f"again {target}")


def test_of_many_versions_the_first_appears_in_its_place_and_the_newest_wins(base: Base) -> None:
    """A job stored over and over is written twice: where it first stood in the order, and as it is last."""
    for i in range(10):
        base.store((Kind.JOB, job(n=i)), (Kind.EVENT, event(id=str(i), timestamp=i)))
    files = Recorder()
    made = base.open_tree(files)
    base.grow(made)
    assert files.names == [
        "job.json", *(f"event-{i}-0-startRun.json" for i in range(9)),
        "again job.json", "event-9-0-startRun.json"
    ]  # fmt: skip
    assert base.files()["jobs/job-1/job.json"] == json_text.indent(dumps(job(n=9)))
    for i in range(3):
        base.store((Kind.JOB, job(n=10 + i)))
    files.names.clear()
    base.grow(made)
    assert files.names == ["again job.json"]  # it was there: only the newest counts


def versions(base: Base) -> list[int]:
    return [
        int(text.split(b'"n": ')[1][:3].strip(b",\n }")) for text in base.files().values() if b'"n": ' in text
    ]


@pytest.mark.parametrize("slice_", [1, 2, 3, 50])
def test_a_replay_never_brings_back_an_older_version(base: Base, slice_: int) -> None:
    """After a crash a file that was newer than the durable cursor stays as it is until it is newer still."""
    for i in range(1, 20):
        base.store(
            (Kind.JOB, job(n=i, startedAt=1)),
            (Kind.CHECKPOINT, checkpoint(n=i)),
            (Kind.RUN_SETTING, setting(n=i)),
        )
    made = base.open_tree()
    base.grow(made, slice_=slice_)
    newest = base.files()

    class Watcher(FileSystem):
        """Real files that look, after each change, whether a file has become older."""

        def exchange(self, *args: Any, **kwargs: Any) -> None:
            super().exchange(*args, **kwargs)
            assert all(base.files()[name] == newest[name] for name in before)

    before = dict(newest)
    made = base.open_tree(Watcher())  # the first one was never synced: its cursor stands at 0
    assert made.position == 0
    assert not made.clean
    base.grow(made, slice_=slice_)
    assert base.files() == newest
    made.sync(clean=True)


def test_a_replay_restores_each_lost_file(base: Base) -> None:
    """Files written since the cursor moved may be gone, empty or cut: replay makes them whole."""
    random = Random(4)
    base.store(*((Kind.EVENT, event(id=str(i), timestamp=i)) for i in range(10)), (Kind.JOB, job(n=1)))
    made = grown(base)
    made.sync(clean=False)
    synced = set(base.files())
    for i in range(40):
        base.store((Kind.EVENT, event(id=f"b{i}", timestamp=20 + i // 3)), (Kind.EVENT, event(runId=f"r{i}")))
        base.store(
            (Kind.JOB, job(id=f"job-{i % 5}", n=i)), (Kind.CHECKPOINT, checkpoint(id=f"cp-{i % 7}", n=i))
        )
        base.store((Kind.RUN_SETTING, setting(runId=f"r{i % 3}")))
    base.grow(made)
    whole = base.files()
    for round_ in range(6):
        for name in sorted(set(whole) - synced):
            path = base.path / name
            how = random.randrange(5) if round_ else 1
            if how == 1:
                path.unlink()
            elif how == 2:
                path.write_bytes(b"")
            elif how == 3:
                path.write_bytes(whole[name][:-1])
            elif how == 4:
                path.write_bytes(bytes(len(whole[name])))
        if round_ == 3:
            shutil.rmtree(base.path / "jobs" / "job-1" / "runs" / "r5")
        (base.path / ".stored" / "staging" / "aside").write_bytes(b"left by a crash")
        made = base.open_tree()
        assert made.position == 11
        base.grow(made, slice_=random.choice([1, 7, 1000]))
        assert base.files() == whole
    made.sync(clean=True)
    assert base.open_tree().position == base.journal.mark.position


def test_a_replay_makes_no_file_that_is_there_as_it_should_be(base: Base) -> None:
    """After a kill, what was written already is compared only: making files may be slow just then."""
    base.store(*((Kind.EVENT, event(id=str(i), timestamp=i)) for i in range(20)), (Kind.JOB, job(n=1)))
    made = grown(base)
    whole = base.files()
    (base.path / RUN / "event-7-0-startRun.json").unlink()

    class Counting(FileSystem):
        made = 0

        def create_unnamed(self, mode: int, *, dir_fd: int) -> int:
            self.made += 1
            return super().create_unnamed(mode, dir_fd=dir_fd)

    files = Counting()
    made = base.open_tree(files)
    base.grow(made)
    assert files.made == 1
    assert base.files() == whole


def test_a_crash_at_any_call_is_repaired_by_the_next_start(tmp_path: Path) -> None:
    """Wherever the tree's process dies, the next one ends with the same files, nothing left aside."""
    base = Base(tmp_path / "base")
    base.store((Kind.JOB, job(n=1)), (Kind.EVENT, event(id="a")), (Kind.EVENT, event(id="b")))
    base.store(
        (Kind.JOB, job(n=2)),
        (Kind.CHECKPOINT, checkpoint()),
        (Kind.RUN_SETTING, setting()),
        (Kind.EVENT, event()),
    )
    made = grown(base)
    whole = base.files()
    calls = 0
    while True:
        shutil.rmtree(base.path / "jobs")
        (base.path / ".stored" / CURSOR_NAME).unlink(missing_ok=True)
        disk = SimulatedDisk(dies_at=calls)
        died = False
        try:
            made = base.open_tree(disk)
            base.grow(made, slice_=1)
            made.sync(clean=True)
        except Died:
            died = True
        for path, content in base.files().items():
            older = json_text.indent(dumps(job(n=1))) if path.endswith("job.json") else None
            assert content in (whole[path], older), path  # whole at any moment
        made = base.open_tree()
        base.grow(made)
        made.sync(clean=True)
        assert base.files() == whole
        assert not list((base.path / ".stored" / "staging").iterdir())
        if not died:
            break
        calls += 1
    assert calls > 40


# --- the cursor ------------------------------------------------------------------------------------


def test_the_cursor_moves_after_a_sync_only(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the cursor says that files are there they were synced; never more than the bound is unsynced."""
    monkeypatch.setattr(tree_cursor, "UNSYNCED_RECORDS_MAX", 10)
    log: list[str] = []

    class Logged(FileSystem):
        def sync_all(self, fd: int) -> None:
            log.append("syncfs")

        def rename(self, source: str, target: str, *, source_dir: int, target_dir: int) -> None:
            super().rename(source, target, source_dir=source_dir, target_dir=target_dir)
            log.append(f"cursor {load_cursor(FileSystem(), base.stored_dir, base.journal.store).position}")

        def give_name(self, fd: int, name: str, *, dir_fd: int) -> None:
            super().give_name(fd, name, dir_fd=dir_fd)
            log.append("file")

    for i in range(12):
        base.store(*((Kind.EVENT, event(id=f"{i}-{k}", timestamp=i * 10 + k)) for k in range(3)))
    save_cursor(FileSystem(), base.stored_dir, base.journal.store, Cursor(0, clean=True))
    made = base.open_tree(Logged())
    base.grow(made, slice_=1)
    made.sync(clean=True)
    made.sync(clean=True)
    assert log[0] == "cursor 0"
    assert log[-2:] == ["syncfs", "cursor 36"]
    unsynced = 0
    for i, what in enumerate(log):
        if what == "file":
            unsynced += 1
            assert unsynced <= 10
        elif what.startswith("cursor") and what != "cursor 0":
            assert log[i - 1] == "syncfs"
            unsynced = 0


def test_a_sync_beside_the_writing_covers_what_the_cursor_says(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are made meanwhile; the cursor says no more than was written when the sync began."""
    monkeypatch.setattr(tree_cursor, "UNSYNCED_RECORDS_MAX", 10)
    made_files = 0
    covered: list[int] = []
    beside: list[int] = []
    growing = True

    class Slow(FileSystem):
        def sync_all(self, fd: int) -> None:
            before = made_files
            time.sleep(0.02)
            for _ in range(200):  # on a busy machine it takes longer until a file is made beside one of them
                if made_files > before or any(beside) or not growing:
                    break
                time.sleep(0.005)
            beside.append(made_files - before)
            covered.append(before)

        def give_name(self, fd: int, name: str, *, dir_fd: int) -> None:
            nonlocal made_files
            super().give_name(fd, name, dir_fd=dir_fd)
            made_files += 1
            cursor = load_cursor(FileSystem(), base.stored_dir, base.journal.store)
            assert made_files <= cursor.position + 10
            assert cursor.position <= max(covered, default=0)

    for i in range(40):
        base.store(*((Kind.EVENT, event(id=f"{i}-{k}", timestamp=i * 10 + k)) for k in range(3)))
    save_cursor(FileSystem(), base.stored_dir, base.journal.store, Cursor(0, clean=True))
    made = base.open_tree(Slow())
    made.syncer = BackgroundSync(made._files.sync_all)
    base.grow(made, slice_=1)
    growing = False
    made.sync(clean=True)
    made.syncer.stop()
    assert load_cursor(FileSystem(), base.stored_dir, base.journal.store) == Cursor(120, clean=True)
    assert max(beside) > 0


def test_a_sync_beside_the_writing_that_fails_ends_the_writing(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that is waited for: the next process compares what is there."""
    monkeypatch.setattr(tree_cursor, "UNSYNCED_RECORDS_MAX", 10)
    for i in range(20):
        base.store((Kind.EVENT, event(id=f"{i}", timestamp=i)))
    save_cursor(FileSystem(), base.stored_dir, base.journal.store, Cursor(0, clean=True))
    files = FailingFiles()
    files.errors["sync_all"] = errno.EIO
    made = base.open_tree(files)
    made.syncer = BackgroundSync(lambda fd: files.sync_all(fd))  # noqa: PLW0108 - it fails when looked up
    with pytest.raises(TreeUnsyncedError):
        base.grow(made, slice_=1)
    made.syncer.stop()
    assert load_cursor(FileSystem(), base.stored_dir, base.journal.store).position == 0


def test_a_clean_cursor_is_taken_back_before_anything_is_written(base: Base) -> None:
    """What is written after a clean cursor must be replayed after a crash, so the cursor says so first."""
    base.store((Kind.EVENT, event()))
    made = grown(base)
    made.sync(clean=True)
    assert load_cursor(FileSystem(), base.stored_dir, base.journal.store) == Cursor(1, clean=True)
    base.store((Kind.EVENT, event(id="b")))
    files = FailingFiles(create_unnamed=errno.EIO)
    made = base.open_tree(files)
    with pytest.raises(OSError, match="Input/output"):
        base.grow(made)
    assert load_cursor(FileSystem(), base.stored_dir, base.journal.store) == Cursor(1, clean=False)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "longer", "other store"])
def test_a_cursor_that_is_not_right_means_all_is_projected_again(base: Base, damage: str) -> None:
    """A damaged cursor, or one of another journal, is not believed."""
    save_cursor(FileSystem(), base.stored_dir, base.journal.store, Cursor(77, clean=True))
    path = base.path / ".stored" / CURSOR_NAME
    data = path.read_bytes()
    if damage == "flip":
        for i in range(len(data)):
            path.write_bytes(data[:i] + bytes([data[i] ^ 4]) + data[i + 1 :])
            assert load_cursor(FileSystem(), base.stored_dir, base.journal.store) == Cursor(
                0, clean=False, lost=True
            )
        return
    path.write_bytes({"cut": data[:-1], "empty": b"", "longer": data + b"x", "other store": data}[damage])
    store = bytes(16) if damage == "other store" else base.journal.store
    assert load_cursor(FileSystem(), base.stored_dir, store) == Cursor(0, clean=False, lost=True)
    assert load_cursor(FileSystem(), base.stored_dir, base.journal.store).position == (
        77 if damage == "other store" else 0
    )
