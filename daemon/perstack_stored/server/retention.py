"""Retention: an hourly sweep deletes the jobs that the settings don't keep. Off unless a setting asks for it.

A thread chooses jobs from the index; the loop stores the deletions, some at a time, and waits for the tree
before the next. A job of which anything is stored after it was chosen is left for a later sweep.
"""

import contextlib
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import structlog

from perstack_stored.config.settings import Settings
from perstack_stored.datadir.layout import DataDir
from perstack_stored.errors import StorageFullError, StoredError
from perstack_stored.index.connection import connect, read_cursor
from perstack_stored.index.retention import Candidate, JournalTimes, OutOfTree, Policy, Selection
from perstack_stored.journal.entry_format import NotAnEntryError
from perstack_stored.journal.last_writers import Expectation
from perstack_stored.journal.reader import JournalReader
from perstack_stored.journal.segment_names import segment_name
from perstack_stored.model import deletions
from perstack_stored.model.deletions import Deletion
from perstack_stored.model.owners import NO_RUN
from perstack_stored.store.group_commit import GroupCommit
from perstack_stored.tree import left_out
from perstack_stored.tree.old_jobs import OldJobs

AT_ONCE = 16
"""Jobs that are deleted before the tree must have removed their files."""
_INDEX_WAIT_SECONDS = 30.0
_INDEX_POLL_SECONDS = 0.02
_REST_SECONDS = 0.0005
_ERRORS = (sqlite3.Error, OSError, StoredError, NotAnEntryError)

_log = structlog.get_logger()


def policy_of(settings: Settings) -> Policy:
    """What the settings keep."""
    return Policy(
        settings.retain_days,
        settings.retain_failed_days,
        settings.retain_running_days,
        settings.retain_jobs,
        settings.retain_bytes,
    )


def choose(datadir: DataDir, policy: Policy, now_ms: int) -> list[Candidate]:
    """The jobs that the next sweep deletes. It only reads, also beside a daemon.

    Raises:
        sqlite3.Error, OSError, StoredError, NotAnEntryError: index or journal can't be read.
    """
    with _opened(datadir) as (database, reader):
        times = JournalTimes(database, reader)
        selection = Selection(
            database,
            policy,
            lambda ms: times.position_at(ms, now_ms),
            lambda: journal_share(datadir, reader),
            _out_of_tree(datadir, database, reader),
            _rest,
        )
        return selection.candidates(now_ms)


@contextlib.contextmanager
def _opened(datadir: DataDir) -> Iterator[tuple[sqlite3.Connection, JournalReader]]:
    reader = JournalReader(datadir.files, datadir.folders.journal)
    try:
        with contextlib.closing(connect(datadir.index_path, read_only=True)) as database:
            yield database, reader
    finally:
        reader.close()


def journal_share(datadir: DataDir, reader: JournalReader) -> float:
    """Bytes on disk of the journal's complete segments for each byte in them; 1 without any."""
    ends = {number: reader.chain.end_of(number) for number in reader.chain.headers}
    on_disk = logical = 0
    for number, end in ends.items():
        if end is not None:
            found = datadir.files.stat(segment_name(number), dir_fd=datadir.folders.journal)
            on_disk += found.st_blocks * 512
            logical += end
    return on_disk / logical if logical else 1.0


def _out_of_tree(datadir: DataDir, database: sqlite3.Connection, reader: JournalReader) -> OutOfTree:
    """What has no file in the tree, by the tree's record of that."""
    stores = [header.store for header in reader.chain.headers.values()]
    if not stores:
        return OutOfTree()
    found = left_out.load(datadir.files, datadir.folders.stored, stores[0]).left_out
    return OutOfTree(OldJobs(database, found).is_out, found.has_event if found.ever else None)


def _rest() -> None:
    time.sleep(_REST_SECONDS)


class NoRetention:
    """Retention that keeps everything."""

    def follow(self, now: float, group_commit: GroupCommit, tree_position: int) -> None:
        """Do nothing."""

    def apply_settings(self, settings: Settings) -> None:
        """Do nothing."""

    def describe(self) -> dict[str, Any]:
        """The state for `stats`."""
        return {"sweeps": 0, "deleted": 0, "candidates": 0, "candidateBytes": 0, "fault": ""}


