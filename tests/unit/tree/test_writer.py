"""A file is whole, and never older than what was shown, through replays and crashes."""

import shutil
from pathlib import Path
from random import Random
from typing import Any

import pytest

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.model import json_text
from perstack_stored.model.kinds import Kind
from perstack_stored.tree.cursor import CURSOR_NAME
from tests.helpers.datadir import Base, Died, SimulatedDisk, checkpoint, dumps, event, job, setting
from tests.unit.tree.growing import RUN, grown


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
