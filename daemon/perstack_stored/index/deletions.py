"""Deletions in the index: rows of a deleted job or run go in the transaction of the record that deletes them.

The journal may hold the records for longer; `Removals` says which of them count no more.
"""

import sqlite3
from typing import Any

from perstack_stored.errors import IndexUnusableError
from perstack_stored.index.event_blocks import BadBlockError, decode
from perstack_stored.index.event_writer import EventWriter
from perstack_stored.index.older_versions import delete_of_run
from perstack_stored.index.schema import SPAN_POSITIONS
from perstack_stored.model.checksum import crc32c
from perstack_stored.model.deletions import Deletion

_RUNS = "SELECT id FROM run WHERE job = ?"
_ROWS_OF_RUN = (
    "DELETE FROM event_block WHERE run = ?",
    "DELETE FROM event WHERE run = ?",
    "DELETE FROM setting WHERE run = ?",
    "DELETE FROM run_count WHERE run = ?",
    "DELETE FROM run WHERE id = ?",
)
_ROWS_OF_JOB = (
    "DELETE FROM checkpoint WHERE job = ?",
    "DELETE FROM older WHERE job = ?",
    "DELETE FROM job WHERE id = ?",
    "DELETE FROM known_job WHERE name = ?",
    "DELETE FROM large WHERE job = ?",
    "DELETE FROM job_span WHERE job = ?",
)
_NOTE_SPAN = "INSERT OR IGNORE INTO job_span VALUES (?, ?)"
_REMAINING = (
    "SELECT begun, dated, first_position, status, expert, usage, parent, last_position FROM run"
    " JOIN run_count ON run_count.run = run.id WHERE job = ? AND begun IS NOT NULL ORDER BY first_position"
)


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
        execute(
            "INSERT OR REPLACE INTO deletion VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0)",
            (position, time_ms, job, run, value, crc32c(value), last_run, int(deletion.is_redaction)),
        )
        if deletion.is_redaction:
            return  # the caller puts its setting in the place of the old one
        if run is None:
            for (number,) in execute(_RUNS, (job,)).fetchall():
                self._delete_run(number)
            for statement in _ROWS_OF_JOB:
                execute(statement, (job,))
        execute(_NOTE_SPAN, (job, position // SPAN_POSITIONS))
        if run is None:
            return
        found = execute(f"{_RUNS} AND name = ?", (job, run)).fetchone()
        if found is None:
            return
        (number,) = found
        of_run = "checkpoint WHERE job = ? AND run = ?"
        execute(
            f"INSERT OR REPLACE INTO deleted_checkpoint SELECT ?, id FROM {of_run}",  # noqa: S608 - a constant
            (position, job, number),
        )
        execute(f"DELETE FROM {of_run}", (job, number))  # noqa: S608
        delete_of_run(self._database, job, number)
        execute("DELETE FROM large WHERE job = ? AND run = ?", (job, run))
        self._delete_run(number)
        self._sum_up(job)

    def _delete_run(self, number: int) -> None:
        execute = self._database.execute
        named = execute("SELECT position FROM event WHERE run = ? AND n > 1", (number,)).fetchall()
        for (data,) in execute("SELECT data FROM event_block WHERE run = ?", (number,)):
            try:
                block = decode(data)
            except (BadBlockError, TypeError) as error:
                raise IndexUnusableError(str(error)) from error
            if max(block.ns) > 1:
                named += [
                    (block.position + position,)
                    for position, n in zip(block.columns[0], block.ns, strict=True)
                    if n > 1
                ]
        self._database.executemany("DELETE FROM twin WHERE position = ?", named)
        for statement in _ROWS_OF_RUN:
            execute(statement, (number,))

    def _sum_up(self, job: str) -> None:
        """Summarise a job again, of which a run has gone, from its other runs and its Job."""
        execute = self._database.execute
        runs = execute(_REMAINING, (job,)).fetchall()
        stored = execute("SELECT started_at FROM job WHERE id = ?", (job,)).fetchone()
        if not runs and stored is None:
            execute("DELETE FROM known_job WHERE name = ?", (job,))
            return
        times = [begun for begun, dated, *_ in runs if dated] + ([] if stored is None else [int(stored[0])])
        row: dict[str, Any] = {
            "begun": min(times) if times else runs[0][0],
            "dated": int(bool(times)),
            "first_position": runs[0][2] if runs else None,
        }
        if stored is None:
            row["expert"] = runs[0][4]
            own = [run for run in runs if run[6] is None and run[3] is not None]
            newest = max(own, key=lambda run: run[7], default=None)
            row["status"], row["usage"] = (None, None) if newest is None else (newest[3], newest[5])
        columns = ", ".join(f"{name} = :{name}" for name in row)
        execute(f"UPDATE known_job SET {columns} WHERE name = :name", row | {"name": job})  # noqa: S608


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
        if position >= self._newest:
            return False
        found = self._of_job.get(job)
        if found is None:
            found = self._of_job[job] = self._database.execute(
                "SELECT position, run, is_redaction FROM deletion WHERE job = ? AND position > ?",
                (job, self._after),
            ).fetchall()
        return any(
            later > position and name in {None, run} and (is_setting or not of_settings)
            for later, name, of_settings in found
        )
