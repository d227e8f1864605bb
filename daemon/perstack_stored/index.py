"""The index: an SQLite projection of the journal that says where each value stands. It can be rebuilt.

Values stay in the journal; a row holds segment, offset, length and crc32c of the bytes. The cursor moves in
the transaction of the rows, so after any crash the index is as of some position, and goes on from there.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterable

from crc32c import crc32c

from . import jsontext, record, values
from .errors import StoredError
from .record import Kind
from .segments import Entry, JournalReader, Mark

FILE_NAME = "index.sqlite"
SCHEMA_VERSION = 1
LACKS_REASONING_BUDGET = 1
LACKS_MAX_STEPS = 2
_PLACE_EVERY_BYTES = 256 << 10
_RUNS_CACHED_MAX = 4096
_INSERT_EVENT = "INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
# What most events are: the first of their name, with a whole timestamp. sqlite3 takes long over None.
_INSERT_FRESH = "INSERT INTO event VALUES (?, ?, ?, ?, 1, NULL, ?, ?, ?, ?, ?)"

_SCHEMA = """
CREATE TABLE cursor (store BLOB NOT NULL, position INTEGER NOT NULL, segment INTEGER NOT NULL, offset INTEGER
NOT NULL);
CREATE TABLE place (position INTEGER PRIMARY KEY, segment INTEGER NOT NULL, offset INTEGER NOT NULL);
CREATE TABLE job (
  id TEXT PRIMARY KEY, started_at NUMERIC NOT NULL,
  position INTEGER NOT NULL, segment INTEGER NOT NULL, offset INTEGER NOT NULL,
  length INTEGER NOT NULL, crc INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX job_order ON job (started_at DESC, id);
CREATE TABLE checkpoint (
  job TEXT NOT NULL, id TEXT NOT NULL, step INTEGER NOT NULL,
  position INTEGER NOT NULL, segment INTEGER NOT NULL, offset INTEGER NOT NULL,
  length INTEGER NOT NULL, crc INTEGER NOT NULL, PRIMARY KEY (job, id)
) WITHOUT ROWID;
CREATE TABLE run (id INTEGER PRIMARY KEY, job TEXT NOT NULL, name TEXT NOT NULL, UNIQUE (job, name));
CREATE TABLE setting (
  run INTEGER PRIMARY KEY, updated_at NUMERIC NOT NULL, rewritten INTEGER NOT NULL, lacks INTEGER NOT NULL,
  position INTEGER NOT NULL, segment INTEGER NOT NULL, offset INTEGER NOT NULL,
  length INTEGER NOT NULL, crc INTEGER NOT NULL
);
CREATE INDEX setting_order ON setting (updated_at DESC);
-- The key is the name of the event's file. Different events with one name are told apart by n: 1, 2, 3, …
CREATE TABLE event (
  run INTEGER NOT NULL, timestamp INTEGER NOT NULL, step INTEGER NOT NULL, type TEXT NOT NULL, n INTEGER NOT
  NULL, at TEXT,  -- the timestamp itself, where it has a fraction
  position INTEGER NOT NULL, segment INTEGER NOT NULL, offset INTEGER NOT NULL,
  length INTEGER NOT NULL, crc INTEGER NOT NULL, PRIMARY KEY (run, timestamp, step, type, n)
) WITHOUT ROWID;
CREATE INDEX event_twin ON event (run, timestamp, step, type, crc) WHERE n > 1;
-- Events that don't have their plain file name: n as above, or 0 for one that repeats an earlier event.
CREATE TABLE twin (position INTEGER PRIMARY KEY, n INTEGER NOT NULL);
"""


class IndexUnusableError(StoredError):
    """The index is damaged, of another version, or of another journal. Remove it and build it again."""


def connect(path: str, *, read_only: bool) -> sqlite3.Connection:
    """Open the index; the writer makes it if it is not there."""
    uri = f"file:{path.replace('%', '%25').replace('?', '%3f').replace('#', '%23')}"
    database = sqlite3.connect(
        uri + ("?mode=ro" if read_only else ""),
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=30,
    )
    database.execute("PRAGMA cache_size = -8192")
    return database


def position_of(path: str, store: bytes) -> int | None:
    """Position up to which an index of this journal is complete; None if there is none that can be read."""
    if not os.path.exists(path):
        return None
    try:
        with contextlib.closing(connect(path, read_only=True)) as database:
            row = database.execute("SELECT store, position FROM cursor").fetchone()
    except sqlite3.DatabaseError:
        return None
    return int(row[1]) if row is not None and row[0] == store else None


class _Latest:
    """The newest timestamp of a run, and the steps and types that it has there; None: not known."""

    __slots__ = ("names", "timestamp")

    def __init__(self, timestamp: int) -> None:
        self.timestamp = timestamp
        self.names: set[tuple[int, str]] | None = None


class Index:
    """The writing end of the index."""

    def __init__(self, path: str, reader: JournalReader, store: bytes) -> None:
        """Open or make the index at `path` for the journal that `reader` reads.

        Raises:
            IndexUnusableError: what is there can't be used.
        """
        self._reader = reader
        self._runs: dict[tuple[str, str], int] = {}
        self._latest: dict[int, _Latest] = {}
        self._fresh: list[tuple[object, ...]] = []
        try:
            self._database = connect(path, read_only=False)
            self._place = self._open(store)
        except sqlite3.DatabaseError as error:
            raise IndexUnusableError(f"the index can't be opened: {error}") from error
        os.chmod(path, 0o640)
        self._last_place = (self._place.segment, self._place.offset)

    def _open(self, store: bytes) -> Mark:
        database = self._database
        database.execute("PRAGMA journal_mode = WAL")
        # Not synced at each commit: a power cut takes the index back to an earlier position, no more.
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("PRAGMA wal_autocheckpoint = 2000")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version == 0:
            start = self._reader.start()
            database.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
            database.execute("INSERT INTO cursor VALUES (?, ?, ?, ?)", (store, *start))
        elif version != SCHEMA_VERSION:
            raise IndexUnusableError(f"the index has version {version}, not {SCHEMA_VERSION}")
        found = database.execute("SELECT store, position, segment, offset FROM cursor").fetchone()
        if found is None or found[0] != store:
            raise IndexUnusableError("the index belongs to another journal")
        return Mark(*found[1:])

    @property
    def place(self) -> Mark:
        """The place in the journal up to which the index is complete."""
        return self._place

    def apply(self, entries: Iterable[Entry]) -> None:
        """Take up entries in one transaction.

        Raises:
            sqlite3.Error: the database failed; nothing of the entries was taken up.
        """
        database = self._database
        before = self._place, self._last_place
        database.execute("BEGIN")
        try:
            for entry in entries:
                self._note_place(entry)
                position = entry.header.position
                for place in record.record_places(entry.data, entry.header):
                    payload = entry.data[place.start : place.start + place.length]
                    where = (
                        position,
                        entry.segment,
                        entry.offset + place.start,
                        place.length,
                        crc32c(payload),
                    )
                    self._take_up(place.kind, place.flags, payload, entry.header.time_ms, where)
                    position += 1
                self._place = self._reader.behind(entry)
            self._insert_fresh()
            database.execute("UPDATE cursor SET position = ?, segment = ?, offset = ?", self._place)
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            self._place, self._last_place = before
            self._forget()  # the numbers of runs that are not there now go to others
            raise

    def close(self) -> None:
        """Close the database."""
        self._database.close()

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

    def _take_up(
        self, kind: int, flags: int, payload: memoryview, time_ms: int, where: tuple[int, int, int, int, int]
    ) -> None:
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
            self._setting(value, flags, time_ms, where)

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
                self._forget()
            self._runs[job, name] = found
        return int(found)

    def _event(self, event: values.Event, payload: memoryview, where: tuple[int, int, int, int, int]) -> None:
        timestamp = int(event.timestamp)
        at = None if event.timestamp == timestamp else repr(event.timestamp)
        run = self._run(event.jobId, event.runId)
        key = (run, timestamp, int(event.stepNumber), event.type)
        if self._is_fresh(key) and at is None:
            self._fresh.append(key + where)
            return
        self._insert_fresh()
        if self._database.execute(_INSERT_EVENT + " ON CONFLICT DO NOTHING", (*key, 1, at, *where)).rowcount:
            return
        n = 0 if self._is_repeat(key, payload, where) else self._next_n(key)
        if n:
            self._database.execute(_INSERT_EVENT, (*key, n, at, *where))
        self._database.execute("INSERT INTO twin VALUES (?, ?)", (where[0], n))

    def _is_fresh(self, key: tuple[int, int, int, str]) -> bool:
        """Whether no event can have this name yet, as for most; those are inserted many at a time."""
        run, timestamp, step, type_ = key
        latest = self._latest.get(run)
        if latest is None:
            (newest,) = self._database.execute(
                "SELECT max(timestamp) FROM event WHERE run = ?", (run,)
            ).fetchone()
            latest = self._latest[run] = _Latest(-1 if newest is None else newest)
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

    def _forget(self) -> None:
        self._runs.clear()
        self._latest.clear()
        self._fresh.clear()

    def _is_repeat(
        self, key: tuple[int, int, int, str], payload: memoryview, where: tuple[int, int, int, int, int]
    ) -> bool:
        """Whether an event with the same bytes, and so the same job, run and id, is there already."""
        _, _, _, length, crc = where
        select = (
            "SELECT segment, offset FROM event{}"
            " WHERE run = ? AND timestamp = ? AND step = ? AND type = ? AND crc = ? AND length = ? AND {}"
        )
        # Told which index, since left alone it walks through all events of the name.
        for by, condition in (("", "n = 1"), (" INDEXED BY event_twin", "n > 1")):
            for segment, offset in self._database.execute(select.format(by, condition), (*key, crc, length)):
                if self._reader.payload(segment, offset, length) == payload:
                    return True
        return False

    def _next_n(self, key: tuple[int, int, int, str]) -> int:
        (n,) = self._database.execute(
            "SELECT max(n) FROM event WHERE run = ? AND timestamp = ? AND step = ? AND type = ?",
            key,
        ).fetchone()
        return int(n) + 1

    def _setting(
        self, setting: values.RunSetting, flags: int, time_ms: int, where: tuple[int, int, int, int, int]
    ) -> None:
        run = self._run(setting.jobId, setting.runId)
        lacks = (LACKS_REASONING_BUDGET if setting.reasoningBudget is values.UNSET else 0) | (
            LACKS_MAX_STEPS if setting.maxSteps is values.UNSET else 0
        )
        if flags & record.FLAG_IMPORTED:
            self._database.execute(
                "INSERT OR REPLACE INTO setting VALUES (?, ?, 0, ?, ?, ?, ?, ?, ?)",
                (run, setting.updatedAt, lacks, *where),
            )
            return
        self._database.execute(
            "INSERT INTO setting VALUES (?, ?, 0, ?, ?, ?, ?, ?, ?) ON CONFLICT (run) DO UPDATE SET"
            " updated_at = max(updated_at, ?), rewritten = 1",
            (run, setting.updatedAt, lacks, *where, time_ms),
        )


def setting_text(payload: bytes, updated_at: float, *, rewritten: bool) -> bytes:
    """A run setting as it counts now: the first one stored, with the time of the last store."""
    if not rewritten:
        return payload
    found = jsontext.span(payload, "updatedAt")
    assert found is not None, "updatedAt was required when it was stored"
    return payload[: found[0]] + repr(updated_at).encode() + payload[found[1] :]


def with_defaults(payload: bytes, lacks: int) -> bytes:
    """A run setting as the reference reads it: "low" and 100 stand in for what is missing."""
    missing = (b',"reasoningBudget":"low"' if lacks & LACKS_REASONING_BUDGET else b"") + (
        b',"maxSteps":100' if lacks & LACKS_MAX_STEPS else b""
    )
    return payload if not missing else payload.rstrip()[:-1].rstrip() + missing + b"}"


def remove(path: str) -> None:
    """Remove an index with the files beside it."""
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + suffix)


def kind_name(kind: int) -> str:
    """Name of a record kind for people."""
    return Kind(kind).name.lower()
