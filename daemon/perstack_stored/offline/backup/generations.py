"""`backup --keep`: a folder of backups, named by their times, of which the newest stay.

A new one begins with hard links to the files of the one before, which never change, so it costs what is new.
It is made in a folder named `….part` and renamed when it is complete: a name without `.part` is a complete
backup. Older ones are removed after that; one that is being removed is named `….part` first.
"""

import calendar
import errno
import os
import re
import shutil
import time
from typing import NamedTuple

from perstack_storage.protocol import resolve_base
from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.errors import ConfigError

from . import manifest as backup_folder
from .copy import Done, backup, refuse_within_base
from .manifest import COPY_BYTES, MANIFEST_NAME, Folder

_NAME = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_PART = ".part"
_TIME = "%Y%m%dT%H%M%SZ"
_FOLDER_MODE = 0o700
# The file system has no hard links, or no more of this file.
_NO_LINK = frozenset({errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV})


class Kept(NamedTuple):
    """Result of a backup beside older ones."""

    done: Done
    path: str
    removed: tuple[str, ...]


def backup_and_keep(
    base_path: str | None,
    target: str,
    *,
    keep: int,
    endpoint: str | None = None,
    verify_all: bool = False,
    files: FileSystem | None = None,
) -> Kept:
    """Make a backup of its own in the folder `target`, and remove all but the newest `keep` in it.

    Args:
        base_path: the base; None for the default.
        target: a folder of such backups of the same history, or new.
        keep: count of backups that stay, this one included; at least 1.
        endpoint: as for `backup`.
        verify_all: as for `backup`.
        files: the file system, if not the real one.

    Raises:
        ConfigError, DamageError, BackupDamagedError, OSError: as `backup` does; no backup was removed.
    """
    files = files or FileSystem()
    refuse_within_base(resolve_base(base_path), target)
    with backup_folder.open_folder(files, target, make=True) as folder:
        before = _tidy(folder)
        name = _new_name(before)
        part = f"{name}{_PART}"
        path = os.path.join(folder.path, part)
        try:
            files.make_dir(part, _FOLDER_MODE, dir_fd=folder.fd)
            if before:
                _clone(folder, before[-1], part)
            done = backup(base_path, path, endpoint=endpoint, verify_all=verify_all, files=files)
        except Exception:
            shutil.rmtree(path, ignore_errors=True)  # else the next run removes it
            raise
        files.rename(part, name, source_dir=folder.fd, target_dir=folder.fd)
        files.sync(folder.fd)
        # Only now that the new one is on disk.
        removed = tuple(old for old in [*before, name][:-keep] if _remove(folder, old))
        return Kept(done, os.path.join(folder.path, name), removed)


def newest(folder: Folder) -> str | None:
    """Name of the newest backup in a folder of backups; None if it holds none."""
    return max(filter(_NAME.fullmatch, folder.files.list_dir(folder.fd)), default=None)


def _tidy(folder: Folder) -> list[str]:
    """Remove what was interrupted. Return the names of the backups, oldest first.

    Raises:
        ConfigError: the folder holds something else; nothing was removed.
    """
    names = sorted(folder.files.list_dir(folder.fd))
    foreign = [name for name in names if not _NAME.fullmatch(name.removesuffix(_PART))]
    if foreign:
        raise ConfigError(
            f"{folder.path} holds what --keep did not make, such as {foreign[0]!r}: use another folder"
        )
    for name in names:
        if name.endswith(_PART):
            shutil.rmtree(os.path.join(folder.path, name))
    return [name for name in names if not name.endswith(_PART)]


def _new_name(before: list[str]) -> str:
    """The time, or a second after the newest backup if the clock was set back, or a second has not passed."""
    name = time.strftime(_TIME, time.gmtime())
    if before and name <= before[-1]:
        name = _second_after(before[-1])
    return name


def _second_after(name: str) -> str:
    try:
        seconds = calendar.timegm(time.strptime(name, _TIME))
    except ValueError:
        raise ConfigError(f"{name!r} names no time: no backup has such a name") from None
    return time.strftime(_TIME, time.gmtime(seconds + 1))


def _remove(folder: Folder, name: str) -> bool:
    """Remove a backup; return False if a restore reads it, which leaves it to the next run."""
    path = os.path.join(folder.path, name)
    part = f"{name}{_PART}"
    try:
        with backup_folder.open_folder(folder.files, path, make=True):
            folder.files.rename(name, part, source_dir=folder.fd, target_dir=folder.fd)
    except ConfigError:
        return False
    shutil.rmtree(os.path.join(folder.path, part))
    return True


def _clone(folder: Folder, source: str, target: str) -> None:
    """Let a new backup begin with the files of another one."""
    files = folder.files
    source_dir = files.open_dir(source, dir_fd=folder.fd)
    try:
        target_dir = files.open_dir(target, dir_fd=folder.fd)
        try:
            held = Folder(os.path.join(folder.path, source), source_dir, files)
            manifest = backup_folder.read_manifest(held)
            if manifest is None:
                raise backup_folder.BackupDamagedError(f"{held.path} has lost its {MANIFEST_NAME}")
            for name in (*(copy.file for copy in manifest.segments), MANIFEST_NAME):
                _link(files, name, source_dir, target_dir)
        finally:
            files.close(target_dir)
    finally:
        files.close(source_dir)


def _link(files: FileSystem, name: str, source_dir: int, target_dir: int) -> None:
    """Give a file a second name, or copy it where that can't be."""
    try:
        files.link(name, source_dir=source_dir, target_dir=target_dir)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        _copy(files, name, source_dir, target_dir)


def _copy(files: FileSystem, name: str, source_dir: int, target_dir: int) -> None:
    source = files.open(name, dir_fd=source_dir)
    try:
        target = files.create(name, backup_folder.FILE_MODE, dir_fd=target_dir)
        try:
            offset = 0
            while data := files.read(source, COPY_BYTES, offset):
                files.write(target, [data], offset)
                offset += len(data)
            files.sync_data(target)
        finally:
            files.close(target)
    finally:
        files.close(source)
