"""The index writer: an SQLite projection of the journal that records where each value stands.

Values stay in the journal; a row holds segment, offset, length and crc32c of the bytes. The cursor moves in
the transaction of the rows, so after any crash the index matches some position, and goes on from there.
"""

import contextlib
import errno
import os
import sqlite3
from collections.abc import Iterable

from perstack_stored.datadir.filesystem import FILE_MODE
from perstack_stored.errors import IndexUnusableError, Refusal
from perstack_stored.index.connection import _files_of, connect_worker, cursor_crc, may_pass, read_cursor
from perstack_stored.index.schema import _SCHEMA, LOST_POSITION, LOST_SEGMENT, SCHEMA_VERSION
from perstack_stored.journal import entry_format
from perstack_stored.journal.reader import Entry, JournalReader, LogPosition, is_large
from perstack_stored.model import gaps, values
from perstack_stored.model.checksum import crc32c
from perstack_stored.model.gaps import Gap, GapRange
from perstack_stored.model.kinds import Kind
from perstack_stored.model.run_settings import MISSING_MAX_STEPS, MISSING_REASONING_BUDGET
from perstack_stored.model.updated_at import span as updated_at_span
from perstack_stored.process.worker_status import WorkerStatus

from .lookalikes import GROUP_MIN, Lookalikes
from .page_checksums import CheckpointedChecksums
from .value_lookup import ValueAddress, read_value

_PLACE_EVERY_BYTES = 256 << 10
_RUNS_CACHED_MAX = 4096
_INSERT_EVENT = "INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
# Most events are the first of their name, with a whole timestamp. sqlite3 takes long over None.
_INSERT_FRESH = "INSERT INTO event VALUES (?, ?, ?, ?, 1, NULL, ?, ?, ?, ?, ?)"
_GAP = int(Kind.GAP)
_BRING_BACK = (
    "UPDATE event SET position = ?, segment = ?, offset = ?"
    " WHERE run = ? AND timestamp = ? AND step = ? AND type = ? AND n = ?"
)
_SETTING_ROW = "setting VALUES (?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_TOUCH = "UPDATE setting SET updated_at = max(updated_at, ?), rewritten = 1 WHERE run = ?"


class _Latest:
    """The newest timestamp of a run, and the steps and types that it has there; None: not known.

    Also the greatest step of the run.
    """

    __slots__ = ("names", "step", "timestamp")

    def __init__(self, timestamp: int, step: int) -> None:
        self.timestamp = timestamp
        self.step = step
        self.names: set[tuple[int, str]] | None = None


