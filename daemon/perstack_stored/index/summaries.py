"""Summaries of jobs and runs in the index: what a listing shows of each without reading its records.

A run's summary is written once in a transaction, however many events came. What a summary says depends on the
records and their order alone, not on which of them were indexed together: `check` compares summaries too.
What a job shows of its runs is added up when it is read.
"""

import json
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from perstack_stored.errors import IndexUnusableError
from perstack_stored.index.event_blocks import EventColumns
from perstack_stored.index.schema import SPAN_POSITIONS
from perstack_stored.index.value_lookup import ValueAddress
from perstack_stored.model import values
from perstack_stored.model.kinds import Kind

TYPES_MAX = 64
"""Distinct types that are counted by type: those that came first in the run."""
TEXT_CHARS_MAX = 200
"""Longer statuses and expert keys are cut."""
_JOBS_CACHED_MAX = 4096
_types = msgspec.json.Decoder(dict[str, int])
_encode = msgspec.json.Encoder().encode

COUNT_COLUMNS = ("last_position", "last_at", "events", "types", "ended")  # change with each event
_OF_CHECKPOINT = ("checkpoints", "usage", "parent")
_ORDERED = ("begun", "dated", "first_position", "status", "expert")  # an SQLite index has most of them
RUN_COLUMNS = (*_OF_CHECKPOINT, *_ORDERED)
_ALL = (*COUNT_COLUMNS, *RUN_COLUMNS)
JOB_COLUMNS = ("begun", "dated", "first_position", "status", "expert", "usage", "stored")


def _update(table: str, columns: Sequence[str]) -> str:
    return f"UPDATE {table} SET {', '.join(f'{column} = ?' for column in columns)} WHERE id = ?"  # noqa: S608


_WRITE_COUNTS = "INSERT OR REPLACE INTO run_count VALUES (?, ?, ?, ?, ?, ?)"
_WRITE_REST = _update("run", RUN_COLUMNS)
_WRITE_OF_CHECKPOINT = _update("run", _OF_CHECKPOINT)
_WRITE_JOB = _update("known_job", JOB_COLUMNS)
_WRITE_SPAN = "INSERT OR IGNORE INTO job_span VALUES (?, ?)"
_READ_RUN = f"SELECT {', '.join(_ALL)} FROM run LEFT JOIN run_count ON run = id WHERE id = ?"  # noqa: S608
_READ_JOB = f"SELECT id, {', '.join(JOB_COLUMNS)} FROM known_job WHERE name = ?"  # noqa: S608 - constants


def decode_types(text: Any) -> dict[str, int]:
    """Counts of events by type.

    Raises:
        IndexUnusableError: the row has changed.
    """
    try:
        return _types.decode(text)
    except (msgspec.DecodeError, TypeError) as error:
        raise IndexUnusableError("a row of the index has no counts of events") from error


class _ExpertKey(msgspec.Struct):
    expertKey: str  # noqa: N815 - as in the values


class _Delegator(msgspec.Struct):
    runId: str  # noqa: N815
    checkpointId: str = ""  # noqa: N815
    jobId: str = ""  # noqa: N815


_expert_key = msgspec.json.Decoder(_ExpertKey)
_delegator = msgspec.json.Decoder(_Delegator)
_UNREADABLE = (msgspec.DecodeError, RecursionError)


class JobSummary:
    """What is known of a job.

    Attributes:
        id: its number in the index.
        name: its id.
        begun: the least of its events' timestamps and its `startedAt`, in whole ms; without any, the daemon's
            time of its first record.
        dated: whether `begun` is one of the first two.
        first_position: of the first record of one of its runs; None without any.
        stored: whether there is a Job. Then status, expert and usage are the Job's; else those of the last
            checkpoint of a run that nobody delegated, and the expert of its first record.
        span: that of its newest record, as far as it was noted; -1 if not.
    """

    begun: int | None
    dated: int
    first_position: int | None
    status: str | None
    expert: str | None
    usage: str | None
    stored: int
    __slots__ = ("id", "name", "span", *JOB_COLUMNS)

    def __init__(self, id: int, job: str, columns: Sequence[Any]) -> None:
        self.id, self.name = id, job
        self.span = -1
        for name, value in zip(JOB_COLUMNS, columns, strict=True):
            setattr(self, name, value)

    def note_time(self, time_ms: int, *, dated: bool) -> None:
        """Note a time of the job, and whether a record has it."""
        if self.begun is None or (dated and not self.dated) or (dated and time_ms < self.begun):
            self.begun, self.dated = time_ms, int(dated)

    def note_run(self, position: int, expert: str) -> None:
        """Note the first record of a run of the job."""
        if self.first_position is None or position < self.first_position:
            self.first_position = position
            self.expert = self.expert if self.stored else expert