class Retention:
    """Sweeps. `follow` is called by the loop, about once a second."""

    def __init__(self, datadir: DataDir, settings: Settings, now_ms: Callable[[], int]) -> None:
        """Prepare it; a thread starts with the first sweep.

        Args:
            datadir: holds index and journal.
            settings: what is kept.
            now_ms: the time by which ages are counted.
        """
        self._datadir = datadir
        self._now_ms = now_ms
        self._tasks: queue.SimpleQueue[Callable[[], list[Candidate]]] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[list[Candidate] | Exception] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._collect: Callable[[list[Candidate]], None] | None = None  # what a result is for
        self._chosen: deque[Candidate] = deque()
        self._verified: list[Candidate] = []
        self._verified_to = 0  # position up to which those were looked at
        self._last_position = 0  # of the newest deletion
        self._next_sweep: float | None = None
        self.sweeps = self.deleted = self.candidates = self.candidate_bytes = 0
        self.fault = ""
        self._policy = policy_of(settings)
        self._interval = settings.retain_sweep_seconds

    def apply_settings(self, settings: Settings) -> None:
        """Apply changed bounds; what was chosen by others is dropped."""
        policy = policy_of(settings)
        self._interval = settings.retain_sweep_seconds
        if policy != self._policy:
            self._policy = policy
            self._next_sweep = None
            self._chosen.clear()

    def describe(self) -> dict[str, Any]:
        """The state for `stats`."""
        return {
            "sweeps": self.sweeps,
            "deleted": self.deleted,
            "candidates": self.candidates,
            "candidateBytes": self.candidate_bytes,
            "fault": self.fault,
        }

    def follow(self, now: float, group_commit: GroupCommit, tree_position: int) -> None:
        """Take the next step of a sweep, if one is due.

        Args:
            now: a monotonic time.
            group_commit: stores the deletions.
            tree_position: position that the tree has reached.
        """
        if self._collect is not None and not self._take_result(now):
            return
        if self._verified:
            self._delete(group_commit)
        elif self._chosen:
            if tree_position >= self._last_position:
                self._verify_some(group_commit)
        elif self._policy and (self._next_sweep is None or now >= self._next_sweep):
            policy, now_ms = self._policy, self._now_ms()
            self._start(lambda: choose(self._datadir, policy, now_ms), self._planned)

    def _take_result(self, now: float) -> bool:
        """Collect a result of the thread; returns whether there was one to go on with."""
        try:
            result = self._results.get_nowait()
        except queue.Empty:
            return False
        collect, self._collect = self._collect, None
        if isinstance(result, Exception):
            if not self.fault:
                _log.error("retention_failed", reason=str(result))
            self.fault = str(result)
            self._chosen.clear()
            self._next_sweep = now + self._interval
            return False
        self.fault = ""
        assert collect is not None
        if collect == self._planned:
            is_first, self._next_sweep = self._next_sweep is None, now + self._interval
            self._planned(result)
            if is_first:
                return False  # only said; the first sweep comes an interval later
            self.sweeps += 1
            self._chosen.extend(result)
            return True
        collect(result)
        return True

    def _planned(self, chosen: list[Candidate]) -> None:
        self.candidates = len(chosen)
        self.candidate_bytes = sum(one.bytes for one in chosen)
        if chosen:
            _log.warning(
                "retention_planned",
                jobs=len(chosen),
                bytes=self.candidate_bytes,
                oldest=chosen[0].job,
                newest=chosen[-1].job,
            )

    def _verify_some(self, group_commit: GroupCommit) -> None:
        """Have the next jobs looked at again; what is stored from now on is noted by the committer."""
        some = [self._chosen.popleft() for _ in range(min(AT_ONCE, len(self._chosen)))]
        written = self._verified_to = group_commit.committer.watch(one.job for one in some)
        self._start(lambda: self._unchanged(some, written), self._to_delete)

    def _to_delete(self, unchanged: list[Candidate]) -> None:
        self._verified = unchanged

    def _delete(self, group_commit: GroupCommit) -> None:
        verified, self._verified = self._verified, []
        for one in verified:
            if not group_commit.committer.is_quiet(one.job):
                continue
            payload = deletions.encode(Deletion(one.job, why=one.why))
            try:
                group_commit.store_deletion(
                    payload, Expectation((one.job, NO_RUN), self._verified_to), partial(self._stored, one)
                )
            except StorageFullError as error:
                _log.warning("retention_stopped", reason=str(error))
                self._chosen.clear()
                return

    def _stored(self, one: Candidate, position: int | None) -> None:
        """Note what became of a deletion."""
        if position is None:
            return  # somebody has stored for the job: a later sweep looks at it again
        self._last_position = position
        self.deleted += 1
        self.candidates = max(0, self.candidates - 1)
        self.candidate_bytes = max(0, self.candidate_bytes - one.bytes)
        _log.info("job_retired", job=one.job, why=one.why, bytes=one.bytes, position=position)

    # --- in the thread -----------------------------------------------------------------------------

    def _start(self, task: Callable[[], list[Candidate]], collect: Callable[[list[Candidate]], None]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="retention", daemon=True)
            self._thread.start()
        self._collect = collect
        self._tasks.put(task)

    def _work(self) -> None:
        while True:
            task = self._tasks.get()
            try:
                self._results.put(task())
            except _ERRORS as error:
                self._results.put(error)

    def _unchanged(self, some: list[Candidate], written: int) -> list[Candidate]:
        """Those of which nothing was stored, as the index has it at a position or later."""
        until = time.monotonic() + _INDEX_WAIT_SECONDS
        with _opened(self._datadir) as (database, _):
            while read_cursor(database).position < written:
                if time.monotonic() > until:
                    return []
                time.sleep(_INDEX_POLL_SECONDS)
            return list(Selection(database, Policy(), lambda _ms: 0, lambda: 1.0).unchanged(some))
