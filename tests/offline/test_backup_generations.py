"""`backup --keep N`: each run makes a backup of its own, the newest N stay, and none is ever half there."""

import errno
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.errors import ConfigError
from perstack_stored.offline.backup.generations import backup_and_keep
from perstack_stored.offline.backup.manifest import BackupDamagedError, open_folder
from perstack_stored.offline.backup.restore import restore
from perstack_stored.offline.dump import Wanted, dump
from perstack_stored.offline.locked import locked_datadir
from tests.helpers.daemon import running_daemon
from tests.helpers.datadir import Died, SimulatedDisk
from tests.offline.bases import SMALL_SEGMENTS, copy_base, event, make_base_of_segments, run, store


@pytest.fixture(scope="module")
def grown(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with one record more. It fits into the last segment, whether or not the next one is ready."""
    base = copy_base(original, tmp_path_factory.mktemp("grown") / "base")
    with running_daemon(base, *SMALL_SEGMENTS) as daemon:
        store(daemon.endpoint, [event("later", text="x" * 10_000)])
        assert daemon.stop() == 0
    return base


def take(base: Path, target: Path, keep: int, files: FileSystem | None = None) -> Path:
    return Path(backup_and_keep(str(base), str(target), keep=keep, files=files).path)


def names(target: Path) -> list[str]:
    return sorted(path.name for path in target.iterdir())


def inodes(backup: Path) -> set[int]:
    return {path.stat().st_ino for path in backup.iterdir()}


def restored(backup: Path, at: Path) -> int:
    """Restore a backup; return its count of records, all of which were read."""
    restore(str(backup), str(at), to_position=None)
    with locked_datadir(str(at), "test", reads_only=True) as held:
        found = [json.loads(line)["position"] for line in dump(held, Wanted(show_secrets=True))]
    assert found == list(range(1, len(found) + 1))
    return len(found)


def test_the_newest_stay_and_share_what_did_not_change(original: Path, grown: Path, tmp_path: Path) -> None:
    """By the command: what it says, and what each one restores to; an older one is not touched by a newer."""
    target = tmp_path / "backups"
    first = take(original, target, 2)
    before = {path.name: path.read_bytes() for path in first.iterdir()}
    taken = run("backup", grown, "--keep", "2", str(target))
    assert (taken.returncode, taken.stderr) == (0, "")
    old, new = names(target)
    assert f"{target}/{new} holds all records up to position 21: copied 1 of 4 segments" in taken.stdout
    assert {path.name: path.read_bytes() for path in first.iterdir()} == before
    assert len(inodes(target / old) & inodes(target / new)) == 3
    said = json.loads(run("backup", grown, "--keep", "2", "--json", str(target)).stdout)
    assert said["removed"] == [old]
    assert said["copiedSegments"] == 0
    assert names(target) == [new, Path(said["path"]).name]
    assert restored(target / new, tmp_path / "base") == 21


def test_a_backup_in_the_same_second_or_after_the_clock_was_set_back_is_the_newest(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Order of names is order of taking; and none replaces another."""
    target = tmp_path / "backups"
    at = iter([1_800_000_059, 1_800_000_059, 1_700_000_000])
    real = time.gmtime
    monkeypatch.setattr(time, "gmtime", lambda seconds=None: real(next(at) if seconds is None else seconds))
    taken = [take(original, target, 9).name for _ in range(3)]
    assert taken == names(target) == ["20270115T080059Z", "20270115T080100Z", "20270115T080101Z"]


def test_killed_at_any_step_it_leaves_only_whole_backups(original: Path, grown: Path, tmp_path: Path) -> None:
    """Of those with a whole name; the next run tidies up, and never fewer than the ones before stay."""
    model = tmp_path / "model"
    take(original, model, 1)
    step, seen = 0, set()
    while True:
        step += 1
        target = tmp_path / f"backups{step}"
        shutil.copytree(model, target)
        disk = SimulatedDisk(step, dies_at=step)
        try:
            take(grown, target, 1, disk)
        except Died:
            died = True
        else:
            died = False
        whole = [name for name in names(target) if not name.endswith(".part")]
        assert whole
        counts = [restored(target / name, tmp_path / f"base{step}-{name}") for name in whole]
        assert set(counts) <= {20, 21}
        seen.add(tuple(counts))
        assert take(grown, target, 1).name == names(target)[0]
        assert len(names(target)) == 1
        if not died:
            break
    assert step > 40
    assert seen == {(20,), (20, 21), (21,)}


def test_an_old_backup_goes_only_when_the_new_one_is_on_disk(
    original: Path, grown: Path, tmp_path: Path
) -> None:
    """No power cut takes both: the folder's names are synced before the first one is removed."""
    calls: list[str] = []

    class Noting(FileSystem):
        def rename(self, source: str, target: str, *, source_dir: int, target_dir: int) -> None:
            super().rename(source, target, source_dir=source_dir, target_dir=target_dir)
            if os.fstat(source_dir).st_ino == inode:
                calls.append("removed" if target.endswith(".part") else "named")

        def sync(self, fd: int) -> None:
            super().sync(fd)
            if os.fstat(fd).st_ino == inode:
                calls.append("synced")

    target = tmp_path / "backups"
    take(original, target, 1)
    inode = target.stat().st_ino
    take(grown, target, 1, Noting())
    assert calls == ["named", "synced", "removed"]


def test_where_there_are_no_hard_links_it_copies(original: Path, grown: Path, tmp_path: Path) -> None:
    """And has synced each copy before the backup has its name."""
    synced: set[int] = set()

    class Linkless(FileSystem):
        def link(self, name: str, *, source_dir: int, target_dir: int) -> None:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

        def sync_data(self, fd: int) -> None:
            super().sync_data(fd)
            synced.add(os.fstat(fd).st_ino)

    old = take(original, tmp_path / "backups", 2)
    new = take(grown, tmp_path / "backups", 2, Linkless())
    assert inodes(old) & inodes(new) == set()
    assert inodes(new) <= synced
    assert restored(new, tmp_path / "base") == 21
    assert {path.stat().st_mode & 0o777 for path in new.iterdir()} == {0o600}


def test_a_failure_removes_nothing(original: Path, tmp_path: Path) -> None:
    """Of another history, of a base that lost records, or with an older backup that is damaged."""
    target, other = tmp_path / "backups", tmp_path / "other"
    make_base_of_segments(other)
    kept = take(original, target, 1)
    before = names(target)
    with pytest.raises(ConfigError, match="another history"):
        take(other, target, 1)
    assert names(target) == before
    (kept / "backup.json").unlink()
    with pytest.raises(BackupDamagedError, match=r"lost its backup\.json"):
        take(original, target, 1)
    assert names(target) == before


def test_a_folder_of_something_else_is_left_alone(original: Path, tmp_path: Path) -> None:
    """Also one with a single backup, and a place within the base."""
    single, strange = tmp_path / "single", tmp_path / "strange"
    assert run("backup", original, str(single)).returncode == 0
    strange.mkdir()
    (strange / "notes.txt").write_text("mine")
    (strange / "20260131T020000Z.part").mkdir()
    for target in (single, strange):
        before = names(target)
        with pytest.raises(ConfigError, match="did not make"):
            take(original, target, 1)
        assert names(target) == before
    within = copy_base(original, tmp_path / "base")
    with pytest.raises(ConfigError, match="within the base"):
        take(within, within / "jobs" / "backups", 1)
    assert not (within / "jobs" / "backups").exists()


def test_one_that_a_restore_reads_stays_until_the_next_run(original: Path, tmp_path: Path) -> None:
    target = tmp_path / "backups"
    first = take(original, target, 1)
    with open_folder(FileSystem(), str(first), make=False):
        take(original, target, 1)
        assert len(names(target)) == 2
        assert first.exists()
    take(original, target, 1)
    assert len(names(target)) == 1


def test_a_restore_of_the_whole_folder_names_the_newest(original: Path, tmp_path: Path) -> None:
    new = take(original, tmp_path / "backups", 2)
    done = run("restore", tmp_path / "base", str(tmp_path / "backups"))
    assert done.returncode == 2
    assert f"name one, such as {new}, the newest" in done.stderr


def test_two_at_a_time_are_refused(original: Path, tmp_path: Path) -> None:
    target = tmp_path / "backups"
    target.mkdir()
    with (
        open_folder(FileSystem(), str(target), make=True),
        pytest.raises(ConfigError, match="another process"),
    ):
        take(original, target, 1)
