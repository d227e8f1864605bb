"""Writes events into the index: most into blocks, the others into rows of the table `event`.

A block takes an event that is the newest of its run: its timestamp is whole and above all others, or equal
with another name, and its step is not below an earlier one. So the events of a run's blocks are in every
order that a read needs. Repeats, events with a name that exists, and late ones go into rows.
"""

import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Sequence

from perstack_stored.errors import IndexUnusableError
from perstack_stored.index.event_blocks import BadBlockError, EventBlock, EventRow, decode
from perstack_stored.index.event_reader import find_in_blocks
from perstack_stored.index.lookalikes import GROUP_MIN, Lookalikes
from perstack_stored.index.schema import LOST_POSITION, LOST_SEGMENT
from perstack_stored.index.value_lookup import ValueAddress
from perstack_stored.model.checksum import crc32c
from perstack_stored.model.gaps import Gap
from perstack_stored.model.values import Event, EventKey

_RUNS_CACHED_MAX = 4096
_BLOCKS_CACHED_MAX = 128  # of the runs that were written last; 4 KiB each
# Of one timestamp in blocks: a search for a name looks into all blocks with its timestamp.
_NAMES_MAX = 64
_INSERT_EVENT = "INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_PUT_BLOCK = "INSERT OR REPLACE INTO event_block VALUES (?, ?, ?, ?, ?, ?)"
_BRING_BACK = (
    "UPDATE event SET position = ?, segment = ?, offset = ?"
    " WHERE run = ? AND timestamp = ? AND step = ? AND type = ? AND n = ?"
)
_LAST_BLOCK = (
    "SELECT id, data FROM event_block WHERE run = ? ORDER BY last_step DESC, last_position DESC LIMIT 1"
)

Where = tuple[int, int, int, int, int]
"""Position, segment, offset, length, crc32c."""


class _Run:
    """A run, and its newest event.

    Attributes:
        timestamp: the newest one; -1 without an event, None if not known.
        step: the greatest one.
        name: step and type of the first event with this timestamp; None if not known.
        names: of all events with it, if there are several; None if there is one, or not known.
        rows: events that wait to be written into a block.
    """

    __slots__ = ("id", "name", "names", "rows", "step", "timestamp")

    def __init__(self, id: int) -> None:
        self.id = id
        self.timestamp: int | None = None
        self.step = -1
        self.name: tuple[int, str] | None = None
        self.names: set[tuple[int, str]] | None = None
        self.rows: list[EventRow] = []


