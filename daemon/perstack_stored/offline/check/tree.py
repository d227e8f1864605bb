"""Checks that each file of the tree is there with the right content. Reads only, follows no link."""

import errno
import os
import sqlite3
import stat

from perstack_stored.datadir.filesystem import read_whole
from perstack_stored.datadir.layout import DataDir
from perstack_stored.index.connection import connect
from perstack_stored.index.job_ends import job_end
from perstack_stored.journal.entry_format import record_places
from perstack_stored.journal.reader import JournalReader
from perstack_stored.model import values
from perstack_stored.model.kinds import Kind
from perstack_stored.offline.findings import Report
from perstack_stored.offline.locked import progress
from perstack_stored.tree import blocked, left_out
from perstack_stored.tree.cursor import CURSOR_NAME, Cursor, load_cursor, save_cursor
from perstack_stored.tree.expected_files import SETTING_NAME, ExpectedFile, count_expected, expected_files
from perstack_stored.tree.old_jobs import OldJobs

from .foreign_files import report_foreign
from .journal import JournalEnd

# Findings that the next start corrects, if they lie beyond the tree's cursor.
_WRITTEN_AGAIN = ("tree_missing_file", "tree_wrong_content")


class _ObstacleError(Exception):
    """A file is wrong; says under which name it is reported."""

    def __init__(self, name: str, path: str, reason: str | None = None) -> None:
        super().__init__(name)
        self.name = name
        self.path = path
        self.reason = reason


def check_tree(
    base: DataDir, end: JournalEnd, reader: JournalReader, fresh_path: str, scratch: str, report: Report
) -> None:
    """Report how the tree differs from the journal."""
    cursor = _cursor(base, end, scratch, report)
    state = left_out.load(base.files, base.folders.stored, end.store)
    if state.is_damaged:
        report.add("tree_left_out_damage")
        cursor = state.cursor
    database = connect(fresh_path, read_only=False)
    old_jobs = OldJobs(database, state.left_out)
    check = _Check(base, end, reader, database, state, report)
    files = count_expected(database)
    passed_over = blocked.load(base.files, base.folders.stored, end.store).records
    for one in passed_over:
        report.add("tree_blocked", position=one.position, kind=one.kind or None, path=one.file or None)
    positions = {one.position for one in passed_over}
    settings = {one.file for one in passed_over if one.kind == "run_setting"}
    with progress("tree (files)", files) as advance:
        for wanted in expected_files(database, reader, old_jobs):
            # A record that killed the tree's worker might kill this process.
            if wanted.position not in positions and "/".join((*wanted.folders, wanted.name)) not in settings:
                check.file(wanted)
            advance(1)
    check.close()
    if check.late:
        report.add("tree_behind", position=cursor.position, journal=end.mark.position, files=check.late)
    report_foreign(base, database, report, cursor.position)
    report.compared["files"] = files - check.left_out
    if check.left_out:
        report.compared["left_out"] = check.left_out
    database.close()


def _cursor(base: DataDir, end: JournalEnd, scratch: str, report: Report) -> Cursor:
    """The tree's cursor. An unreadable one counts as 0: only its bytes distinguish it from a true 0."""
    cursor = load_cursor(base.files, base.folders.stored, end.store)
    found = read_whole(base.files, CURSOR_NAME, dir_fd=base.folders.stored)
    scratch_dir = base.files.open_dir(scratch)
    save_cursor(base.files, scratch_dir, end.store, cursor)
    if found is not None and found != read_whole(base.files, CURSOR_NAME, dir_fd=scratch_dir):
        report.add("tree_cursor_damage")
    base.files.close(scratch_dir)
    if cursor.position > end.mark.position:
        report.add("tree_ahead", position=cursor.position, journal=end.mark.position)
    return cursor