class RunSummary:
    """What is known of a run.

    Attributes:
        id: its number in the index.
        job: the summary of its job.
        begun, dated: as of a job, without the Job's `startedAt`.
        first_position, last_position: of its records; None without any.
        last_at: the greatest timestamp of its events, in whole ms; None without events.
        events: their count; `types` has it by type.
        ended: type of the last event that ends a run.
        checkpoints: count of different ones.
        status, usage: of the last checkpoint; `expert` too, else that of the first record.
        parent: job, run and checkpoint that delegated it, as JSON.
        may_end: whether an event can have ended it.
        changed: whether it waits to be written; `noted` if a checkpoint came, `moved` if SQLite's indexes
            change with it.
    """

    begun: int | None
    dated: int
    first_position: int | None
    last_position: int | None
    last_at: int | None
    events: int
    types: dict[str, int]
    ended: str | None
    checkpoints: int
    status: str | None
    expert: str | None
    usage: str | None
    parent: str | None
    __slots__ = ("changed", "id", "job", "may_end", "moved", "noted", *_ALL)

    def __init__(self, id: int, job: JobSummary, columns: Sequence[Any]) -> None:
        self.id = id
        self.job = job
        self.changed = self.noted = self.moved = False
        found = dict(zip(_ALL, columns, strict=True))
        found["types"] = decode_types(found["types"] or b"{}")
        found["events"] = found["events"] or 0
        for name, value in found.items():
            setattr(self, name, value)
        self.may_end = self.ended is not None

    def counts(self) -> tuple[Any, ...]:
        """The row of `run_count`."""
        types = _encode(self.types).decode()
        return self.id, self.last_position, self.last_at, self.events, types, self.ended

    def columns(self, names: Sequence[str]) -> tuple[Any, ...]:
        """Some columns of the row of `run`, and its id."""
        return (*map(self.__getattribute__, names), self.id)


