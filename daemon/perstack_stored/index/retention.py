"""Which jobs retention deletes: chosen from the index by age, count and bytes, whole jobs only, oldest first.

A job's age is that of its last record, by the daemon's time. A job that may still run is kept, unless it has
been silent for `running_days`.
"""

import sqlite3
from collections.abc import Callable, Iterator
from typing import NamedTuple

from perstack_stored.journal import entry_format
from perstack_stored.journal.reader import JournalReader, LogPosition

from .connection import read_cursor
from .job_ends import last_position_of, state_of
from .sizes import HasNoFile, size_of

JOBS_MAX = 1000
"""Jobs that one sweep deletes at most."""
_DAY_MS = 86_400_000
_JOBS = f"SELECT name, status, {last_position_of('known_job.name')} AS last FROM known_job ORDER BY last"  # noqa: S608
_LAST_OF = f"SELECT {last_position_of(':job')}"
_BEGINNINGS = "SELECT min(position), segment, offset FROM place GROUP BY segment ORDER BY segment"
_PLACES = "SELECT position, segment, offset FROM place WHERE position > ? AND position < ? ORDER BY position"
_Place = tuple[int, int, int]
"""Position, segment, offset."""


class Policy(NamedTuple):
    """What is kept; 0 is no limit.

    Attributes:
        days: for which a job that has ended is kept after its last record.
        failed_days: the same for a job that failed, in place of `days`.
        running_days: the same for a job that may still run.
        jobs: count of jobs.
        bytes: of all jobs on disk: their files that are in the tree, and their share of the journal.
    """

    days: int = 0
    failed_days: int = 0
    running_days: int = 0
    jobs: int = 0
    bytes: int = 0

    def __bool__(self) -> bool:
        return any(self)


class Candidate(NamedTuple):
    """A job to delete: the reason, the position of its last record, and its bytes on disk."""

    job: str
    why: str
    last_position: int
    bytes: int


class OutOfTree(NamedTuple):
    """What has no file in the tree, and takes no room there.

    Attributes:
        job: whether a job has left it.
        event: which events have no file; None if each has one.
    """

    job: Callable[[str], bool] = lambda _job: False
    event: HasNoFile | None = None


class Selection:
    """Chooses jobs."""

    def __init__(
        self,
        database: sqlite3.Connection,
        policy: Policy,
        position_at: Callable[[int], int],
        journal_share: Callable[[], float],
        out: OutOfTree = OutOfTree(),  # noqa: B008 - it can't be changed
        rest: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare it.

        Args:
            database: the index, read only.
            policy: what is kept.
            position_at: the position up to which records are older than a time in ms.
            journal_share: bytes on disk for each byte of the journal, which may be packed.
            out: what has no file in the tree.
            rest: called before each job is measured, so that other threads get their turn.
        """
        self._database = database
        self._policy = policy
        self._position_at = position_at
        self._journal_share = journal_share
        self._out = out
        self._rest = rest

    def candidates(self, now_ms: int, limit: int = JOBS_MAX) -> list[Candidate]:
        """The jobs to delete now, the oldest first.

        Raises:
            sqlite3.Error, IndexUnusableError, DamageError: index or journal can't be read.
        """
        policy = self._policy
        if not policy:
            return []
        share = self._journal_share()
        rows = self._database.execute(_JOBS).fetchall()
        sizes = {name: self._bytes(name, share) for name, _, _ in rows} if policy.bytes else {}
        jobs_over = len(rows) - policy.jobs if policy.jobs else 0
        bytes_over = sum(sizes.values()) - policy.bytes if policy.bytes else 0
        ages = _Ages(policy, self._position_at, now_ms)
        found: list[Candidate] = []
        for name, status, last in rows:
            if len(found) == limit:
                break
            state = state_of(self._database, name, status)
            why = ages.why(state, last)
            if not why and state != "running":
                why = "jobs" if jobs_over > 0 else "bytes" if bytes_over > 0 else ""
            if not why:
                continue
            size = sizes.get(name) if sizes else None
            found.append(Candidate(name, why, last, self._bytes(name, share) if size is None else size))
            jobs_over, bytes_over = jobs_over - 1, bytes_over - found[-1].bytes
        return found

    def unchanged(self, candidates: list[Candidate]) -> Iterator[Candidate]:
        """The candidates that have no newer record than when they were chosen."""
        for one in candidates:
            (last,) = self._database.execute(_LAST_OF, {"job": one.job}).fetchone()
            if last == one.last_position:
                yield one

    def _bytes(self, job: str, share: float) -> int:
        self._rest()
        size = size_of(self._database, job, has_no_file=self._out.event)
        return (0 if self._out.job(job) else size.tree_bytes) + int(size.bytes * share)


class _Ages:
    """Positions up to which jobs are too old, by their state."""

    def __init__(self, policy: Policy, position_at: Callable[[int], int], now_ms: int) -> None:
        def upto(days: int) -> int:
            return position_at(now_ms - days * _DAY_MS) if days else 0

        self._upto = {
            "finished": upto(policy.days),
            "failed": upto(policy.failed_days or policy.days),
            "running": upto(policy.running_days),
        }

    def why(self, state: str, last: int) -> str:
        """Returns "age" if a job is too old, or ""."""
        return "age" if last <= self._upto[state] else ""


class JournalTimes:
    """Finds positions by the daemon's time, at the places that the index has of the journal.

    The clock may have been wrong for a while. So a record counts as no older than any record before it, and
    times after now are ignored. The search goes by the first place of each segment, then by the places within
    one segment, then by entries.
    """

    def __init__(self, database: sqlite3.Connection, reader: JournalReader) -> None:
        self._database = database
        self._reader = reader

    def position_at(self, time_ms: int, now_ms: int) -> int:
        """The last position up to which all records were stored by a time.

        Raises:
            NotAnEntryError, DamageError, OSError: the journal can't be read there.
        """
        until = read_cursor(self._database)
        low: _Place | None = None  # the last place known to be old enough
        high = until.position + 1  # records from here on are too new, or not there
        for place in self._database.execute(_BEGINNINGS).fetchall():
            if time_ms < self._time_at(place) <= now_ms:
                high = place[0]
                break
            low = place
        if low is None:
            return 0
        for place in self._database.execute(_PLACES, (low[0], high)).fetchall():
            if time_ms < self._time_at(place) <= now_ms:
                high = place[0]
                break
            low = place
        last = low[0] - 1
        for entry in self._reader.entries(LogPosition(last, *low[1:]), until, split_large=True):
            if entry.header.position >= high or time_ms < entry.header.time_ms <= now_ms:
                break
            last = entry.header.position + entry.header.count - 1
        return last

    def _time_at(self, place: _Place) -> int:
        data = self._reader.payload(*place[1:], entry_format.ENTRY_HEADER_BYTES)
        return entry_format.decode_header(data).time_ms
