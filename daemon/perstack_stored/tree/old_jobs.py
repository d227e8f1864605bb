"""Jobs that have left the tree: those that ended, and have no record after a position.

Whether a job is among them depends on the index and the record of what is left out alone. So a job that gets
a new record belongs to the tree again, whole: the files of its older records are written before the new one.
"""

import sqlite3
from collections.abc import Callable, Iterator
from functools import partial

from perstack_stored.index.connection import read_cursor
from perstack_stored.index.event_reader import events_of_run
from perstack_stored.index.job_ends import job_end
from perstack_stored.index.schema import SPAN_POSITIONS
from perstack_stored.index.value_lookup import ValueAddress, read_value
from perstack_stored.journal.reader import JournalReader
from perstack_stored.model import json_text

from .left_out import LeftOut
from .write import SETTING_NAME, Write, event_name

_WHOLE_MAX = 4096
"""Jobs known to be whole; when there are more, they are looked at again."""
_ADDRESS = "position, segment, offset, length, crc"
_OF_JOB = f"SELECT {_ADDRESS} FROM job WHERE id = ? AND segment > 0"  # noqa: S608 - constants
_CHECKPOINTS = f"SELECT id, {_ADDRESS} FROM checkpoint WHERE job = ? AND segment > 0"  # noqa: S608
_LAST_SPAN = "SELECT max(span) FROM job_span WHERE job = ?"
_RUNS = (
    "SELECT run.id, run.name, setting.position FROM run"
    " LEFT JOIN setting ON setting.run = run.id AND setting.segment > 0 WHERE run.job = ?"
)

Setting = Callable[[str, str, int], bytes]
"""Content of a run's setting: job, run, and the position of its record."""


class OldJobs:
    """Knows which jobs have left the tree.

    Attributes:
        left_out: the record that it goes by.
    """

    def __init__(self, database: sqlite3.Connection, left_out: LeftOut) -> None:
        self._database = database
        self._whole: set[str] = set()
        self._last_out: tuple[str, int, int] | None = None  # a job, its last span, the index's position then
        self.take(left_out)

    def take(self, left_out: LeftOut) -> None:
        """Go by another record: a job that was whole may leave now."""
        self.left_out = left_out
        self._stay = {one.job for one in left_out.written_back}
        self._last_out = None
        self._whole.clear()

    def is_out(self, job: str) -> bool:
        """Whether a job has left the tree, as far as the index knows."""
        until = self.left_out.jobs_until
        if not until or job in self._stay:
            return False
        position, span = read_cursor(self._database).position, self._last_span(job)
        if self._is_known(job, position, span):
            return True
        end = job_end(self._database, job)
        is_out = end is not None and end.has_ended and end.last_position <= until
        if is_out:
            self._last_out = job, span, position
        return is_out

    def _is_known(self, job: str, position: int, span: int) -> bool:
        """Whether a job that was out last has no record since. A sweep asks often; the runs may be many."""
        if self._last_out is None or self._last_out[:2] != (job, span):
            return False
        then = self._last_out[2]
        return position == then or span < then // SPAN_POSITIONS

    def _last_span(self, job: str) -> int:
        (span,) = self._database.execute(_LAST_SPAN, (job,)).fetchone()
        return -1 if span is None else int(span)

    def sort_out(self, writes: list[Write]) -> tuple[list[Write], list[str]]:
        """Return the writes of jobs that belong to the tree, and which of these jobs may have come back."""
        until = self.left_out.jobs_until
        if not until:
            return writes, []
        unknown = dict.fromkeys(write.folders[1] for write in writes if write.folders[1] not in self._whole)
        out = {job for job in unknown if self.is_out(job)}
        # At an earlier record it was there already, or all of it is written again.
        newer = {write.folders[1] for write in writes if write.position > until}
        back = [job for job in unknown if job in newer and job not in out]
        return [write for write in writes if write.folders[1] not in out], back

    def is_whole(self, job: str) -> None:
        """Note that all files of a job are there: it has not left, or was written back."""
        if len(self._whole) >= _WHOLE_MAX:
            self._whole.clear()
        self._whole.add(job)


def files_of(
    database: sqlite3.Connection, reader: JournalReader, job: str, until: int, setting: Setting
) -> Iterator[tuple[Write, str]]:
    """The files of a job whose records stand at a position or before; with the type, if it is an event.

    Contents are read on demand.

    Raises:
        IndexUnusableError: the index is damaged.
    """

    def stored(*address: int) -> Callable[[], bytes]:
        """Raises Refusal (DAMAGED) or IndexUnusableError when it is read."""
        return lambda: read_value(reader, ValueAddress(*address), lambda: read_cursor(database))

    def indented(*address: int) -> Callable[[], bytes]:
        return lambda: json_text.indent(stored(*address)())

    top = ("jobs", job)
    for position, *address in database.execute(_OF_JOB, (job,)).fetchall():
        if position <= until:
            yield Write(position, top, "job.json", indented(*address), replaces=True), ""
    for id, position, *address in database.execute(_CHECKPOINTS, (job,)).fetchall():
        if position <= until:
            yield Write(position, (*top, "checkpoints"), f"{id}.json", stored(*address), replaces=True), ""
    for number, run, position in database.execute(_RUNS, (job,)).fetchall():
        folders = (*top, "runs", run)
        if position is not None and position <= until:
            text = partial(setting, job, run, position)
            yield Write(position, folders, SETTING_NAME, text, replaces=True, run=run), ""
        # A list: a statement that stays open while files are written would hold up checkpoints of the index.
        for event in list(events_of_run(database, number)):
            if event.position <= until:
                name = event_name(event.timestamp, event.step, event.type, event.n)
                content = stored(event.segment, event.offset, event.length, event.crc)
                yield Write(event.position, folders, name, content, replaces=False, run=run), event.type
