"""The tree where the file system lacks a way, or is another one than the base's: the same files, as safe."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.datadir.layout import FileSystemFeatures
from perstack_stored.errors import TreeUnsyncedError
from perstack_stored.journal.segment_walk import Entry
from perstack_stored.model import json_text
from perstack_stored.model.kinds import Kind
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

LACKING = [
    FileSystemFeatures(unnamed=False, exchange=False),
    FileSystemFeatures(unnamed=True, exchange=False),
    FileSystemFeatures(False, True),
]


class Lacking(FileSystem):
    """Files of a file system that has not more than these ways."""

    def __init__(self, ways: FileSystemFeatures) -> None:
        super().__init__()
        self._ways = ways

    def create_unnamed(self, mode: int, *, dir_fd: int) -> int:
        if not self._ways.unnamed:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return super().create_unnamed(mode, dir_fd=dir_fd)

    def exchange(self, source: str, target: str, *, source_dir: int, target_dir: int) -> None:
        if not self._ways.exchange:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        super().exchange(source, target, source_dir=source_dir, target_dir=target_dir)


def fill(base: Base) -> dict[str, bytes]:
    """Some of everything; returns the files as they must become."""
    base.store((Kind.JOB, job(n=1)), (Kind.EVENT, event(id="a")), (Kind.EVENT, event(id="b")))
    base.store((Kind.CHECKPOINT, checkpoint()), (Kind.RUN_SETTING, setting()), (Kind.JOB, job(n=2)))
    made = base.open_tree()
    base.grow(made, slice_=1)
    made.close()
    whole = base.files()
    shutil.rmtree(base.path / "jobs")
    return whole


@pytest.mark.parametrize("ways", LACKING)
def test_the_files_are_the_same_in_any_way(base: Base, ways: FileSystemFeatures) -> None:
    """Replaced ones too; nothing stays aside, and modes are as asked for."""
    whole = fill(base)
    made = base.open_tree(Lacking(ways), ways)
    base.grow(made, slice_=1)
    made.sync(clean=True)
    assert base.files() == whole
    assert (base.path / "jobs/job-1/job.json").stat().st_mode & 0o777 == 0o640
    assert not list((base.path / ".stored/staging").iterdir())
    assert made.blocked == 0
    made.close()


@pytest.mark.parametrize("ways", LACKING)
def test_a_crash_at_any_call_leaves_whole_files_in_any_way(base: Base, ways: FileSystemFeatures) -> None:
    """Wherever the tree's process dies, each file is whole, and the next process ends with all of them."""
    whole = fill(base)
    older = json_text.indent(dumps(job(n=1)))
    for calls in range(400):
        shutil.rmtree(base.path / "jobs", ignore_errors=True)
        (base.path / ".stored/tree.cursor").unlink(missing_ok=True)
        died = False
        try:
            made = base.open_tree(SimulatedDisk(dies_at=calls), ways)
            base.grow(made, slice_=1)
            made.sync(clean=True)
        except Died:
            died = True
        for path, content in base.files().items():
            assert content == whole[path] or (path.endswith("job.json") and content == older), path
        made = base.open_tree(Lacking(ways), ways)
        base.grow(made)
        made.sync(clean=True)
        made.close()
        assert base.files() == whole
        assert not list((base.path / ".stored/staging").iterdir())
        if not died:
            assert calls > 40
            return
    raise AssertionError("it does not come to the end")


@pytest.mark.parametrize("call", ["write", "rename"])
def test_what_can_t_be_written_aside_leaves_nothing_there(base: Base, call: str) -> None:
    """It may be what fills the disk; with room again it goes on."""
    whole = fill(base)
    files = FailingFiles(**{call: errno.ENOSPC})
    made = base.open_tree(FileSystem(), LACKING[0])
    made._writer._files = files
    with pytest.raises(OSError, match="No space left"):
        base.grow(made)
    assert not list((base.path / ".stored/staging").iterdir())
    made._writer._files = FileSystem()
    base.grow(made)
    assert base.files() == whole


def test_an_obstacle_is_blocked_in_any_way(base: Base) -> None:
    """A folder, or a link, where a file belongs: the others are written."""
    whole = fill(base)
    run = base.path / "jobs/job-1/runs/run-1"
    run.mkdir(parents=True)
    (run / "run-setting.json").mkdir()
    (base.path / "jobs/job-1/job.json").symlink_to("/etc/hostname")
    made = base.open_tree(Lacking(LACKING[0]), LACKING[0])
    base.grow(made)
    assert made.blocked == 2
    assert set(whole) - set(base.files()) == {
        "jobs/job-1/job.json",
        "jobs/job-1/runs/run-1/run-setting.json",
    }


