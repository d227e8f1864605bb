"""How much is stored of a job or run, from the index alone: counts, and bytes of the values that count."""

import sqlite3
from typing import NamedTuple

from perstack_stored.errors import IndexUnusableError
from perstack_stored.index.event_blocks import BadBlockError, decode

_LENGTHS = 4  # column of a block
_RUN = "SELECT id FROM run WHERE job = ?"
_ROWS = "SELECT count(*), coalesce(sum(length), 0) FROM {} WHERE {} = ? AND segment > 0"


class Size(NamedTuple):
    """Counts of records, without versions that were replaced, and bytes of their values."""

    jobs: int = 0
    runs: int = 0
    settings: int = 0
    checkpoints: int = 0
    events: int = 0
    bytes: int = 0


def size_of(database: sqlite3.Connection, job: str, run: str | None = None) -> Size:
    """The size of a job, or of one of its runs; zeros if there is none.

    Raises:
        IndexUnusableError: a row has changed.
    """
    execute = database.execute
    if run is None:
        runs = [number for (number,) in execute(_RUN, (job,))]
        jobs, size = execute(_ROWS.format("job", "id"), (job,)).fetchone()
        checkpoints, more = execute(_ROWS.format("checkpoint", "job"), (job,)).fetchone()
    else:
        runs = [number for (number,) in execute(f"{_RUN} AND name = ?", (job, run))]
        jobs = size = 0
        select = f"{_ROWS.format('checkpoint', 'job')} AND run = ?"
        checkpoints, more = execute(select, (job, runs[0])).fetchone() if runs else (0, 0)
    size += more
    settings = events = 0
    for number in runs:
        count, more = execute(_ROWS.format("setting", "run"), (number,)).fetchone()
        settings, size = settings + count, size + more
        count, more = execute(_ROWS.format("event", "run"), (number,)).fetchone()
        events, size = events + count, size + more
        for (data,) in execute("SELECT data FROM event_block WHERE run = ?", (number,)):
            try:
                block = decode(data)
            except (BadBlockError, TypeError) as error:
                raise IndexUnusableError(str(error)) from error
            events, size = events + len(block), size + sum(block.columns[_LENGTHS])
    return Size(jobs, len(runs), settings, checkpoints, events, size)
