"""Versions of jobs and checkpoints that were replaced, by place: for reads as of an earlier position.

A version counts from its own position to before `until`, that of the version which replaced it. The values
stay in the journal; a row has some 60 bytes and the ids.
"""

import sqlite3
from collections.abc import Iterable

from perstack_stored.model.kinds import Kind

_JOB, _CHECKPOINT = int(Kind.JOB), int(Kind.CHECKPOINT)
_KEEP_JOB = (
    f"INSERT INTO older SELECT id, {_JOB}, '', position, ?, 0, 0, segment, offset, length, crc"  # noqa: S608 - a constant
    " FROM job WHERE id = ?"
)
_KEEP_CHECKPOINT = (
    f"INSERT INTO older SELECT job, {_CHECKPOINT}, id, position, ?, step, run, segment, offset, length, crc"  # noqa: S608
    " FROM checkpoint WHERE job = ? AND id = ?"
)
_OF_RUN = f"older WHERE job = ? AND kind = {_CHECKPOINT} AND run = ?"
_NEXT = (
    f"UPDATE older SET until = coalesce((SELECT min(later.position) FROM older AS later"  # noqa: S608
    f" WHERE later.job = older.job AND later.kind = {_CHECKPOINT} AND later.id = older.id"
    " AND later.position > older.position),"
    " (SELECT position FROM checkpoint WHERE job = older.job AND id = older.id), until)"
    f" WHERE job = ? AND kind = {_CHECKPOINT} AND id = ?"
)


def keep_job(database: sqlite3.Connection, job: str, position: int) -> None:
    """Keep the Job that is there, if there is one; the version at `position` replaces it."""
    database.execute(_KEEP_JOB, (position, job))


def keep_checkpoint(database: sqlite3.Connection, job: str, id: str, position: int) -> None:
    """Keep the checkpoint that is there; the version at `position` replaces it."""
    database.execute(_KEEP_CHECKPOINT, (position, job, id))


def delete_of_run(database: sqlite3.Connection, job: str, run: int) -> None:
    """Delete what a run has stored, after its checkpoints; versions of other runs count longer then."""
    found = database.execute(f"SELECT DISTINCT id FROM {_OF_RUN}", (job, run)).fetchall()  # noqa: S608
    if found:
        database.execute(f"DELETE FROM {_OF_RUN}", (job, run))  # noqa: S608
        count_longer(database, job, [id for (id,) in found])


def count_longer(database: sqlite3.Connection, job: str, ids: Iterable[str]) -> None:
    """Let versions of some checkpoints count up to the next one that is there."""
    database.executemany(_NEXT, [(job, id) for id in ids])
