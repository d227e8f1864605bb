"""Shared by the offline tools: opens and locks a base, and shows progress bars."""

import errno
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import click

from perstack_storage.protocol import resolve_base
from perstack_stored.config.settings import Settings
from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.datadir.layout import DataDir, Folders, not_yours, open_base
from perstack_stored.datadir.lock import DataDirLock, ReadOnlyLock
from perstack_stored.datadir.pending_repair import refuse_unfinished
from perstack_stored.datadir.probe import refuse_apart
from perstack_stored.errors import ConfigError
from perstack_stored.journal.deletion_guards import DeletionGuards
from perstack_stored.journal.segment_walk import Entry
from perstack_stored.journal.sessions import Sessions

SLICE_RECORDS_MAX = 2048
SLICE_BYTES_MAX = 4 << 20
_BAR_STEPS = 200
_SESSIONS_MAX = 2**31
_REMEMBERED_RECORDS_MAX = 65_000
_RUNS_MAX = 2**40

Advance = Callable[[int], None]


@contextmanager
def locked_datadir(
    base_path: str | None, role: str, *, reads_only: bool, repairs: bool = False
) -> Iterator[DataDir]:
    """Lock a base that was set up before. Nothing is created in a folder that is no base.

    Args:
        base_path: as given to the command; None for the default.
        role: name of this tool, reported to other processes that want the base.
        repairs: allow a base between two states, as an interrupted repair leaves it.
        reads_only: the base may lie on a file system that is mounted read-only, as a snapshot does.

    Raises:
        ConfigError: the folder is no base, or can't be used.
        BaseHeldError: a daemon or another tool holds the base; the message names it.
    """
    path = resolve_base(base_path)
    files = FileSystem()
    folders = open_base(files, path).folders
    if not reads_only:
        refuse_apart(files, folders, path)
    lock = _lock(path, folders, reads_only=reads_only)
    if isinstance(lock, DataDirLock):
        lock.say(role=role)
    try:
        if not repairs:
            refuse_unfinished(files, folders.stored)
        yield DataDir(path, files, folders)
    finally:
        lock.release()
        for fd in folders:
            files.close(fd)


def _lock(path: str, folders: Folders, *, reads_only: bool) -> DataDirLock | ReadOnlyLock:
    try:
        return DataDirLock(folders.stored)
    except OSError as error:
        if error.errno == errno.EROFS and reads_only:
            return ReadOnlyLock(folders.stored)
        if isinstance(error, PermissionError):
            raise not_yours(path, error) from error
        raise ConfigError(f"the lock of {path} can't be taken: {error.strerror}") from error


def keeping_sessions(settings: Settings) -> Sessions:
    """Empty sessions that forget none, whatever the daemon's bounds: for tools that open the journal."""
    return Sessions(
        sessions_max=_SESSIONS_MAX,
        session_seconds=settings.session_seconds,
        remembered_records_max=_REMEMBERED_RECORDS_MAX,
        runs_max=_RUNS_MAX,
        guards=DeletionGuards(guard_seconds=settings.delete_guard_seconds),
    )


def count_files(tree: int) -> int:
    """Count the files of a tree for a progress bar; 0 if there is none."""
    if not sys.stderr.isatty():
        return 0
    return sum(len(files) for _, _, files, _ in os.fwalk("jobs", dir_fd=tree))


def slices(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Entries in portions of bounded size, for the projections."""
    taken: list[Entry] = []
    records = size = 0
    for entry in entries:
        taken.append(entry)
        records += entry.header.count
        size += entry.header.length
        if records >= SLICE_RECORDS_MAX or size >= SLICE_BYTES_MAX:
            yield taken
            taken, records, size = [], 0, 0
    if taken:
        yield taken


@contextmanager
def progress(label: str, length: int) -> Iterator[Advance]:
    """A bar on standard error, if that is a terminal; yields a function to call for each step."""
    if not length or not sys.stderr.isatty():
        yield lambda _steps: None
        return
    steps = max(1, length // _BAR_STEPS)
    with click.progressbar(
        length=length, label=f"{label:<24}", file=sys.stderr, update_min_steps=steps, show_pos=True
    ) as bar:
        yield bar.update
        bar.pos = length  # also of what needed no step
        bar.render_progress()


def clear_bar() -> None:
    """Clear the bar's line for other output."""
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
