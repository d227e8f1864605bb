"""What a place lacks is found at the start: done another way where there is one, else refused."""

import errno
import fcntl
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from perstack_stored.datadir import probe as module
from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.datadir.layout import FileSystemFeatures, Folders, open_folders
from perstack_stored.datadir.probe import probe, refuse_apart
from perstack_stored.errors import ConfigError


@pytest.fixture
def base(tmp_path: Path) -> Path:
    for name in ("journal", "staging"):
        (tmp_path / "base/.stored" / name).mkdir(parents=True)
    return tmp_path / "base"


def failing(number: int) -> Callable[..., Any]:
    def fails(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return fails


def place(**replaced: Callable[..., Any]) -> FileSystem:
    """Files of a file system on which some calls do something else."""
    files: FileSystem = type("Lacking", (FileSystem,), replaced)()
    return files


def tried(base: Path, files: FileSystem) -> FileSystemFeatures:
    """The ways found; nothing is left behind."""
    folders = open_folders(files, str(base))
    try:
        return probe(files, folders, str(base))
    finally:
        for fd in folders:
            os.close(fd)
        assert list((base / ".stored/staging").iterdir()) == []
        jobs = base / "jobs"
        assert not jobs.exists() or list(jobs.iterdir()) == []


def refused(base: Path, files: FileSystem) -> str:
    with pytest.raises(ConfigError) as caught:
        tried(base, files)
    assert str(base) in str(caught.value)
    return str(caught.value)


def spelled(change: Callable[[str], str]) -> FileSystem:
    """Files of a file system that changes names: what is made and what is looked for."""

    def make(self: FileSystem, name: str, mode: int, *, dir_fd: int) -> int:
        return FileSystem.create(self, change(name), mode, dir_fd=dir_fd)

    def look(self: FileSystem, name: str, *, dir_fd: int) -> os.stat_result:
        return FileSystem.stat(self, change(name), dir_fd=dir_fd)

    def remove(self: FileSystem, name: str, *, dir_fd: int) -> None:
        FileSystem.unlink(self, change(name), dir_fd=dir_fd)

    return place(create=make, stat=look, unlink=remove)


def test_a_place_that_has_all_is_used_so_and_keeps_nothing(base: Path) -> None:
    """What an earlier start left when it was killed is gone as well."""
    (base / ".stored/staging/probe").touch()
    (base / ".stored/staging/probe.linked").touch()
    with capture_logs() as logs:
        assert tried(base, FileSystem()) == FileSystemFeatures(unnamed=True, exchange=True)
    assert logs == []


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL, errno.EPERM])
@pytest.mark.parametrize("call", ["create_unnamed", "give_name"])
def test_without_unnamed_files_they_get_a_name_first(base: Path, call: str, number: int) -> None:
    with capture_logs() as logs:
        assert tried(base, place(**{call: failing(number)})) == FileSystemFeatures(
            unnamed=False, exchange=True
        )
    (said,) = logs
    assert said["event"] == "place_lacks"
    assert said["lacks"] == {"files without a name": os.strerror(number)}


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_an_exchange_files_are_renamed_over(base: Path, number: int) -> None:
    assert tried(base, place(exchange=failing(number))) == FileSystemFeatures(unnamed=True, exchange=False)


def test_an_exchange_that_does_nothing_is_none(base: Path) -> None:
    assert tried(base, place(exchange=lambda *_, **__: None)) == FileSystemFeatures(
        unnamed=True, exchange=False
    )


def test_names_that_differ_by_case_must_be_two(base: Path) -> None:
    assert "differ by case" in refused(base, spelled(str.lower))


def test_names_that_unicode_writes_two_ways_must_be_two(base: Path) -> None:
    import unicodedata  # noqa: PLC0415 - here only

    files = spelled(lambda name: unicodedata.normalize("NFD", name))
    assert "Unicode" in refused(base, files)


def test_dots_and_spaces_at_the_end_of_a_name_must_stay(base: Path) -> None:
    assert "dots and spaces" in refused(base, spelled(lambda name: name.rstrip(" .")))