class EventWriter:
    """Writes events. All of it is part of the transaction of the caller, who calls `flush` before its end."""

    def __init__(
        self, database: sqlite3.Connection, value_at: Callable[[ValueAddress], bytes | None]
    ) -> None:
        """`value_at` reads a value of the journal; None if it is damaged."""
        self._database = database
        self._value_at = value_at
        self._runs: dict[tuple[str, str], _Run] = {}
        self._waiting: dict[int, _Run] = {}  # with rows, by number
        self._blocks: OrderedDict[int, tuple[int, EventBlock]] = OrderedDict()  # by run, each with its id
        self._next_block = 0
        self._segment = 0  # of the rows that wait
        self._reordered: dict[int, int] = {}  # by run
        self._lookalikes = Lookalikes()

    def run(self, job: str, name: str) -> int:
        """The number of a run; it is created if there is none."""
        return self._run(job, name).id

    def add(
        self, segment: int, events: Sequence[EventKey | Event], places: Sequence[tuple[int, int, memoryview]]
    ) -> None:
        """Add events with their places: position, offset in the segment, and bytes."""
        if segment != self._segment:
            self.flush()
            self._segment = segment
        known, waiting = self._runs, self._waiting
        for event, (position, offset, payload) in zip(events, places, strict=True):
            run = known.get((event.jobId, event.runId))
            if run is None or run.timestamp is None:
                run = self._begin(event.jobId, event.runId)
            timestamp, step = event.timestamp, event.stepNumber
            if type(timestamp) is int and type(step) is int and step >= run.step:
                newest = run.timestamp
                assert newest is not None
                if timestamp > newest:
                    run.timestamp = timestamp
                    run.name = (step, event.type)
                    run.names = None
                    is_newest = True
                else:
                    is_newest = timestamp == newest and self._is_new_name(run, (step, event.type))
                if is_newest:
                    run.step = step
                    if not run.rows:
                        waiting[run.id] = run
                    run.rows.append(
                        (position, timestamp, step, offset, len(payload), crc32c(payload), event.type)
                    )
                    continue
            self._add_row(run, event, (position, segment, offset, len(payload), crc32c(payload)), payload)

    def add_row(self, event: Event, where: Where, payload: memoryview) -> None:
        """Add an event as a row: its value is large, or stands too far from the beginning of its segment."""
        run = self._runs.get((event.jobId, event.runId))
        if run is None or run.timestamp is None:
            run = self._begin(event.jobId, event.runId)
        self._add_row(run, event, where, payload)

    def add_gap(self, gap: Gap) -> None:
        """A lost event keeps its name, so that later ones keep theirs."""
        self._lookalikes.clear()  # a lost event can be brought back
        run = self._run(gap.jobId, gap.runId)
        self._flush_run(run)
        timestamp = int(gap.timestamp)
        at = None if gap.timestamp == timestamp else repr(gap.timestamp)
        key = (run.id, timestamp, gap.stepNumber, gap.type, gap.n)
        where = (LOST_POSITION, LOST_SEGMENT, 0, gap.length, gap.crc)
        self._database.execute(_INSERT_EVENT, (*key, at, *where))
        run.timestamp = None

    def flush(self) -> None:
        """Write what waits."""
        for run in self._waiting.values():
            self._write_blocks(run)
        self._waiting.clear()
        while len(self._blocks) > _BLOCKS_CACHED_MAX:
            self._blocks.popitem(last=False)
        if self._reordered:
            self._database.executemany(
                "UPDATE run SET stirred = ? WHERE id = ?",
                [(position, run) for run, position in self._reordered.items()],
            )
            self._reordered.clear()

    def forget(self) -> None:
        """Forget the cache and what waits: the numbers of runs that are rolled back go to other runs."""
        self._runs.clear()
        self._waiting.clear()
        self._blocks.clear()
        self._next_block = 0
        self._reordered.clear()
        self._lookalikes.clear()

    # --- runs --------------------------------------------------------------------------------------

    def _run(self, job: str, name: str) -> _Run:
        run = self._runs.get((job, name))
        if run is None:
            self._database.execute(
                "INSERT INTO run (job, name) VALUES (?, ?) ON CONFLICT DO NOTHING", (job, name)
            )
            (id,) = self._database.execute(
                "SELECT id FROM run WHERE job = ? AND name = ?", (job, name)
            ).fetchone()
            if len(self._runs) >= _RUNS_CACHED_MAX:
                self.flush()
                self.forget()
            run = self._runs[job, name] = _Run(int(id))
        return run

    def _begin(self, job: str, name: str) -> _Run:
        """The run, with its newest event."""
        run = self._run(job, name)
        newest, step = self._database.execute(
            "SELECT (SELECT max(timestamp) FROM event WHERE run = :run), (SELECT step FROM event"
            " INDEXED BY event_order WHERE run = :run AND segment > :lost ORDER BY step DESC LIMIT 1)",
            {"run": run.id, "lost": LOST_SEGMENT},
        ).fetchone()
        run.timestamp = -1 if newest is None else newest
        run.step = -1 if step is None else step
        run.name = run.names = None
        found = self._last_block(run)
        if found is not None:
            step, timestamp, _ = found[1].last
            run.timestamp, run.step = max(run.timestamp, timestamp), max(run.step, step)
        return run

    @staticmethod
    def _is_new_name(run: _Run, name: tuple[int, str]) -> bool:
        """Whether no event with the run's newest timestamp can have this name yet."""
        if run.names is None:
            if run.name is None:
                return False
            run.names = {run.name}
        if name in run.names or len(run.names) >= _NAMES_MAX:
            return False
        run.names.add(name)
        return True

    # --- blocks ------------------------------------------------------------------------------------

    def _last_block(self, run: _Run) -> tuple[int, EventBlock] | None:
        found = self._blocks.get(run.id)
        if found is not None:
            self._blocks.move_to_end(run.id)
            return found
        row = self._database.execute(_LAST_BLOCK, (run.id,)).fetchone()
        if row is None:
            return None
        try:
            found = self._blocks[run.id] = (row[0], decode(row[1]))
        except BadBlockError as error:
            raise IndexUnusableError(str(error)) from error
        return found

    def _flush_run(self, run: _Run) -> None:
        if run.rows:
            del self._waiting[run.id]
            self._write_blocks(run)

    def _write_blocks(self, run: _Run) -> None:
        rows, run.rows = run.rows, []
        id, block = self._last_block(run) or (0, None)
        while rows:
            count = 0
            if block is not None and block.segment == self._segment:
                count = block.extend(rows)
            if count:
                assert block is not None
                rows = rows[count:]
                self._database.execute(_PUT_BLOCK, (id, run.id, *block.last, block.encode()))
            else:
                id, block = self._new_id(), EventBlock(self._segment, *rows[0][:3])
                self._blocks[run.id] = (id, block)

    def _new_id(self) -> int:
        if not self._next_block:
            (last,) = self._database.execute("SELECT max(id) FROM event_block").fetchone()
            self._next_block = (last or 0) + 1
        self._next_block += 1
        return self._next_block - 1

    # --- rows --------------------------------------------------------------------------------------

    def _add_row(self, run: _Run, event: EventKey | Event, where: Where, payload: memoryview) -> None:
        timestamp, step = int(event.timestamp), int(event.stepNumber)
        at = None if event.timestamp == timestamp else repr(event.timestamp)
        key = (run.id, timestamp, step, event.type)
        self._note_name(run, timestamp, (step, event.type))
        if run.rows and timestamp >= run.rows[0][1]:
            self._flush_run(run)
        held = self._find_in_blocks(key)
        if held is None:
            insert = _INSERT_EVENT + " ON CONFLICT DO NOTHING"
            if self._database.execute(insert, (*key, 1, at, *where)).rowcount:
                self._note_step(run, step, where[0])
                return
        n = self._held_as(key, payload, where, held)
        if n is None:
            n = self._next_n(key)
            self._database.execute(_INSERT_EVENT, (*key, n, at, *where))
        if n:
            self._note_step(run, step, where[0])
        if n != 1:
            self._database.execute("INSERT INTO twin VALUES (?, ?)", (where[0], n))

    @staticmethod
    def _note_name(run: _Run, timestamp: int, name: tuple[int, str]) -> None:
        assert run.timestamp is not None
        if timestamp > run.timestamp:
            run.timestamp, run.name, run.names = timestamp, name, None
        elif timestamp == run.timestamp and run.name is not None:
            run.names = run.names or {run.name}
            run.names.add(name)

    def _note_step(self, run: _Run, step: int, position: int) -> None:
        """An event of an earlier step invalidates the cached listings of its run."""
        if step >= run.step:
            run.step = step
        else:
            self._reordered[run.id] = position

    def _find_in_blocks(self, key: tuple[int, int, int, str]) -> ValueAddress | None:
        """The event of a name, if a block holds it."""
        run, timestamp, step, type = key
        last = self._blocks.get(run)
        if last is not None and last[1].timestamp < timestamp:
            found = last[1].named(timestamp, step, type)  # all other blocks end before
        else:
            found = find_in_blocks(self._database, run, timestamp, step, type)
        return None if found is None else ValueAddress(*found[1:])

    def _held_as(
        self,
        key: tuple[int, int, int, str],
        payload: memoryview,
        where: Where,
        in_block: ValueAddress | None,
    ) -> int | None:
        """Find an earlier event with the same bytes, hence the same job, run and id; None if there is none.

        Returns:
            0 for a repeat of an event that is there; the number of a lost event, which is brought back.
        """
        _, _, _, length, crc = where
        group = (*key, length, crc)
        if self._lookalikes.knows(group):
            return 0 if self._lookalikes.has(group, payload) else None
        places: list[ValueAddress] = []
        if in_block is not None and (in_block.length, in_block.crc) == (length, crc):
            if self._is_value_at(in_block, payload):
                return 0
            places.append(in_block)
        select = (
            "SELECT n, segment, offset FROM event{}"
            " WHERE run = ? AND timestamp = ? AND step = ? AND type = ? AND crc = ? AND length = ? AND {}"
        )
        # With a named index: otherwise SQLite walks through all events of the name.
        for by, condition in (("", "n = 1"), (" INDEXED BY event_twin", "n > 1")):
            found = self._database.execute(select.format(by, condition), (*key, crc, length))
            for n, segment, offset in found:
                if segment == LOST_SEGMENT:
                    self._database.execute(_BRING_BACK, (*where[:3], *key, n))
                    return int(n)
                places.append(ValueAddress(segment, offset, length, crc))
                if self._is_value_at(places[-1], payload):
                    return 0
        if len(places) >= GROUP_MIN:
            self._lookalikes.learn(group, (payload, *filter(None, map(self._value_at, places))))
        return None

    def _is_value_at(self, place: ValueAddress, payload: memoryview) -> bool:
        value = self._value_at(place)
        return value is not None and payload == value

    def _next_n(self, key: tuple[int, int, int, str]) -> int:
        (n,) = self._database.execute(
            "SELECT max(n) FROM event WHERE run = ? AND timestamp = ? AND step = ? AND type = ?",
            key,
        ).fetchone()
        return int(n or 1) + 1
