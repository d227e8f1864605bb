"""Writes events into the index: most into blocks, the others into rows of the table `event`.

A block takes an event that is the newest of its run: its timestamp is whole and not below another, and its
step is not below an earlier one. So the events of a run's blocks are in every order that a read needs. Many
share the name of an earlier one of the same millisecond; where length and checksum differ from those of all
others with the name, it is no repeat. All other events go into rows.
"""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from operator import le, lt

from perstack_stored.index.event_batch import EventGroup
from perstack_stored.index.event_blocks import EventBlock, EventColumns, EventRow
from perstack_stored.index.last_blocks import LastBlocks
from perstack_stored.index.repeats import Repeats, Where
from perstack_stored.index.run_state import RunState
from perstack_stored.index.schema import LOST_POSITION, LOST_SEGMENT
from perstack_stored.index.summaries import RunSummary, SummaryWriter
from perstack_stored.index.value_lookup import ValueAddress
from perstack_stored.model.gaps import Gap
from perstack_stored.model.values import Event

_RUNS_CACHED_MAX = 4096
_NAMES_MAX = 65_536  # that are remembered, of all runs together; some 20 MB
_INSERT_EVENT = "INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
EventName = tuple[float, float, str]
"""Timestamp, step and type, as they were sent."""
_LAST_RUNS = (
    "SELECT max(id) FROM run"
    " UNION ALL SELECT * FROM (SELECT last_run FROM deletion ORDER BY position DESC LIMIT 1)"
)


