"""Deletions in the index: rows of a deleted job or run go in the transaction of the record that deletes them.

The journal may hold the records for longer; `Removals` says which of them count no more.
"""

import sqlite3
from collections.abc import Iterator
from typing import Any, NamedTuple

from perstack_stored.errors import IndexUnusableError
from perstack_stored.index.event_blocks import BadBlockError, decode
from perstack_stored.index.event_writer import EventWriter
from perstack_stored.index.older_versions import count_longer, delete_of_run, keep_checkpoint
from perstack_stored.index.schema import SPAN_POSITIONS
from perstack_stored.model.checksum import crc32c
from perstack_stored.model.deletions import Deletion
from perstack_stored.model.erasures import Removal
from perstack_stored.model.gaps import Gap

_RUNS = "SELECT id FROM run WHERE job = ?"
_OF_RUNS = (("event_block", "run"), ("event", "run"), ("setting", "run"), ("run_count", "run"), ("run", "id"))
_ROWS_OF_JOB = (
    "DELETE FROM checkpoint WHERE job = ?",
    "DELETE FROM older WHERE job = ?",
    "DELETE FROM job WHERE id = ?",
    "DELETE FROM known_job WHERE name = ?",
    "DELETE FROM large WHERE job = ?",
    "DELETE FROM job_span WHERE job = ?",
)
_NOTE_SPAN = "INSERT OR IGNORE INTO job_span VALUES (?, ?)"
_KEEP_SPANS = "INSERT INTO removed_span SELECT ?, span FROM job_span WHERE job = ?"
_PENDING = "SELECT position, job, run, is_redaction FROM deletion WHERE NOT erased AND position <= ?"
_PENDING_FACTS = (
    "SELECT count(*), coalesce(min(time), 0), coalesce(min(position), 0)"
    " FROM deletion INDEXED BY deletion_pending WHERE NOT erased"
)
RUN_OF_CHECKPOINT = (
    "SELECT run.name FROM checkpoint JOIN run ON run.id = checkpoint.run"
    " WHERE checkpoint.job = ? AND checkpoint.id = ?"
)
_KEEP_CURRENT = (
    "DELETE FROM deleted_checkpoint WHERE deletion = ?"
    " AND EXISTS (SELECT 1 FROM checkpoint WHERE job = ? AND checkpoint.id = deleted_checkpoint.id)"
)
_DROP_CHECKPOINTS = (
    "DELETE FROM deleted_checkpoint WHERE deletion IN (SELECT position FROM deletion WHERE job = ?)"
)
# A job may have very many runs: SQLite looks at them, and Python at none.
_REMAINING = "FROM run JOIN run_count ON run_count.run = run.id WHERE job = ? AND begun IS NOT NULL"
_FIRST = f"SELECT begun, first_position, expert {_REMAINING} ORDER BY first_position LIMIT 1"
_FIRST_TIME = f"SELECT min(begun) {_REMAINING} AND dated"
_NEWEST = (
    f"SELECT status, usage {_REMAINING} AND parent IS NULL AND status IS NOT NULL"
    " ORDER BY last_position DESC LIMIT 1"
)


class Pending(NamedTuple):
    """Deletions that are not erased: their count, the time of the oldest in ms, and the first position."""

    deletions: int = 0
    oldest_ms: int = 0
    first: int = 0


