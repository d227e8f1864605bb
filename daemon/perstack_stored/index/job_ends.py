"""Whether a job has ended, as far as the index knows, and its last record."""

import sqlite3
from typing import Literal, NamedTuple

State = Literal["finished", "failed", "running"]
"""A job of an unknown status may run."""

_FAILED = frozenset({"stoppedByError", "stoppedByMaxSteps", "stoppedByExceededMaxSteps", "failed"})
_FAILED_ENDS = frozenset({"stopRunByError", "stopRunByExceededMaxSteps"})
_END = (
    "SELECT ended FROM run JOIN run_count ON run_count.run = run.id WHERE job = ? AND parent IS NULL"
    " ORDER BY first_position DESC LIMIT 1"
)


def last_position_of(name: str) -> str:
    """SQL for the position of the last record of a job, whose name is this SQL; 0 without any."""
    return (
        f"max(coalesce((SELECT position FROM job WHERE job.id = {name}), 0), coalesce((SELECT"  # noqa: S608 - constants
        f" max(last_position) FROM run JOIN run_count ON run_count.run = run.id WHERE run.job = {name}), 0))"
    )


_JOB = f"SELECT status, {last_position_of(':job')} FROM known_job WHERE name = :job"  # noqa: S608 - constants


class JobEnd(NamedTuple):
    """Whether a job has ended, completed or failed, and the position of its last record."""

    has_ended: bool
    last_position: int


def job_end(database: sqlite3.Connection, job: str) -> JobEnd | None:
    """The end of a job; None if no record names it."""
    row = database.execute(_JOB, {"job": job}).fetchone()
    return None if row is None else JobEnd(state_of(database, job, row[0]) != "running", row[1])


def state_of(database: sqlite3.Connection, job: str, status: str | None) -> State:
    """The state of a job with this status in the index."""
    if status == "completed":
        return "finished"
    if status in _FAILED:
        return "failed"
    if status is not None:
        return "running"  # what is not known to have ended is kept
    row = database.execute(_END, (job,)).fetchone()
    ended = None if row is None else row[0]
    return "finished" if ended == "completeRun" else "failed" if ended in _FAILED_ENDS else "running"