class SummaryWriter:
    """Keeps summaries in the transaction of the caller, who calls `flush` before its end."""

    def __init__(
        self, database: sqlite3.Connection, value_at: Callable[[ValueAddress], bytes | None]
    ) -> None:
        """`value_at` reads a value of the journal; None if it is damaged."""
        self._database = database
        self._value_at = value_at
        self._jobs: dict[str, JobSummary] = {}
        self._changed: list[RunSummary] = []
        self._changed_jobs: dict[int, JobSummary] = {}
        self._spans: list[tuple[str, int]] = []  # of jobs, that wait to be written

    @property
    def is_full(self) -> bool:
        """Whether too many jobs are cached: the caller flushes and forgets."""
        return len(self._jobs) >= _JOBS_CACHED_MAX

    def run(self, id: int, job: str) -> RunSummary:
        """The summary of a run, as it was written last."""
        return RunSummary(id, self._job(job), self._database.execute(_READ_RUN, (id,)).fetchone())

    def add_events(
        self, run: RunSummary, events: EventColumns, segment: int, expert: str | None = None
    ) -> None:
        """Count events of a run, in order: neither positions nor timestamps decrease.

        Args:
            run: summary of the run.
            events: the events.
            segment: number of the journal segment with their values.
            expert: expert key of the first one, if the caller knows it.
        """
        positions, timestamps, _, offsets, lengths, crcs, types, _ = events
        self._note_spans(run.job, positions)
        if not run.dated or run.begun is None or timestamps[0] < run.begun:
            self._note_time(run, timestamps[0], dated=True)
        if run.first_position is None:
            address = ValueAddress(segment, offsets[0], lengths[0], crcs[0])
            self._begin(run, positions[0], self._expert_at(address) if expert is None else _cut(expert))
        run.last_position = positions[-1]
        run.last_at = timestamps[-1] if run.last_at is None else max(run.last_at, timestamps[-1])
        run.events += len(types)
        counts = run.types
        if types[0] in counts and types.count(types[0]) == len(types):  # as of streamed text
            counts[types[0]] += len(types)
        else:
            for type in types:
                try:
                    counts[type] += 1
                except KeyError:
                    self._note_type(run, type)
        if run.may_end:
            run.ended = next((type for type in reversed(types) if _is_end(type)), run.ended)
        if not run.changed:
            run.changed = True
            self._changed.append(run)

    def add_checkpoint(
        self, run: RunSummary, value: values.Checkpoint, position: int, time_ms: int, *, is_new: bool
    ) -> None:
        """Note a checkpoint; `is_new` if its id is new in the run."""
        expert, status = _cut(value.expert.key), _cut(value.status)
        self.add_record(run, expert, position, time_ms)
        run.moved |= (run.expert, run.status) != (expert, status)
        run.expert, run.status = expert, status
        run.usage = _usage_text(value.usage)
        run.parent = _parent_text(value) or run.parent
        run.checkpoints += is_new
        run.noted = True
        job = run.job
        if run.parent is None and not job.stored:
            job.status, job.usage = status, run.usage
            self._changed_jobs[job.id] = job

    def add_record(self, run: RunSummary, expert: str, position: int, time_ms: int) -> None:
        """Note a record of a run that is no event."""
        self._note_spans(run.job, (position,))
        if run.begun is None:
            self._note_time(run, time_ms, dated=False)
        if run.first_position is None:
            self._begin(run, position, _cut(expert))
        run.last_position = position
        self._note_change(run)

    def add_job(self, value: values.Job, position: int) -> None:
        """Note a Job."""
        job = self._job(value.id)
        self._note_spans(job, (position,))
        job.note_time(int(value.startedAt), dated=True)
        job.stored = 1
        job.status, job.expert = _cut(value.status), _cut(value.coordinatorExpertKey)
        job.usage = _usage_text(value.usage)
        self._changed_jobs[job.id] = job

    def note_repeat(self, run: RunSummary, position: int) -> None:
        """Note an event that repeats an earlier one: with its job, it is erased too."""
        self._note_spans(run.job, (position,))

    def drop_checkpoint(self, run: RunSummary) -> None:
        """A checkpoint of a run was stored again, as one of another run."""
        run.checkpoints -= 1
        run.noted = True
        self._note_change(run)

    def flush(self) -> None:
        """Write what has changed."""
        changed = self._changed
        counts = [run.counts() for run in changed]
        rest = [run.columns(RUN_COLUMNS) for run in changed if run.moved]
        usual = [run.columns(_OF_CHECKPOINT) for run in changed if run.noted and not run.moved]
        for run in changed:
            run.changed = run.noted = run.moved = False
        changed.clear()
        jobs = [[*map(job.__getattribute__, JOB_COLUMNS), id] for id, job in self._changed_jobs.items()]
        self._changed_jobs.clear()
        self._write(_WRITE_COUNTS, counts)
        self._write(_WRITE_REST, rest)
        self._write(_WRITE_OF_CHECKPOINT, usual)
        self._write(_WRITE_JOB, jobs)
        self._write(_WRITE_SPAN, sorted(self._spans))
        self._spans.clear()

    def forget(self) -> None:
        """Forget the cache, and what was not written."""
        self._jobs.clear()
        self._changed.clear()
        self._changed_jobs.clear()
        self._spans.clear()

    def _write(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        if rows:
            self._database.executemany(statement, rows)

    def _job(self, name: str) -> JobSummary:
        job = self._jobs.get(name)
        if job is None:
            self._database.execute("INSERT INTO known_job (name) VALUES (?) ON CONFLICT DO NOTHING", (name,))
            id, *columns = self._database.execute(_READ_JOB, (name,)).fetchone()
            job = self._jobs[name] = JobSummary(id, name, columns)
        return job

    def _note_spans(self, job: JobSummary, positions: Sequence[int]) -> None:
        """Note where a job has records."""
        first, last = positions[0] // SPAN_POSITIONS, positions[-1] // SPAN_POSITIONS
        if first == last:
            if job.span != first:
                job.span = first
                self._spans.append((job.name, first))
            return
        found = sorted({position // SPAN_POSITIONS for position in positions})
        job.span = found[-1]
        self._spans += [(job.name, span) for span in found]

    def _note_time(self, run: RunSummary, time_ms: int, *, dated: bool) -> None:
        run.begun, run.dated, run.moved = time_ms, int(dated), True
        run.job.note_time(time_ms, dated=dated)
        self._changed_jobs[run.job.id] = run.job

    def _begin(self, run: RunSummary, position: int, expert: str) -> None:
        run.first_position, run.expert, run.moved = position, expert, True
        run.job.note_run(position, expert)
        self._changed_jobs[run.job.id] = run.job

    @staticmethod
    def _note_type(run: RunSummary, type: str) -> None:
        """The first event of a type."""
        if len(run.types) < TYPES_MAX:
            run.types[type] = 1
        run.may_end = run.may_end or _is_end(type)

    def _note_change(self, run: RunSummary) -> None:
        if not run.changed:
            run.changed = True
            self._changed.append(run)

    def _expert_at(self, address: ValueAddress) -> str:
        """The expert key of an event; "" if the journal is damaged there."""
        value = self._value_at(address)
        if value is None:
            return ""
        try:
            return _cut(_expert_key.decode(value).expertKey)
        except _UNREADABLE:  # legal JSON that msgspec refuses
            event = values.decode(Kind.EVENT, value)
            assert isinstance(event, values.Event), "it was decoded as one"
            return _cut(event.expertKey)


def _is_end(type: str) -> bool:
    """Whether an event of a type ends a run."""
    return type == "completeRun" or type.startswith("stopRun")


def _cut(text: str) -> str:
    return text[:TEXT_CHARS_MAX]


def _usage_text(usage: values.Usage) -> str:
    fields = usage.__struct_fields__
    return json.dumps({name: getattr(usage, name) for name in fields}, separators=(",", ":"))


def _parent_text(value: values.Checkpoint) -> str | None:
    """Job, run and checkpoint of the one that delegated; None without one. Its fields were not checked."""
    if value.delegatedBy is values.UNSET:
        return None
    try:
        parent = _delegator.decode(value.delegatedBy)
    except _UNREADABLE:
        return None
    names = {"jobId": parent.jobId or value.jobId, "runId": parent.runId, "checkpointId": parent.checkpointId}
    if max(map(len, names.values())) > TEXT_CHARS_MAX:
        return None
    return json.dumps(names, ensure_ascii=False, separators=(",", ":"))