class DeletionWriter:
    """Applies deletions. All of it is part of the caller's transaction."""

    def __init__(self, database: sqlite3.Connection, events: EventWriter) -> None:
        self._database = database
        self._events = events

    def apply(self, deletion: Deletion, payload: memoryview, position: int, time_ms: int) -> None:
        """Remove the rows of a job or run.

        Args:
            deletion: what is deleted.
            payload: the record.
            position: its position.
            time_ms: when it was stored.

        Raises:
            IndexUnusableError: a row has changed.
        """
        execute = self._database.execute
        last_run = self._events.last_run()
        self._events.make_room()  # what is cached of runs and jobs may go now
        job, run = deletion.jobId, deletion.runId
        value = bytes(payload)
        self._drop_older(deletion)
        execute(_KEEP_SPANS, (position, job))
        execute(
            "INSERT OR REPLACE INTO deletion VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0)",
            (position, time_ms, job, run, value, crc32c(value), last_run, int(deletion.is_redaction)),
        )
        if deletion.is_redaction:
            return  # the caller puts its setting in the place of the old one
        if run is None:
            self._delete_runs(_RUNS, job)
            for statement in _ROWS_OF_JOB:
                execute(statement, (job,))
        execute(_NOTE_SPAN, (job, position // SPAN_POSITIONS))
        if run is None:
            return
        found = execute(f"{_RUNS} AND name = ?", (job, run)).fetchone()
        if found is not None:
            self._delete_rows_of_run(position, deletion, found[0])
        # Of a run that was erased before an index was rebuilt, gaps name the checkpoints.
        named = execute("SELECT id FROM deleted_checkpoint WHERE deletion = ?", (position,)).fetchall()
        count_longer(self._database, job, [id for (id,) in named])
        execute(_KEEP_CURRENT, (position, job))
        self._sum_up(job)

    def _drop_older(self, deletion: Deletion) -> None:
        """Drop redactions that a deletion removes, and what is known of runs that went before their job."""
        job, run = deletion.jobId, deletion.runId
        of_run, key = ("", (job,)) if run is None else (" AND run = ?", (job, run))
        self._database.execute(f"DELETE FROM deletion WHERE job = ? AND is_redaction{of_run}", key)  # noqa: S608
        if run is None:
            self._database.execute(_DROP_CHECKPOINTS, (job,))

    def _delete_rows_of_run(self, position: int, deletion: Deletion, number: int) -> None:
        execute, job, run = self._database.execute, deletion.jobId, deletion.runId
        of_run = "checkpoint WHERE job = ? AND run = ?"
        execute(
            f"INSERT OR REPLACE INTO deleted_checkpoint SELECT ?, id FROM {of_run}",  # noqa: S608 - a constant
            (position, job, number),
        )
        execute(f"DELETE FROM {of_run}", (job, number))  # noqa: S608
        delete_of_run(self._database, job, number)
        execute("DELETE FROM large WHERE job = ? AND run = ?", (job, run))
        self._delete_runs("?", number)

    def remove_checkpoint(self, gap: Gap, position: int) -> str | None:
        """The checkpoint at a position was erased; remove the one that it replaced.

        Returns:
            the run of a checkpoint that was there; None without one. The caller counts it there no more.
        """
        job, id, deletion = gap.jobId, gap.id, gap.removed
        found = self._database.execute(RUN_OF_CHECKPOINT, (job, id)).fetchone()
        keep_checkpoint(self._database, job, id, position)
        self._database.execute("DELETE FROM checkpoint WHERE job = ? AND id = ?", (job, id))
        self._database.execute("INSERT OR REPLACE INTO deleted_checkpoint VALUES (?, ?)", (deletion, id))
        return None if found is None else str(found[0])

    def note_span(self, job: str, position: int) -> None:
        """Note that a job has something at a position."""
        self._database.execute(_NOTE_SPAN, (job, position // SPAN_POSITIONS))

    def pending(self) -> Pending:
        """The deletions that are not erased."""
        return Pending(*self._database.execute(_PENDING_FACTS).fetchone())

    def note_erased(self, position: int) -> None:
        """Note that all deletions up to a position are erased."""
        execute = self._database.execute
        execute("UPDATE deletion SET erased = 1 WHERE position <= ? AND NOT erased", (position,))
        execute("DELETE FROM removed_span WHERE deletion <= ?", (position,))

    def _delete_runs(self, numbers: str, bound: str | int) -> None:
        """Delete the rows of some runs; `numbers` is SQL for their numbers, with one value bound.

        A statement for each run would cost twice as much where a job has very many.
        """
        execute = self._database.execute
        self._database.executemany("DELETE FROM twin WHERE position = ?", self._named(numbers, bound))
        for table, column in _OF_RUNS:
            execute(f"DELETE FROM {table} WHERE {column} IN ({numbers})", (bound,))  # noqa: S608 - constants

    def _named(self, numbers: str, bound: str | int) -> Iterator[tuple[int]]:
        """Positions of events of some runs that don't have their plain file name."""
        execute = self._database.execute
        of_runs = f"WHERE run IN ({numbers})"
        yield from execute(f"SELECT position FROM event {of_runs} AND n > 1", (bound,))  # noqa: S608 - constants
        for (data,) in execute(f"SELECT data FROM event_block {of_runs}", (bound,)):  # noqa: S608 - constants
            try:
                block = decode(data)
            except (BadBlockError, TypeError) as error:
                raise IndexUnusableError(str(error)) from error
            if max(block.ns) > 1:
                for position, n in zip(block.columns[0], block.ns, strict=True):
                    if n > 1:
                        yield (block.position + position,)

    def _sum_up(self, job: str) -> None:
        """Summarise a job again, of which a run has gone, from its other runs and its Job."""
        execute = self._database.execute
        first = execute(_FIRST, (job,)).fetchone()
        stored = execute("SELECT started_at FROM job WHERE id = ?", (job,)).fetchone()
        if first is None and stored is None:
            execute("DELETE FROM known_job WHERE name = ?", (job,))
            return
        (first_time,) = execute(_FIRST_TIME, (job,)).fetchone()
        times = [first_time] if first_time is not None else []
        if stored is not None:
            times.append(int(stored[0]))
        row: dict[str, Any] = {
            "begun": min(times) if times else first[0],
            "dated": int(bool(times)),
            "first_position": None if first is None else first[1],
        }
        if stored is None:
            row["expert"] = first[2]
            newest = execute(_NEWEST, (job,)).fetchone()
            row["status"], row["usage"] = newest or (None, None)
        columns = ", ".join(f"{name} = :{name}" for name in row)
        execute(f"UPDATE known_job SET {columns} WHERE name = :name", row | {"name": job})  # noqa: S608


def pending_removals(database: sqlite3.Connection, until: int) -> list[tuple[Removal, list[int]]]:
    """The deletions up to a position that are not erased, each with the spans that it has records in."""
    with_spans = []
    for position, job, run, is_redaction in database.execute(_PENDING, (until,)).fetchall():
        spans = database.execute("SELECT span FROM removed_span WHERE deletion = ?", (position,))
        removal = Removal(position, job, run, bool(is_redaction))
        with_spans.append((removal, [span for (span,) in spans]))
    return with_spans


class Removals:
    """Which records after a position were removed by a deletion. False if none of them can be."""

    def __init__(self, database: sqlite3.Connection, after: int) -> None:
        """Look up whether there is a deletion after a position."""
        self._database = database
        self._after = after
        (newest,) = database.execute("SELECT max(position) FROM deletion").fetchone()
        self._newest = newest or 0
        self._of_job: dict[str, list[tuple[int, str | None, int]]] = {}

    def __bool__(self) -> bool:
        return self._newest > self._after

    def has(self, position: int, job: str, run: str, *, is_setting: bool = False) -> bool:
        """Whether a record of a job, and of a run if it has one, was removed.

        It is no deletion itself; a redaction counts as a setting.
        """
        if position >= self._newest and job not in self._of_job:
            return False  # one that was looked up may have a deletion since: it counts for all of its records
        return any(
            later > position and name in {None, run} and (is_setting or not of_settings)
            for later, name, of_settings in self._after_of(job)
        )

    def has_checkpoint(self, position: int, job: str, id: str) -> bool:
        """Whether a checkpoint went with another run, which had stored the last version of its id."""
        select = "SELECT 1 FROM deleted_checkpoint WHERE deletion = ? AND id = ?"
        return position < self._newest and any(
            later > position
            and name is not None
            and self._database.execute(select, (later, id)).fetchone() is not None
            for later, name, _ in self._after_of(job)
        )

    def _after_of(self, job: str) -> list[tuple[int, str | None, int]]:
        found = self._of_job.get(job)
        if found is None:
            found = self._of_job[job] = self._database.execute(
                "SELECT position, run, is_redaction FROM deletion WHERE job = ? AND position > ?",
                (job, self._after),
            ).fetchall()
        return found