class _Check:
    """Checks files one by one; keeps the last folder open, because its files are consecutive."""

    def __init__(
        self,
        base: DataDir,
        end: JournalEnd,
        reader: JournalReader,
        database: sqlite3.Connection,
        state: left_out.Loaded,
        report: Report,
    ) -> None:
        self._files = base.files
        self._base_dir = base.folders.base
        self._end = end
        self._reader = reader
        self._database = database
        self._cursor = state.cursor
        self._jobs_until = state.left_out.jobs_until
        self._report = report
        self._folders: tuple[str, ...] = ()
        self._folder: int | None = None
        self._obstacles: set[str] = set()
        self._has_late_settings = False
        self.late = self.left_out = 0

    def file(self, wanted: ExpectedFile) -> None:
        """Check one file."""
        path = "/".join((*wanted.folders, wanted.name))
        try:
            self._look(wanted, path)
        except _ObstacleError as obstacle:
            if wanted.is_left_out and obstacle.name == "tree_missing_file":
                self.left_out += 1
                return
            if obstacle.name in _WRITTEN_AGAIN and self._is_late(wanted):
                self.late += 1
                return
            if obstacle.path != path and obstacle.name not in _WRITTEN_AGAIN:
                # An obstacle in a folder's place is reported once, not for each file.
                if obstacle.path in self._obstacles:
                    return
                self._obstacles.add(obstacle.path)
            self._report.add(
                obstacle.name, path=obstacle.path, position=wanted.position, reason=obstacle.reason
            )

    def close(self) -> None:
        """Close the folder."""
        if self._folder is not None:
            self._files.close(self._folder)
            self._folder = None
        self._folders = ()

    def _look(self, wanted: ExpectedFile, path: str) -> None:
        folder = self._open_folder(wanted.folders, path)
        try:
            fd = self._files.open(wanted.name, dir_fd=folder)
        except OSError as error:
            raise _obstacle(error, path, path) from None
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise _ObstacleError("tree_wrong_type", path, "it is no regular file")
            content = wanted.content()
            if found.st_size != len(content):
                raise _ObstacleError(
                    "tree_wrong_content", path, f"{found.st_size} bytes instead of {len(content)}"
                )
            if self._files.read(fd, len(content), 0) != content:
                raise _ObstacleError("tree_wrong_content", path, "other bytes")
        except OSError as error:
            raise _obstacle(error, path, path) from None
        finally:
            self._files.close(fd)

    def _open_folder(self, folders: tuple[str, ...], path: str) -> int:
        if self._folder is not None and folders == self._folders:
            return self._folder
        self.close()
        fd = os.dup(self._base_dir)
        for depth, name in enumerate(folders, 1):
            try:
                following = self._files.open_dir(name, dir_fd=fd)
            except OSError as error:
                is_link = error.errno == errno.ENOTDIR and stat.S_ISLNK(
                    self._files.stat(name, dir_fd=fd).st_mode
                )
                if is_link:
                    error = OSError(errno.ELOOP, "")
                raise _obstacle(error, "/".join(folders[:depth]), path) from None
            finally:
                self._files.close(fd)
            fd = following
        self._folder, self._folders = fd, folders
        return fd

    # --- corrected by the next start ---------------------------------------------------------------

    def _is_late(self, wanted: ExpectedFile) -> bool:
        if wanted.position > self._cursor.position or self._is_coming_back(wanted):
            return True
        if wanted.name != SETTING_NAME or self._cursor.position >= self._end.mark.position:
            return False
        # A setting that was stored again keeps its first position.
        if not self._has_late_settings:
            self._collect_late_settings()
        key = (wanted.folders[1], wanted.folders[3])
        return (
            self._database.execute("SELECT 1 FROM late WHERE job = ? AND run = ?", key).fetchone() is not None
        )

    def _is_coming_back(self, wanted: ExpectedFile) -> bool:
        """Whether the job may have left the tree, and has a record that brings it back later."""
        if wanted.position > self._jobs_until:
            return False
        end = job_end(self._database, wanted.folders[1])
        return end is not None and end.last_position > self._cursor.position

    def _collect_late_settings(self) -> None:
        """Collect the runs whose setting was stored again beyond the tree's cursor."""
        self._has_late_settings = True
        self._database.execute(
            "CREATE TEMP TABLE late (job TEXT, run TEXT, PRIMARY KEY (job, run)) WITHOUT ROWID"
        )
        self._database.execute("BEGIN")
        place = self._reader.seek(self._cursor.position, self._end.mark)
        for entry in self._reader.entries(place, self._end.mark):
            for at in record_places(entry.data, entry.header):
                if at.kind == Kind.RUN_SETTING:
                    value = values.decode(at.kind, entry.data[at.start : at.start + at.length])
                    assert isinstance(value, values.RunSetting)
                    self._database.execute(
                        "INSERT OR IGNORE INTO late VALUES (?, ?)", (value.jobId, value.runId)
                    )
        self._database.execute("COMMIT")


def _obstacle(error: OSError, place: str, path: str) -> _ObstacleError:
    """The obstacle at `place`, on the way to the file `path`."""
    if error.errno == errno.ENOENT:
        return _ObstacleError("tree_missing_file", path, None if place == path else "its folder is missing")
    if error.errno == errno.ELOOP:
        return _ObstacleError("tree_symlink", place)
    if error.errno == errno.ENOTDIR:
        return _ObstacleError("tree_wrong_type", place, "it is no folder")
    return _ObstacleError("tree_unreadable", place, error.strerror)
