"""How much is stored of a job or run, from the index alone: counts, and bytes of the values that count."""

import sqlite3
from collections.abc import Callable, Sequence
from typing import NamedTuple

from perstack_stored.errors import IndexUnusableError
from perstack_stored.index.event_blocks import BadBlockError, EventBlock, decode

HasNoFile = Callable[[int, str], bool]
"""Whether an event, given by position and type, has no file in the tree."""

_LENGTHS = 4  # column of a block
_RUN = "SELECT id FROM run WHERE job = ?"
_BLOCK = 4096
_EVENT_ROWS = "SELECT position, type, length FROM event WHERE run = ? AND segment > 0"
_ROWS = (
    f"SELECT count(*), coalesce(sum(length), 0), coalesce(sum((length + {_BLOCK - 1}) / {_BLOCK}), 0)"  # noqa: S608 - constants
    " FROM {} WHERE {} = ? AND segment > 0"
)


class Size(NamedTuple):
    """Counts of records, without versions that were replaced, and bytes of their values."""

    jobs: int = 0
    runs: int = 0
    settings: int = 0
    checkpoints: int = 0
    events: int = 0
    bytes: int = 0
    tree_bytes: int = 0  # of their files, in blocks of 4 KiB


def size_of(
    database: sqlite3.Connection, job: str, run: str | None = None, has_no_file: HasNoFile | None = None
) -> Size:
    """The size of a job, or of one of its runs; zeros if there is none.

    Args:
        database: the index.
        job: id of the job.
        run: id of the run.
        has_no_file: which events have none; if it is not given, each has one.

    Raises:
        IndexUnusableError: a row has changed.
    """
    execute = database.execute
    total = _Total(database, has_no_file)
    if run is None:
        runs = [number for (number,) in execute(_RUN, (job,))]
        jobs = total.rows(_ROWS.format("job", "id"), job)
        checkpoints = total.rows(_ROWS.format("checkpoint", "job"), job)
    else:
        runs = [number for (number,) in execute(f"{_RUN} AND name = ?", (job, run))]
        jobs = 0
        select = f"{_ROWS.format('checkpoint', 'job')} AND run = ?"
        checkpoints = sum(total.rows(select, job, number) for number in runs)
    settings = sum(total.rows(_ROWS.format("setting", "run"), number) for number in runs)
    events = sum(total.event_rows(number) + total.event_blocks(number) for number in runs)
    return Size(jobs, len(runs), settings, checkpoints, events, total.bytes, total.blocks_of_tree * _BLOCK)


class _Total:
    """Adds up bytes."""

    def __init__(self, database: sqlite3.Connection, has_no_file: HasNoFile | None) -> None:
        self._database = database
        self._has_no_file = has_no_file
        self.bytes = self.blocks_of_tree = 0

    def rows(self, select: str, *bound: object) -> int:
        """Add the rows of a query; returns their count."""
        count, size, blocks = self._database.execute(select, bound).fetchone()
        self.bytes, self.blocks_of_tree = self.bytes + size, self.blocks_of_tree + blocks
        return int(count)

    def event_rows(self, run: int) -> int:
        """Add the events of a run that have a row each; returns their count."""
        if self._has_no_file is None:
            return self.rows(_ROWS.format("event", "run"), run)
        count = 0
        for position, type, length in self._database.execute(_EVENT_ROWS, (run,)):
            count += 1
            self.bytes += length
            if not self._has_no_file(position, type):
                self.blocks_of_tree += _blocks(length)
        return count

    def event_blocks(self, run: int) -> int:
        """Add the events in blocks of a run; returns their count."""
        count = 0
        for (data,) in self._database.execute("SELECT data FROM event_block WHERE run = ?", (run,)):
            try:
                block = decode(data)
            except (BadBlockError, TypeError) as error:
                raise IndexUnusableError(str(error)) from error
            count += len(block)
            self.bytes += sum(block.columns[_LENGTHS])
            self.blocks_of_tree += sum([_blocks(length) for length in self._with_file(block)])
        return count

    def _with_file(self, block: EventBlock) -> Sequence[int]:
        """Lengths of the events of a block that have a file."""
        positions, lengths = block.columns[0], block.columns[_LENGTHS]
        if self._has_no_file is None:
            return lengths
        return [
            length
            for position, type, length in zip(positions, block.type_numbers, lengths, strict=True)
            if not self._has_no_file(block.position + position, block.types[type])
        ]


def _blocks(length: int) -> int:
    return (length + _BLOCK - 1) // _BLOCK
