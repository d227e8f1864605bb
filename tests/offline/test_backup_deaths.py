"""A backup or restore that is killed at any step is whole, or does not count."""

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from perstack_stored.datadir.filesystem import FileSystem
from tests.helpers.daemon import running_daemon
from tests.helpers.datadir import Died, SimulatedDisk
from tests.offline.backups import back_up, bring_back, manifest_of, records
from tests.offline.bases import SMALL_SEGMENTS, copy_base, store
from tests.offline.bases import event as event_call


def _opened_again(fd: int) -> int:
    return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_DIRECTORY)  # a dup would share the lock


class _Disk(SimulatedDisk):
    """Forgets names in folders that the process that died had open."""

    def create(self, name: str, mode: int, *, dir_fd: int) -> int:
        return super().create(name, mode, dir_fd=_opened_again(dir_fd))

    def rename(self, source: str, target: str, *, source_dir: int, target_dir: int) -> None:
        folder = _opened_again(source_dir)
        super().rename(source, target, source_dir=folder, target_dir=folder)


@pytest.mark.parametrize("first", [False, True])
def test_a_backup_killed_at_any_step_is_never_mistaken_for_a_good_one(
    original: Path, tmp_path: Path, *, first: bool
) -> None:
    """On a new folder and on one with a backup: what counts is the old one or the new one, and is whole."""
    grown = copy_base(original, tmp_path / "grown")
    with running_daemon(grown, *SMALL_SEGMENTS) as daemon:  # else 64 MiB are copied at each step
        store(daemon.endpoint, [event_call("later", text="x" * 10_000)])
        assert daemon.stop() == 0
    all_records = records(grown)
    step = 0
    counted: set[int] = set()
    while True:
        step += 1
        target = tmp_path / f"{first}{step}"
        if not first:
            back_up(original, target)
        disk = _Disk(step, dies_at=step)
        try:
            back_up(grown, target, disk)
        except Died:
            disk.cut_power()
            died = True
        else:
            died = False
        manifest = manifest_of(target) if target.exists() else None
        counted.add(0 if manifest is None else manifest.position)
        if not died:
            assert manifest is not None
            assert manifest.position == 21
            break
        if manifest is not None:
            bring_back(target, tmp_path / f"restored{first}{step}")
            assert records(tmp_path / f"restored{first}{step}") == all_records[: manifest.position]
        assert back_up(grown, target) == 21
        names = {path.name for path in target.iterdir()}
        after = manifest_of(target)
        assert after is not None
        assert names == {"backup.json", *(copy.file for copy in after.segments)}
    assert step > 30
    assert counted == ({0, 21} if first else {20, 21})


def test_the_copies_have_their_names_on_disk_before_they_count(original: Path, tmp_path: Path) -> None:
    """Whatever order the disk has of its own: no power cut leaves a manifest without what it names."""

    class Noting(FileSystem):
        def __init__(self) -> None:
            self.unsynced: set[str] = set()
            self.beside: list[set[str]] = []

        def rename(self, source: str, target: str, *, source_dir: int, target_dir: int) -> None:
            if target == "backup.json":
                self.beside.append(set(self.unsynced))
            super().rename(source, target, source_dir=source_dir, target_dir=target_dir)
            self.unsynced.add(target)

        def sync(self, fd: int) -> None:
            super().sync(fd)
            self.unsynced.clear()

    files = Noting()
    back_up(original, tmp_path / "backup", files)
    assert files.beside == [set()]
    assert files.unsynced == set()


def test_a_restore_killed_at_any_step_leaves_no_base_or_a_whole_one(original: Path, tmp_path: Path) -> None:
    """And can be run again, until there is one."""
    back_up(original, tmp_path / "backup")
    expected = records(original)[:17]
    step = 0
    while True:
        step += 1
        base = tmp_path / f"base{step}"
        try:
            bring_back(tmp_path / "backup", base, 17, SimulatedDisk(step, dies_at=step))
        except Died:
            pass
        else:
            break
        if not (base / ".stored").exists():
            bring_back(tmp_path / "backup", base, 17)
        assert records(base) == expected
        assert [path.name for path in base.iterdir()] == [".stored"]
    assert step > 30


class _Folders(SimulatedDisk):
    """Forgets all data that was not synced, and names folder by folder: those of some folders, or of all."""

    def __init__(self, seed: int, *, dies_at: int | None) -> None:
        super().__init__(seed, dies_at=dies_at)
        self._undo: list[tuple[int, Callable[[], object]]] = []

    def sync(self, fd: int) -> None:
        inode = os.fstat(fd).st_ino
        self._undo = [(folder, undo) for folder, undo in self._undo if folder != inode]

    def create(self, name: str, mode: int, *, dir_fd: int) -> int:
        fd = FileSystem.create(self, name, mode, dir_fd=dir_fd)
        self._note(dir_fd, lambda folder: os.unlink(name, dir_fd=folder))
        return fd

    def make_dir(self, name: str, mode: int, *, dir_fd: int | None = None) -> bool:
        assert dir_fd is not None
        is_new = FileSystem.make_dir(self, name, mode, dir_fd=dir_fd)
        if is_new:
            self._note(dir_fd, lambda folder: shutil.rmtree(name, dir_fd=folder))
        return is_new

    def rename(self, source: str, target: str, *, source_dir: int, target_dir: int) -> None:
        assert source_dir == target_dir
        FileSystem.rename(self, source, target, source_dir=source_dir, target_dir=target_dir)
        self._note(source_dir, lambda f: os.rename(target, source, src_dir_fd=f, dst_dir_fd=f))

    def _note(self, folder: int, undo: Callable[[int], object]) -> None:
        again = _opened_again(folder)
        self._undo.append((os.fstat(folder).st_ino, lambda: undo(again)))

    def cut_power(self, *, loses_all: bool = False) -> None:
        self.lose_data()
        folders = {folder for folder, _ in self._undo}
        lost = {folder for folder in sorted(folders) if loses_all or self.random.random() < 0.5}
        for folder, undo in reversed(self._undo):
            if folder in lost:
                with contextlib.suppress(FileNotFoundError):  # gone with its folder
                    undo()


def test_a_power_cut_in_a_restore_leaves_no_base_or_a_whole_one(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any call, and right after the last one; then it is there, whatever was not synced is lost."""
    back_up(original, tmp_path / "backup")
    expected = records(original)[:17]
    # A process without power cleans up nothing.
    monkeypatch.setattr(
        "perstack_stored.offline.backup.restore.shutil", SimpleNamespace(rmtree=lambda _path: None)
    )
    whole = step = 0
    is_done = False
    while not is_done:
        step += 1
        base = tmp_path / f"base{step}"
        disk = _Folders(step, dies_at=step)
        try:
            bring_back(tmp_path / "backup", base, 17, disk)
            is_done = True
        except Died:
            pass
        disk.cut_power(loses_all=is_done)
        if (base / ".stored").exists():
            whole += 1
            assert records(base) == expected
    assert whole >= 1
    assert records(tmp_path / f"base{step}") == expected
    assert step > 30
