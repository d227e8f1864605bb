"""Finds foreign files in the tree. Reads only names; follows no link."""

import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial

from perstack_stored.datadir.layout import DataDir
from perstack_stored.index.event_reader import has_event
from perstack_stored.offline.findings import Report
from perstack_stored.tree.expected_files import JOB_NAME, SETTING_NAME
from perstack_stored.tree.write import event_name

_EVENT = re.compile(r"event-(\d{1,16})-(\d{1,16})-([^.]+)(?:\.n(\d{4,9}))?\.json")

IsOurs = Callable[[str], bool]


def report_foreign(base: DataDir, database: sqlite3.Connection, report: Report, position: int) -> None:
    """Report unexpected files in `jobs/`; a foreign folder counts as one.

    `position` is the tree's: what is deleted after it has its files still.
    """
    _Foreign(database, report, position).base(base.folders.base)


class _Foreign:
    """One method for each kind of folder in the tree."""

    def __init__(self, database: sqlite3.Connection, report: Report, position: int) -> None:
        self._database = database
        self._report = report
        select = "SELECT job FROM deletion WHERE position > ?"
        self._late = {f"jobs/{job}" for (job,) in database.execute(select, (position,))}

    def base(self, base_dir: int) -> None:
        fd = _open(base_dir, "jobs")
        if fd is None:
            return
        for name, job_dir in self._folder(fd, "jobs", self._is_job, lambda _: True):
            self._job(job_dir, name)

    def _job(self, job_dir: int, job: str) -> None:
        def is_ours(name: str) -> bool:
            if name == JOB_NAME:
                return self._has("SELECT 1 FROM job WHERE id = ?", job)
            if name == "checkpoints":
                return self._has("SELECT 1 FROM checkpoint WHERE job = ?", job)
            return name == "runs" and self._has("SELECT 1 FROM run WHERE job = ?", job)

        for name, fd in self._folder(job_dir, f"jobs/{job}", is_ours, lambda name: name != JOB_NAME):
            path = f"jobs/{job}/{name}"
            if name == "checkpoints":
                self._files(fd, path, partial(self._is_checkpoint, job))
                continue
            for run, run_dir in self._folder(fd, path, partial(self._is_run, job), lambda _: True):
                self._files(run_dir, f"{path}/{run}", partial(self._is_of_run, self._run(job, run)))

    def _folder(self, fd: int, path: str, is_ours: IsOurs, is_folder: IsOurs) -> Iterator[tuple[str, int]]:
        """Report foreign files in a folder and close it; yields its known folders, to be closed."""
        try:
            # Not a list: a run may have a million files.
            with os.scandir(fd) as found:
                for item in found:
                    if not _is_text(item.name) or not is_ours(item.name):
                        self._foreign(item, path)
                    elif is_folder(item.name) and (inner := _open(fd, item.name)) is not None:
                        yield item.name, inner
        except PermissionError as error:
            self._report.add("tree_unreadable", path=path, reason=error.strerror)
        finally:
            os.close(fd)

    def _files(self, fd: int, path: str, is_ours: IsOurs) -> None:
        """Report foreign files in a folder without known folders."""
        for _ in self._folder(fd, path, is_ours, lambda _: False):
            raise AssertionError("no folders were asked for")

    def _foreign(self, item: "os.DirEntry[str]", path: str) -> None:
        if self._late and "/".join(f"{path}/{item.name}".split("/")[:2]) in self._late:
            return
        kind = "file"
        if item.is_symlink():
            kind = "symbolic link"
        elif item.is_dir(follow_symlinks=False):
            kind = "folder"
        elif not item.is_file(follow_symlinks=False):
            kind = "special file"
        self._report.add("tree_foreign_file", path=f"{path}/{item.name}", kind=kind)

    # --- known names -------------------------------------------------------------------------------

    def _has(self, select: str, *bound: object) -> bool:
        return self._database.execute(select, bound).fetchone() is not None

    def _is_job(self, name: str) -> bool:
        return any(
            self._has(f"SELECT 1 FROM {table} WHERE {column} = ?", name)  # noqa: S608
            for table, column in (("job", "id"), ("run", "job"), ("checkpoint", "job"))
        )

    def _is_checkpoint(self, job: str, name: str) -> bool:
        is_named_so = name.endswith(".json")
        return is_named_so and self._has("SELECT 1 FROM checkpoint WHERE job = ? AND id = ?", job, name[:-5])

    def _run(self, job: str, name: str) -> int | None:
        found = self._database.execute(
            "SELECT id FROM run WHERE job = ? AND name = ?", (job, name)
        ).fetchone()
        return None if found is None else int(found[0])

    def _is_run(self, job: str, name: str) -> bool:
        return self._run(job, name) is not None

    def _is_of_run(self, run: int | None, name: str) -> bool:
        if name == SETTING_NAME:
            return self._has("SELECT 1 FROM setting WHERE run = ?", run)
        match = _EVENT.fullmatch(name)
        if match is None:
            return False
        timestamp, step, n = int(match[1]), int(match[2]), int(match[4] or 1)
        # As the tree writes it: without leading zeros.
        if event_name(timestamp, step, match[3], n) != name:
            return False
        return run is not None and has_event(self._database, run, timestamp, step, match[3], n)


def _open(dir_fd: int, name: str) -> int | None:
    """Open a folder; None for a link or another file: the check of its files reports it."""
    try:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    except OSError:
        return None


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