def test_every_name_that_an_id_may_be_must_be_possible(base: Path) -> None:
    def make(self: FileSystem, name: str, mode: int, *, dir_fd: int) -> int:
        if set(name) & set(':*?"<>|'):
            failing(errno.EINVAL)()
        return FileSystem.create(self, name, mode, dir_fd=dir_fd)

    assert "every name" in refused(base, place(create=make))


def test_names_that_are_too_long_are_reported(base: Path) -> None:
    """Such files are blocked one by one; all others are served."""

    def make(self: FileSystem, name: str, mode: int, *, dir_fd: int) -> int:
        if len(name) > 143:
            failing(errno.ENAMETOOLONG)()
        return FileSystem.create(self, name, mode, dir_fd=dir_fd)

    with capture_logs() as logs:
        assert tried(base, place(create=make)) == FileSystemFeatures()
    assert "long names" in logs[0]["lacks"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP])
def test_folders_must_be_synced(base: Path, number: int) -> None:
    assert "sync folders" in refused(base, place(sync=failing(number)))


def test_the_index_must_find_its_locks_and_its_shared_memory(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "lockf", failing(errno.ENOLCK))
        assert "locks" in refused(base, FileSystem())
    monkeypatch.setattr(mmap, "mmap", failing(errno.ENODEV))
    assert "memory" in refused(base, FileSystem())


def test_without_proc_the_sentence_names_it(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PROC", "/proc/of another machine")
    folders = open_folders(FileSystem(), str(base))
    with pytest.raises(ConfigError, match="/proc"):
        probe(FileSystem(), folders, str(base))
    for fd in folders:
        os.close(fd)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_on_a_full_disk_it_starts_in_the_way_that_every_place_has(base: Path, number: int) -> None:
    """Nothing can be tried, and reads go on."""
    with capture_logs() as logs:
        assert tried(base, place(create=failing(number))) == FileSystemFeatures(unnamed=False, exchange=False)
    assert [said["event"] for said in logs] == ["place_untried"]


@pytest.mark.parametrize("call", ["create", "rename", "create_unnamed", "exchange", "sync"])
@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ENOMEM])
def test_a_call_that_fails_is_no_lack(base: Path, call: str, number: int) -> None:
    """The start fails, and is tried again."""
    with pytest.raises(OSError, match=os.strerror(number)):
        tried(base, place(**{call: failing(number)}))


def apart(*names: str, base: Path) -> FileSystem:
    """Files of a machine on which some folders of the base are mounts of their own."""
    inodes = {(base / name).stat().st_ino for name in names}

    def are_apart(_self: FileSystem, source_dir: int, target_dir: int) -> bool:
        return (os.fstat(source_dir).st_ino in inodes) != (os.fstat(target_dir).st_ino in inodes)

    return place(are_apart=are_apart)


@pytest.mark.parametrize("name", [".stored", ".stored/journal", ".stored/staging"])
def test_a_part_of_stored_that_is_a_mount_is_refused_by_name(base: Path, name: str) -> None:
    files = apart(name, base=base)
    assert f"{base}/{name} is a file system or a mount of its own" in refused(base, files)
    folders: Folders = open_folders(files, str(base))
    with pytest.raises(ConfigError, match="of its own"):
        refuse_apart(files, folders, str(base))
    for fd in folders:
        os.close(fd)


def test_jobs_that_is_a_mount_is_tried_by_itself(base: Path) -> None:
    """What counts for the tree is what its own file system has; what a killed tree left there is removed."""
    (base / "jobs").mkdir()
    (base / "jobs/\\aside").touch()
    jobs = (base / "jobs").stat().st_ino

    def exchange(self: FileSystem, source: str, target: str, *, source_dir: int, target_dir: int) -> None:
        if os.fstat(target_dir).st_ino == jobs:
            failing(errno.EINVAL)()
        FileSystem.exchange(self, source, target, source_dir=source_dir, target_dir=target_dir)

    files = apart("jobs", base=base)
    type(files).exchange = exchange  # type: ignore[method-assign]
    with capture_logs() as logs:
        assert tried(base, files) == FileSystemFeatures(unnamed=True, exchange=False)
    assert [said["event"] for said in logs] == ["jobs_apart", "place_lacks"]


def test_a_jobs_folder_that_folds_case_is_refused(base: Path) -> None:
    (base / "jobs").mkdir()
    assert f"{base}/jobs" in refused(base, place(folds_case=lambda *_: True))
