"""Lets old jobs leave the tree, a few files at a time, and writes back those that are asked for.

A job leaves when it has ended, and its last record is older than `tree-keep-days`. First the record of what
is left out says so, then files are unlinked; so a crash leaves files that may be there, and a later sweep
removes them: it looks at each folder of the tree.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import structlog

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.datadir.layout import TOP, DataDir
from perstack_stored.errors import DamageError
from perstack_stored.journal.entry_format import NotAnEntryError

from .left_out import WrittenBack
from .requests import Requests
from .writer import TreeWriter

UNLINKS_PER_SECOND = 200
"""Files that leave the tree in a second: on ext4 a long row of unlinks makes later writes slow."""
WRITTEN_BACK_MAX = 1000
"""Jobs that stay in the tree because somebody asked for them."""
_UNLINKS_AT_ONCE = 100
_NAMES_AT_ONCE = 200  # folders looked at in one step
_LEAVING_MAX = 64  # jobs in the record whose files are being removed
_REQUESTS_SECONDS = 0.5
_DAY_MS = 86_400_000

_log = structlog.get_logger()


class SweepOptions(NamedTuple):
    """How long jobs stay.

    Attributes:
        keep_days: days after its last record a job that has ended leaves the tree; 0: it stays.
        interval: seconds between two sweeps.
    """

    keep_days: int = 0
    interval: float = 3600.0


class Sweep:
    """Steps of the tree's process beside its writing."""

    def __init__(
        self,
        datadir: DataDir,
        tree: TreeWriter,
        options: SweepOptions,
        position_at: Callable[[int, int], int],
        now_ms: Callable[[], int],
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare it.

        Args:
            datadir: the data directory.
            tree: writes the tree.
            options: how long jobs stay.
            position_at: the position up to which records are older than a time in ms, as of a later one.
            now_ms: the time by which ages are counted; 0 as long as it is not known.
            on_change: called before the record of what is left out changes: another process may go by it.
        """
        self._files: FileSystem = datadir.files
        self._base_dir = datadir.folders.base
        self._tree = tree
        self._options = options
        self._position_at = position_at
        self._now_ms = now_ms
        self._on_change = on_change
        self._requests = Requests(datadir.files, datadir.folders.stored)
        self._names: deque[str] = deque()  # folders of the tree to look at
        self._leaving: deque[str] = deque()
        self._next_sweep = 0.0
        self._next_look = 0.0
        self._stepped = 0.0
        self._allowed = 0.0  # files that may be removed now
        self._left = self._removed = 0
        self._failed: set[str] = set()  # requests
        self._requests_fault = ""

    def prepare_whole(self) -> None:
        """Before all of the tree is written: don't write what leaves it at once.

        Raises:
            OSError: the record of it can't be written.
        """
        if self._options.keep_days:
            self._note_age(most=None)

    def step(self) -> None:
        """Do what is due. It takes no longer than some files.

        Raises:
            OSError: the file system refuses; it can be tried again.
            TreeUnsyncedError: files may not be on disk.
            IndexUnusableError: the index is damaged.
        """
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + _REQUESTS_SECONDS
            self._write_back()
        if not self._options.keep_days and not self._tree.old_jobs.left_out.jobs_until:
            return
        self._allowed = min(_UNLINKS_AT_ONCE, self._allowed + (now - self._stepped) * UNLINKS_PER_SECOND)
        self._stepped = now
        if self._leaving:
            self._remove()
        elif self._names:
            self._choose()
        elif now >= self._next_sweep:
            self._next_sweep = now + self._options.interval
            if self._options.keep_days:
                self._note_age(most=self._tree.synced)
            self._names.extend(self._folders())
            self._choose()

    def _note_age(self, most: int | None) -> None:
        """Note up to which position jobs leave now, and forget who was written back too long ago.

        It goes no further than `most`: files of later records may be written again after a crash.
        """
        before = self._tree.old_jobs.left_out
        now_ms = self._now_ms()
        if not now_ms:
            return
        since = now_ms - self._options.keep_days * _DAY_MS
        try:
            until = self._position_at(since, now_ms)
        except (DamageError, NotAnEntryError) as error:
            _log.error("tree_sweep_failed", reason=str(error))  # who reads there hears of it as well
            return
        until = until if most is None else min(until, most)
        now = before._replace(
            jobs_until=max(before.jobs_until, until),
            written_back=tuple(one for one in before.written_back if one.time_ms > since),
        )
        if now != before:
            self._on_change()
            self._tree.take_left_out(now)

    def _folders(self) -> list[str]:
        if not self._tree.old_jobs.left_out.jobs_until:
            return []
        try:
            fd = self._files.open_dir(TOP[0], dir_fd=self._base_dir)
        except FileNotFoundError:
            return []
        try:
            return self._files.list_dir(fd)
        finally:
            self._files.close(fd)

    def _choose(self) -> None:
        """Look at some folders, and note which jobs leave next."""
        some = [self._names.popleft() for _ in range(min(len(self._names), _NAMES_AT_ONCE))]
        out = [name for name in some if self._tree.old_jobs.is_out(name)]
        self._names.extendleft(reversed(out[_LEAVING_MAX:]))
        self._leaving.extend(out[:_LEAVING_MAX])
        record = self._tree.old_jobs.left_out
        if record.leaving != tuple(self._leaving):
            self._on_change()
            self._tree.take_left_out(record._replace(leaving=tuple(self._leaving)))
        if not self._names and not self._leaving and self._removed:
            _log.info("tree_thinned", jobs=self._left, files=self._removed)
            self._left = self._removed = 0

    def _remove(self) -> None:
        """Remove some files of the jobs that leave; one that has a new record stays."""
        while self._leaving and self._allowed >= 1:
            job = self._leaving[0]
            if not self._tree.old_jobs.is_out(job):
                self._tree.stop_removing()
            elif not self._remove_some(job):
                return
            self._leaving.popleft()
        if not self._leaving:
            self._choose()

    def _remove_some(self, job: str) -> bool:
        """Remove as many files of a job as may go now; returns whether it is done."""
        before = self._tree.removed
        try:
            is_done = self._tree.remove_some(job, int(self._allowed))
        except OSError as error:
            # What somebody did to the folder of one job must not stop the tree; the next sweep tries again.
            _log.warning("tree_job_stays", job=job, reason=str(error))
            is_done = True
        count = self._tree.removed - before
        self._allowed -= count
        self._removed += count
        self._left += is_done and count > 0
        return is_done

    def _write_back(self) -> None:
        """Write back the jobs that are asked for."""
        try:
            pending = self._requests.pending()
        except OSError as error:  # another user's folder must not stop the tree
            if not self._requests_fault:
                _log.error("tree_requests_unreadable", reason=str(error))
            self._requests_fault = str(error)
            return
        for name, job in pending:
            if name in self._failed:
                continue
            if job is None:
                _log.error("tree_request_unreadable", name=name)
            elif not self._tree.has_job(job):
                _log.warning("tree_request_unknown", job=job)
            else:
                self._on_change()
                try:
                    write_back(self._tree, job, self._now_ms())
                except OSError as error:
                    _log.error("tree_request_failed", job=job, reason=str(error))
                    self._failed.add(name)  # the next process tries again
                    continue
            self._requests.done(name)


def write_back(tree: TreeWriter, job: str, now_ms: int) -> None:
    """Write a job back into the tree. It stays for `tree-keep-days` from now on.

    Args:
        tree: writes the tree.
        job: id of the job.
        now_ms: the time by which ages are counted.

    Raises:
        OSError: the file system refuses; it can be tried again.
        TreeUnsyncedError: files may not be on disk.
        IndexUnusableError: the index is damaged.
    """
    tree.write_back(job)
    # After the files: from here on they must be there.
    record = tree.old_jobs.left_out
    others = [one for one in record.written_back if one.job != job][-WRITTEN_BACK_MAX + 1 :]
    tree.take_left_out(record._replace(written_back=(*others, WrittenBack(job, now_ms))))
    _log.info("job_written_back", job=job)