class Mounts(FileSystem):
    """Files of a machine on which `jobs` has, from some moment on, a file system of its own; and syncs."""

    def __init__(self, jobs: Path, *, since: bool) -> None:
        super().__init__()
        self._jobs = jobs
        self.mounted = since
        self.synced: list[str] = []

    def _is_in_jobs(self, fd: int) -> bool:
        return os.readlink(f"/proc/self/fd/{fd}").startswith(str(self._jobs))

    def device(self, fd: int) -> int:
        return 2 if self.mounted and self._is_in_jobs(fd) else 1

    def are_apart(self, source_dir: int, target_dir: int) -> bool:
        return self.device(source_dir) != self.device(target_dir)

    def _refuse_apart(self, source_dir: int, target_dir: int) -> None:
        if self.are_apart(source_dir, target_dir):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    def exchange(self, source: str, target: str, *, source_dir: int, target_dir: int) -> None:
        self._refuse_apart(source_dir, target_dir)
        super().exchange(source, target, source_dir=source_dir, target_dir=target_dir)

    def rename(self, source: str, target: str, *, source_dir: int, target_dir: int) -> None:
        self._refuse_apart(source_dir, target_dir)
        super().rename(source, target, source_dir=source_dir, target_dir=target_dir)

    def sync_all(self, fd: int) -> None:
        self.synced.append("jobs" if self._is_in_jobs(fd) else "base")
        super().sync_all(fd)


@pytest.mark.parametrize("ways", [FileSystemFeatures(), *LACKING])
def test_on_a_file_system_of_its_own_the_tree_is_staged_and_synced_there(
    base: Base, ways: FileSystemFeatures
) -> None:
    """Files are replaced as ever, the sync is of that file system, and no name is left aside."""
    whole = fill(base)
    files = Mounts(base.path / "jobs", since=True)
    made = base.open_tree(files, ways)
    base.grow(made, slice_=1)
    made.sync(clean=True)
    assert base.files() == whole
    assert set(files.synced) == {"jobs"}
    assert made.blocked == 0
    made.close()


def mounted_after_all_but_one(base: Base) -> tuple[Mounts, TreeWriter, list[Entry]]:
    """A tree whose `jobs` gets a file system of its own before the last entry, which is returned."""
    fill(base)
    base.store((Kind.EVENT, event(id="c", timestamp=7)))
    files = Mounts(base.path / "jobs", since=False)
    made = base.open_tree(files)
    entries = list(base.reader.entries(base.reader.seek(0, base.index.place), base.index.place))
    made.apply(entries[:-1])
    (base.path / "jobs").rename(base.path / "hidden")
    (base.path / "jobs").mkdir()
    files.mounted = True
    return files, made, entries[-1:]


def test_a_file_system_that_is_mounted_while_it_writes_is_synced_with_the_one_before(base: Base) -> None:
    """The cursor says of no file that it is on disk before both were synced."""
    files, made, last = mounted_after_all_but_one(base)
    made.apply(last)
    assert files.synced == ["base", "jobs"]
    made.sync(clean=True)
    assert files.synced == ["base", "jobs", "jobs"]
    made.close()


def test_a_sync_that_fails_when_it_is_mounted_ends_the_process(base: Base) -> None:
    """Earlier files may be lost then, and the next process compares them."""
    files, made, last = mounted_after_all_but_one(base)

    def fails(_fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    files.sync_all = fails  # type: ignore[method-assign, assignment]
    with pytest.raises(TreeUnsyncedError):
        made.apply(last)
    made.close()


@pytest.mark.parametrize("how", ["device", "folds_case"])
def test_a_folder_that_can_t_hold_the_tree_s_files_is_blocked_and_no_other(base: Base, how: str) -> None:
    """A mount below jobs/, or a folder that takes names for one that differ by case."""
    base.store(*((Kind.EVENT, event(jobId=f"j{n}", runId="r")) for n in range(3)))
    odd = base.path / "jobs/j1"
    odd.mkdir(parents=True)
    inode = odd.stat().st_ino

    def is_odd(_self: FileSystem, fd: int) -> Any:
        return os.fstat(fd).st_ino == inode

    made = base.open_tree(type("Odd", (FileSystem,), {how: is_odd})())
    reasons: list[str] = []
    made.on_blocked = lambda _write, error: reasons.append(str(error))
    base.grow(made)
    assert sorted(path.split("/")[1] for path in base.files()) == ["j0", "j2"]
    assert len(reasons) == made.blocked == 1
    assert ("another file system" if how == "device" else "differ by case") in reasons[0]