class IndexWriter:
    """The writing end of the index.

    Attributes:
        names_records: name each record in the worker's status before it is indexed.
    """

    def __init__(
        self, path: str, reader: JournalReader, store: bytes, status: WorkerStatus | None = None
    ) -> None:
        """Open or create the index at `path` for the journal that `reader` reads.

        `status` shows the worker's progress.

        Raises:
            IndexUnusableError: the existing index can't be used.
        """
        self._reader = reader
        self._store = store
        self._runs: dict[tuple[str, str], int] = {}
        self._latest: dict[int, _Latest] = {}
        self._fresh: list[tuple[object, ...]] = []
        self._reordered: dict[int, int] = {}  # by run
        self._gaps: list[GapRange] = []
        self._lookalikes = Lookalikes()
        self._status = status
        self.names_records = False
        for file in _files_of(path):
            if os.path.islink(file):  # SQLite would follow it
                raise IndexUnusableError(f"{os.path.basename(file)} is a symbolic link")
            # SQLite opens a file that it may not write read-only, and never writes to it; so does it beside.
            if os.path.exists(file) and not os.access(file, os.R_OK | os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), file)
        with contextlib.suppress(FileExistsError):
            # SQLite would make it readable for all, and the files beside it get the mode of this one.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
        try:
            self._database = connect_worker(path, read_only=False, status=status)
            self._place = self._open(store)
        except sqlite3.DatabaseError as error:
            if not may_pass(error):
                raise IndexUnusableError(f"the index can't be opened: {error}") from error
            raise
        self._checkpoints = CheckpointedChecksums(path, self._database)
        os.chmod(path, FILE_MODE)
        self._last_place = (self._place.segment, self._place.offset)

    def _open(self, store: bytes) -> LogPosition:
        database = self._database
        database.execute("PRAGMA journal_mode = WAL")
        # Not synced at each commit: a power cut only takes the index back to an earlier position.
        database.execute("PRAGMA synchronous = NORMAL")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version == 0:
            start = self._reader.start()
            database.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
            database.execute(
                "INSERT INTO cursor VALUES (?, ?, ?, ?, ?)", (store, *start, cursor_crc(store, start))
            )
        elif version != SCHEMA_VERSION:
            raise IndexUnusableError(f"the index has version {version}, not {SCHEMA_VERSION}")
        return read_cursor(database, store)

    @property
    def place(self) -> LogPosition:
        """Log position up to which the index is complete."""
        return self._place

    def apply(self, entries: Iterable[Entry]) -> None:
        """Index entries in one transaction.

        Raises:
            sqlite3.Error, OSError: the database failed; none of the entries is indexed.
        """
        self._checkpoints.run_if_due()
        database = self._database
        before = self._place, self._last_place
        database.execute("BEGIN")
        try:
            for entry in entries:
                self._note_place(entry)
                position = entry.header.position
                large = is_large(entry.header)
                for place in entry_format.record_places(entry.data, entry.header):
                    payload = entry.data[place.start : place.start + place.length]
                    where = (
                        position,
                        entry.segment,
                        entry.offset + place.start,
                        place.length,
                        crc32c(payload),
                    )
                    if self.names_records:
                        self._name(position, place.kind)
                    value = self._index_record(place.kind, place.flags, payload, entry.header.time_ms, where)
                    if large and value is not None:
                        self._note_large(position, value)
                    position += 1
                self._place = self._reader.place_after(entry)
            self._insert_fresh()
            self._insert_gaps()
            self._note_reordered()
            database.execute(
                "UPDATE cursor SET position = ?, segment = ?, offset = ?, crc = ?",
                (*self._place, cursor_crc(self._store, self._place)),
            )
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            self._place, self._last_place = before
            self._gaps.clear()
            self._forget()  # numbers of runs that are rolled back go to other runs
            raise

    @property
    def checkpoints(self) -> int:
        """Count of checkpoints begun."""
        return self._checkpoints.begun

    def checkpoint(self) -> None:
        """Checkpoint SQLite's log into the database's file."""
        self._checkpoints.run()

    def close(self) -> None:
        """Close the database after a last checkpoint."""
        self.checkpoint()
        self._database.close()
        self._checkpoints.close()

    def _name(self, position: int, kind: int) -> None:
        if self._status is not None:
            self._status.at(position)
            self._status.describe(kind_name(kind))

    def _note_place(self, entry: Entry) -> None:
        segment, offset = self._last_place
        if (
            entry.segment != segment
            or entry.offset - offset >= _PLACE_EVERY_BYTES
            or entry.header.position == 1
        ):
            self._last_place = (entry.segment, entry.offset)
            self._database.execute(
                "INSERT OR REPLACE INTO place VALUES (?, ?, ?)",
                (entry.header.position, entry.segment, entry.offset),
            )

    def _note_large(self, position: int, value: values.Value) -> None:
        owner = (value.id, "") if isinstance(value, values.Job) else (value.jobId, value.runId)
        self._database.execute("INSERT OR REPLACE INTO large VALUES (?, ?, ?)", (position, *owner))

    def _index_record(
        self, kind: int, flags: int, payload: memoryview, time_ms: int, where: tuple[int, int, int, int, int]
    ) -> values.Value | None:
        if kind == _GAP:
            gaps.add(self._gaps, where[0])
            self._gap(gaps.decode(payload))
            return None
        value = values.decode(kind, payload)
        if isinstance(value, values.Event):
            self._event(value, payload, where)
        elif isinstance(value, values.Checkpoint):
            self._database.execute(
                "INSERT OR REPLACE INTO checkpoint VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (value.jobId, value.id, int(value.stepNumber), *where),
            )
        elif isinstance(value, values.Job):
            self._database.execute(
                "INSERT OR REPLACE INTO job VALUES (?, ?, ?, ?, ?, ?, ?)", (value.id, value.startedAt, *where)
            )
        else:
            self._setting(value, payload, flags, time_ms, where)
        return value

    def _run(self, job: str, name: str) -> int:
        found = self._runs.get((job, name))
        if found is None:
            self._database.execute(
                "INSERT INTO run (job, name) VALUES (?, ?) ON CONFLICT DO NOTHING", (job, name)
            )
            (found,) = self._database.execute(
                "SELECT id FROM run WHERE job = ? AND name = ?", (job, name)
            ).fetchone()
            if len(self._runs) >= _RUNS_CACHED_MAX:
                self._insert_fresh()
                self._note_reordered()
                self._forget()
            self._runs[job, name] = found
        return int(found)

    def _event(self, event: values.Event, payload: memoryview, where: tuple[int, int, int, int, int]) -> None:
        timestamp = int(event.timestamp)
        at = None if event.timestamp == timestamp else repr(event.timestamp)
        run = self._run(event.jobId, event.runId)
        step = int(event.stepNumber)
        key = (run, timestamp, step, event.type)
        latest = self._latest_of(run)
        if self._is_fresh(latest, key) and at is None:
            self._fresh.append(key + where)
            self._note_step(run, latest, step, where[0])
            return
        self._insert_fresh()
        if self._database.execute(_INSERT_EVENT + " ON CONFLICT DO NOTHING", (*key, 1, at, *where)).rowcount:
            self._note_step(run, latest, step, where[0])
            return
        n = self._held_as(key, payload, where)
        if n is None:
            n = self._next_n(key)
            self._database.execute(_INSERT_EVENT, (*key, n, at, *where))
        if n:
            self._note_step(run, latest, step, where[0])
        if n != 1:
            self._database.execute("INSERT INTO twin VALUES (?, ?)", (where[0], n))

    def _latest_of(self, run: int) -> _Latest:
        latest = self._latest.get(run)
        if latest is None:
            newest = self._database.execute(
                "SELECT max(timestamp) FROM event WHERE run = ?", (run,)
            ).fetchone()[0]
            furthest = self._database.execute(
                "SELECT step FROM event INDEXED BY event_order WHERE run = ? AND segment > ?"
                " ORDER BY step DESC LIMIT 1",
                (run, LOST_SEGMENT),
            ).fetchone()
            latest = self._latest[run] = _Latest(
                -1 if newest is None else newest, -1 if furthest is None else furthest[0]
            )
        return latest

    def _note_step(self, run: int, latest: _Latest, step: int, position: int) -> None:
        """An event of an earlier step invalidates the cached listings of its run."""
        if step >= latest.step:
            latest.step = step
        else:
            self._reordered[run] = position

    def _note_reordered(self) -> None:
        if self._reordered:
            self._database.executemany(
                "UPDATE run SET stirred = ? WHERE id = ?",
                [(position, run) for run, position in self._reordered.items()],
            )
            self._reordered.clear()

    @staticmethod
    def _is_fresh(latest: _Latest, key: tuple[int, int, int, str]) -> bool:
        """Whether no event can have this name yet, as for most; such rows are inserted many at a time."""
        _, timestamp, step, type_ = key
        if timestamp > latest.timestamp:
            latest.timestamp, latest.names = timestamp, {(step, type_)}
            return True
        if timestamp < latest.timestamp or latest.names is None or (step, type_) in latest.names:
            return False
        latest.names.add((step, type_))
        return True

    def _insert_fresh(self) -> None:
        if self._fresh:
            self._database.executemany(_INSERT_FRESH, self._fresh)
            self._fresh.clear()

    def _insert_gaps(self) -> None:
        if not self._gaps:
            return
        select = "SELECT first, last FROM gap ORDER BY first DESC LIMIT 1"
        for first, last in self._database.execute(select).fetchall():
            if self._gaps[0].first == last + 1:
                self._gaps[0] = GapRange(first, self._gaps[0].last)
        self._database.executemany("INSERT OR REPLACE INTO gap VALUES (?, ?)", self._gaps)
        self._gaps.clear()

    def _forget(self) -> None:
        self._runs.clear()
        self._latest.clear()
        self._fresh.clear()
        self._reordered.clear()
        self._lookalikes.clear()

    def _held_as(
        self, key: tuple[int, int, int, str], payload: memoryview, where: tuple[int, int, int, int, int]
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
                held = self._value_at(places[-1])
                if held is not None and payload == held:
                    return 0
        if len(places) >= GROUP_MIN:
            self._lookalikes.learn(group, (payload, *filter(None, map(self._value_at, places))))
        return None

    def _value_at(self, place: ValueAddress) -> bytes | None:
        try:
            return read_value(self._reader, place, lambda: self._place)
        except Refusal:
            return None  # the journal is damaged there: the bytes can't be compared

    def _gap(self, gap: Gap) -> None:
        """A lost event keeps its name, so that later ones keep theirs; settings keep their time."""
        for job, run, updated_at in gap.touched:
            self._database.execute(_TOUCH, (updated_at, self._run(job, run)))
        if not gap.n:
            return
        self._lookalikes.clear()  # a lost event can be brought back
        self._insert_fresh()
        run_id = self._run(gap.jobId, gap.runId)
        timestamp = int(gap.timestamp)
        at = None if gap.timestamp == timestamp else repr(gap.timestamp)
        key = (run_id, timestamp, gap.stepNumber, gap.type, gap.n)
        where = (LOST_POSITION, LOST_SEGMENT, 0, gap.length, gap.crc)
        self._database.execute(_INSERT_EVENT, (*key, at, *where))
        self._latest.pop(run_id, None)

    def _next_n(self, key: tuple[int, int, int, str]) -> int:
        (n,) = self._database.execute(
            "SELECT max(n) FROM event WHERE run = ? AND timestamp = ? AND step = ? AND type = ?",
            key,
        ).fetchone()
        return int(n) + 1

    def _setting(
        self,
        setting: values.RunSetting,
        payload: memoryview,
        flags: int,
        time_ms: int,
        where: tuple[int, int, int, int, int],
    ) -> None:
        run = self._run(setting.jobId, setting.runId)
        missing_defaults = (MISSING_REASONING_BUDGET if setting.reasoningBudget is values.UNSET else 0) | (
            MISSING_MAX_STEPS if setting.maxSteps is values.UNSET else 0
        )
        text = bytes(payload)
        start, end = updated_at_span(text)
        row = (
            run, setting.jobId, setting.runId, setting.updatedAt, missing_defaults, *where,
            text[start:end].decode(), start, len(text.rstrip()[:-1].rstrip()),
        )  # fmt: skip
        if flags & (entry_format.FLAG_IMPORTED | entry_format.FLAG_RESTORED):
            self._database.execute("INSERT OR REPLACE INTO " + _SETTING_ROW, row)
            return
        # Not the maximum of all times: a time from a wrong clock would stay.
        self._database.execute(
            f"INSERT INTO {_SETTING_ROW} ON CONFLICT (run) DO UPDATE SET"
            " updated_at = max(CAST(sent_at AS NUMERIC), ?), rewritten = 1",
            (*row, time_ms),
        )


def kind_name(kind: int) -> str:
    """Name of a record kind for people."""
    return Kind(kind).name.lower()
