"""The last step of a repair: prepared segments replace the old ones. It can be repeated if interrupted.

.stored/repair/            in progress; without plan.json the next repair removes it
├── 0000000003.segment             rewritten
├── 0000000003.segment.damaged     second name of the segment that it replaces
├── plan.json                      from now on, only the repair may use the base
└── index.sqlite                   the old one, whose addresses are wrong now
.stored/repaired-0001/     what is kept of it
"""

import json
import re
import stat
from typing import NamedTuple

from perstack_stored.datadir.filesystem import FILE_MODE, FOLDER_MODE, FileSystem, atomic_replace, read_whole
from perstack_stored.datadir.layout import INDEX_NAME, Folders
from perstack_stored.datadir.pending_repair import PLAN_NAME, REPAIR_NAME
from perstack_stored.errors import ConfigError
from perstack_stored.index.page_checksums import SUFFIX as SUMS_SUFFIX
from perstack_stored.journal.segment_names import is_segment_name

KEPT_PREFIX = "repaired-"
_KEPT = re.compile(rf"{KEPT_PREFIX}([0-9]{{4,9}})")
DAMAGED_SUFFIX = ".damaged"


class Done(NamedTuple):
    """A completed repair: the rewritten segments, and the folder that keeps the old ones."""

    segments: list[str]
    kept_in: str


def prepare(files: FileSystem, stored_dir: int) -> int:
    """Return a descriptor of an empty folder for new segments."""
    files.make_dir(REPAIR_NAME, FOLDER_MODE, dir_fd=stored_dir)
    folder = files.open_dir(REPAIR_NAME, dir_fd=stored_dir)
    for left in files.list_dir(folder):
        files.unlink(left, dir_fd=folder)
    return folder


def commit(files: FileSystem, folders: Folders, folder: int, names: list[str]) -> Done:
    """Replace segments by those prepared in the folder."""
    there = set(files.list_dir(folders.journal))
    for name in names:
        if name in there:
            fd = files.open(name, dir_fd=folders.journal)
            try:
                files.give_name(fd, name + DAMAGED_SUFFIX, dir_fd=folder)
            finally:
                files.close(fd)
    files.sync(folder)
    files.sync(folders.stored)
    atomic_replace(files, PLAN_NAME, json.dumps({"segments": names}).encode(), FILE_MODE, dir_fd=folder)
    return carry_out(files, folders)


def carry_out(files: FileSystem, folders: Folders) -> Done:
    """Carry out the plan, or the rest of it."""
    folder = files.open_dir(REPAIR_NAME, dir_fd=folders.stored)
    try:
        names = _names(files, folder)
        waiting = set(files.list_dir(folder))
        for name in names:
            if name in waiting:
                if not stat.S_ISREG(files.stat(name, dir_fd=folder).st_mode):
                    raise ConfigError(f"{name}, which a repair has made ready, is no regular file")
                files.rename(name, name, source_dir=folder, target_dir=folders.journal)
        files.sync(folders.journal)
        there = set(files.list_dir(folders.stored))
        for suffix in ("", "-wal", "-shm", SUMS_SUFFIX):
            name = INDEX_NAME + suffix
            if name in there:
                files.rename(name, name, source_dir=folders.stored, target_dir=folder)
        files.sync(folder)
        kept = 1 + max(
            (int(found[1]) for found in map(_KEPT.fullmatch, there) if found is not None),
            default=0,
        )
        kept_in = f"{KEPT_PREFIX}{kept:04d}"
        files.rename(REPAIR_NAME, kept_in, source_dir=folders.stored, target_dir=folders.stored)
        files.sync(folders.stored)
    finally:
        files.close(folder)
    return Done(names, kept_in)


def _names(files: FileSystem, folder: int) -> list[str]:
    data = read_whole(files, PLAN_NAME, dir_fd=folder)
    try:
        names = json.loads(data or b"")["segments"]
        for name in names:
            if not isinstance(name, str) or not is_segment_name(name):
                raise ValueError(f"{name!r} is no name of a segment")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"the plan of a repair that was interrupted can't be read: {error}") from error
    return list(names)