class EventWriter:
    """Writes events. All of it is part of the transaction of the caller, who calls `flush` before its end."""

    def __init__(
        self, database: sqlite3.Connection, value_at: Callable[[ValueAddress], bytes | None]
    ) -> None:
        """`value_at` reads a value of the journal; None if it is damaged."""
        self._database = database
        self._runs: dict[tuple[str, str], RunState] = {}
        self._waiting: dict[int, RunState] = {}  # with rows, by number
        self._blocks = LastBlocks(database)
        self._repeats = Repeats(database, value_at, self._blocks)
        self._next_run = 0
        self._segment = 0  # of the rows that wait
        self._reordered: dict[int, int] = {}  # by run
        self._twins: list[tuple[int, int]] = []  # position and n, which is 0 for a repeat
        self._late: list[tuple[object, ...]] = []  # rows whose name nothing has
        self._named = 0  # upper bound of the count of names that are remembered
        self.summaries = SummaryWriter(database, value_at)

    def run(self, job: str, name: str) -> int:
        """The number of a run; it is created if there is none."""
        return self._run(job, name).id

    def last_run(self) -> int:
        """The greatest number that a run has or had; the number of a deleted run goes to no other."""
        if not self._next_run:
            numbers = [number or 0 for (number,) in self._database.execute(_LAST_RUNS)]
            self._next_run = max(numbers) + 1
        return self._next_run - 1

    def summary(self, job: str, name: str) -> RunSummary:
        """The summary of a run, with all events so far."""
        run = self._run(job, name)
        self._count_waiting(run)
        return run.summary

    def add(self, segment: int, groups: Iterable[EventGroup]) -> None:
        """Add events of a segment. Only the order among those of one run counts."""
        if segment != self._segment:
            self.flush()
            self._segment = segment
        for group in groups:
            run = self._runs.get((group.job, group.run))
            if run is None or run.timestamp is None:
                run = self._begin(group.job, group.run)
            events = group.events
            if _are_newest(run, events.timestamps, events.steps):
                self._wait(run, events)
                run.timestamp, run.step = events.timestamps[-1], events.steps[-1]
                (run.first,), run.names = zip(*events.part(-1, len(events.ns)), strict=True), None
            else:
                self._add_each(run, group)

    def _add_each(self, run: RunState, group: EventGroup) -> None:
        """Add events of a run of which some share a millisecond, come late, or have a fraction."""
        rows: list[EventRow] = []  # for blocks
        for row, payload in zip(zip(*group.events, strict=True), group.payloads, strict=True):
            position, timestamp, step, offset, size, crc, kind, _ = row
            newest = run.timestamp
            assert newest is not None
            if timestamp >= newest and type(timestamp) is int and type(step) is int:
                if step < run.step:
                    n = 0
                    if timestamp > newest:
                        rows = self._wait_rows(run, rows)
                        self._add_late(run, row)
                        continue
                elif timestamp > newest:
                    run.timestamp, run.first, run.names = timestamp, row, None
                    n = 1
                else:
                    n = run.number(row)
                    self._named += 1
                if n:
                    run.step = step
                    if n > 1:
                        self._twins.append((position, n))
                    rows.append(row if n == 1 else (*row[:7], n))
                    continue
            rows = self._wait_rows(run, rows)
            where = (position, self._segment, offset, size, crc)
            self._add_row(run, (timestamp, step, kind), where, payload)
        self._wait_rows(run, rows)

    def _wait_rows(self, run: RunState, rows: list[EventRow]) -> list[EventRow]:
        """Let rows wait; returns an empty list."""
        if rows:
            self._wait(run, EventColumns.of(rows))
        return []

    def _wait(self, run: RunState, events: EventColumns) -> None:
        if run.waiting is None:
            self._waiting[run.id] = run
        run.wait(events)

    def add_row(self, event: Event, where: Where, payload: memoryview) -> None:
        """Add an event as a row: its value is large, or stands too far from the beginning of its segment."""
        run = self._runs.get((event.jobId, event.runId))
        if run is None or run.timestamp is None:
            run = self._begin(event.jobId, event.runId)
        name = (event.timestamp, event.stepNumber, event.type)
        self._add_row(run, name, where, payload, event.expertKey)

    def add_gap(self, gap: Gap) -> None:
        """A lost event keeps its name, so that later ones keep theirs."""
        self._repeats.forget()  # a lost event can be brought back
        run = self._run(gap.jobId, gap.runId)
        self._insert_late()
        self._flush_run(run)
        timestamp = int(gap.timestamp)
        at = None if gap.timestamp == timestamp else repr(gap.timestamp)
        key = (run.id, timestamp, gap.stepNumber, gap.type, gap.n)
        where = (LOST_POSITION, LOST_SEGMENT, 0, gap.length, gap.crc)
        self._database.execute(_INSERT_EVENT, (*key, at, *where))
        run.timestamp = None

    def flush(self) -> None:
        """Write what waits."""
        self._bound_names()
        for run in self._waiting.values():
            self._write_blocks(run)
        self._waiting.clear()
        self._blocks.bound()
        self._insert_late()
        if self._twins:
            self._database.executemany("INSERT INTO twin VALUES (?, ?)", self._twins)
            self._twins.clear()
        if self._reordered:
            self._database.executemany(
                "UPDATE run SET stirred = ? WHERE id = ?",
                [(position, run) for run, position in self._reordered.items()],
            )
            self._reordered.clear()
        self.summaries.flush()

    def make_room(self) -> None:
        """Empty the cache."""
        self.flush()
        self.forget()

    def forget(self) -> None:
        """Forget the cache and what waits: the numbers of runs that are rolled back go to other runs."""
        self._runs.clear()
        self._waiting.clear()
        self._blocks.forget()
        self._next_run = 0
        self._reordered.clear()
        self._twins.clear()
        self._late.clear()
        self._repeats.forget()
        self.summaries.forget()

    # --- runs --------------------------------------------------------------------------------------

    def _run(self, job: str, name: str) -> RunState:
        run = self._runs.get((job, name))
        if run is None:
            id = self._number_of(job, name)
            if len(self._runs) >= _RUNS_CACHED_MAX:
                self.make_room()
            run = self._runs[job, name] = RunState(id, self.summaries.run(id, job))
        return run

    def _number_of(self, job: str, name: str) -> int:
        found = self._database.execute(
            "SELECT id FROM run WHERE job = ? AND name = ?", (job, name)
        ).fetchone()
        if found is not None:
            return int(found[0])
        id = self.last_run() + 1
        self._database.execute("INSERT INTO run (id, job, name) VALUES (?, ?, ?)", (id, job, name))
        self._next_run = id + 1
        return id

    def _begin(self, job: str, name: str) -> RunState:
        """The run, with its newest event."""
        run = self._run(job, name)
        newest, step = self._database.execute(
            "SELECT (SELECT max(timestamp) FROM event WHERE run = :run), (SELECT step FROM event"
            " INDEXED BY event_order WHERE run = :run AND segment > :lost ORDER BY step DESC LIMIT 1)",
            {"run": run.id, "lost": LOST_SEGMENT},
        ).fetchone()
        run.timestamp = -1 if newest is None else newest
        run.step = -1 if step is None else step
        run.first = run.names = None
        found = self._blocks.of(run.id)
        if found is not None:
            step, timestamp, _ = found[1].last
            run.timestamp, run.step = max(run.timestamp, timestamp), max(run.step, step)
        return run

    def _bound_names(self) -> None:
        """Forget all names if there are too many."""
        if self._named > _NAMES_MAX:
            self._named = 0
            for run in self._runs.values():
                run.forget_names()

    # --- blocks ------------------------------------------------------------------------------------

    def _flush_run(self, run: RunState) -> None:
        if run.waiting is not None:
            del self._waiting[run.id]
            self._write_blocks(run)

    def _write_blocks(self, run: RunState) -> None:
        self._count_waiting(run)
        events, run.waiting, run.counted = run.waiting, None, 0
        assert events is not None, "the run waits"
        written, total = 0, len(events.positions)
        id, block = self._blocks.of(run.id) or (0, None)
        while written < total:
            count = 0
            if block is not None and block.segment == self._segment:
                count = block.extend(events, written)
            if count:
                assert block is not None
                written += count
                self._blocks.write(id, run.id, block)
            else:
                position, timestamp, step = [column[written] for column in events[:3]]
                block = EventBlock(self._segment, position, timestamp, step)
                id = self._blocks.begin(run.id, block)

    def _count_waiting(self, run: RunState) -> None:
        """Count the events that wait in the summary of the run."""
        events = run.waiting
        if events is not None and run.counted < len(events.positions):
            more = events.part(run.counted, len(events.positions)) if run.counted else events
            self.summaries.add_events(run.summary, more, self._segment)
            run.counted = len(events.positions)

    # --- rows --------------------------------------------------------------------------------------

    def _add_late(self, run: RunState, row: EventRow) -> None:
        """Add an event of an earlier step that is newer than all others of its run: nothing has its name."""
        position, timestamp, step, offset, size, crc, type, n = row
        run.timestamp, run.first = timestamp, None
        run.names, run.same_time = {(step, type): frozenset()}, 0
        self._late.append(
            (run.id, timestamp, step, type, n, None, position, self._segment, offset, size, crc)
        )
        self._reordered[run.id] = position
        self._count_waiting(run)
        self.summaries.add_events(run.summary, EventColumns.of([row]), self._segment)

    def _insert_late(self) -> None:
        if self._late:
            self._database.executemany(_INSERT_EVENT, self._late)
            self._late.clear()

    def _add_row(
        self, run: RunState, name: EventName, where: Where, payload: memoryview, expert: str | None = None
    ) -> None:
        """Add a row; `expert` is the expert key, if the caller knows it."""
        timestamp, step = int(name[0]), int(name[1])
        at = None if name[0] == timestamp else repr(name[0])
        key = (run.id, timestamp, step, name[2])
        self._insert_late()
        if run.waiting is not None and timestamp >= run.waiting.timestamps[0]:
            self._flush_run(run)
        count, places = self._repeats.in_blocks(run, key, where[3:])
        n: int = 1
        insert = _INSERT_EVENT + " ON CONFLICT DO NOTHING"
        if count or not self._database.execute(insert, (*key, 1, at, *where)).rowcount:
            held = self._repeats.held_as(key, payload, where, places)
            n = self._repeats.next_n(key, count) if held is None else held
            if held is None:
                self._database.execute(_INSERT_EVENT, (*key, n, at, *where))
        if n:
            run.note_row(timestamp, (step, name[2]))
            self._named += 1
            self._note_event(run, key, where, expert)
        else:
            self.summaries.note_repeat(run.summary, where[0])
        if n != 1:
            self._twins.append((where[0], n))

    def _note_event(
        self, run: RunState, key: tuple[int, int, int, str], where: Where, expert: str | None
    ) -> None:
        """Count an event; one of an earlier step invalidates the cached listings of its run."""
        (_, timestamp, step, type), (position, segment, offset, length, crc) = key, where
        self._count_waiting(run)
        row = (position, timestamp, step, offset, length, crc, type, 1)
        self.summaries.add_events(run.summary, EventColumns.of([row]), segment, expert)
        if step >= run.step:
            run.step = step
        else:
            self._reordered[run.id] = position


def _are_newest(run: RunState, timestamps: Sequence[float], steps: Sequence[float]) -> bool:
    """Whether all go into blocks: each newer than those before it, and none of an earlier step."""
    assert run.timestamp is not None
    return (
        timestamps[0] > run.timestamp
        and steps[0] >= run.step
        and all(map(lt, timestamps, timestamps[1:]))
        and all(map(le, steps, steps[1:]))
        and {*map(type, timestamps), *map(type, steps)} == {int}
    )
