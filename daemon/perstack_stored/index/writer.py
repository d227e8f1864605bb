"""The index writer: an SQLite projection of the journal that records where each value stands.

Values stay in the journal; a row holds segment, offset, length and crc32c of the bytes. The cursor moves in
the transaction of the rows, so after any crash the index matches some position, and goes on from there.
"""

import contextlib
import errno
import os
import sqlite3
from bisect import bisect_left
from collections.abc import Iterable

from perstack_stored.datadir.filesystem import FILE_MODE
from perstack_stored.errors import IndexUnusableError, Refusal
from perstack_stored.index.connection import _files_of, connect_worker, cursor_crc, may_pass, read_cursor
from perstack_stored.index.schema import _SCHEMA, SCHEMA_VERSION
from perstack_stored.journal import entry_format
from perstack_stored.journal.reader import JournalReader, LogPosition
from perstack_stored.journal.segment_walk import Entry, is_large
from perstack_stored.model import deletions, erasures, gaps, values
from perstack_stored.model.checksum import crc32c
from perstack_stored.model.gaps import Gap, GapRange
from perstack_stored.model.kinds import Kind
from perstack_stored.model.run_settings import MISSING_MAX_STEPS, MISSING_REASONING_BUDGET
from perstack_stored.model.updated_at import span as updated_at_span
from perstack_stored.process.worker_status import WorkerStatus

from .deletions import RUN_OF_CHECKPOINT, DeletionWriter, Pending
from .event_batch import OFFSET_MAX, EventBatch
from .event_writer import EventWriter
from .older_versions import keep_checkpoint, keep_job
from .page_checksums import CheckpointedChecksums
from .value_lookup import ValueAddress, read_value

_PLACE_EVERY_BYTES = 256 << 10
_GAP = int(Kind.GAP)
_EVENT = int(Kind.EVENT)
_DELETION = int(Kind.DELETION)
_SETTING_ROW = "setting VALUES (?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_TOUCH = "UPDATE setting SET updated_at = max(updated_at, ?), rewritten = 1 WHERE run = ?"


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
        self._gaps: list[GapRange] = []
        self._batch = EventBatch()
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
        self._events = EventWriter(self._database, self._value_at)
        self._deletions = DeletionWriter(self._database, self._events)
        self._checkpoints = CheckpointedChecksums(path, self._database)
        self._pending = self._deletions.pending()
        self._has_deleted = False
        os.chmod(path, FILE_MODE)
        self._last_place = (self._place.segment, self._place.offset)

    def _open(self, store: bytes) -> LogPosition:
        database = self._database
        database.execute("PRAGMA journal_mode = WAL")
        # What is deleted is overwritten, in free pages too.
        database.execute("PRAGMA secure_delete = ON")
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
        entries = list(entries)
        if not entries:
            return
        self._checkpoints.run_if_due()
        database = self._database
        before = self._place, self._last_place
        database.execute("BEGIN")
        self._place = self._reader.place_after(entries[-1])
        try:
            self._note_places(entries)
            self._index_entries(entries)
            self._events.flush()
            self._insert_gaps()
            database.execute(
                "UPDATE cursor SET position = ?, segment = ?, offset = ?, crc = ?",
                (*self._place, cursor_crc(self._store, self._place)),
            )
            database.execute("COMMIT")
            if self._has_deleted:
                self._pending, self._has_deleted = self._deletions.pending(), False
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            self._place, self._last_place = before
            self._gaps.clear()
            self._batch.clear()
            self._events.forget()
            raise

    @property
    def checkpoints(self) -> int:
        """Count of checkpoints begun."""
        return self._checkpoints.begun

    def checkpoint(self) -> None:
        """Checkpoint SQLite's log into the database's file."""
        self._checkpoints.run()

    @property
    def pending(self) -> Pending:
        """The deletions that are not erased."""
        return self._pending

    def note_erased(self, position: int) -> bool:
        """Note that all deletions up to a position are erased in journal and tree.

        Returns:
            False if SQLite's log still holds what was deleted, as a reader keeps it there: to be tried again.

        Raises:
            sqlite3.Error, OSError: the database failed; nothing was noted.
        """
        self.checkpoint()
        if self._checkpoints.has_log:
            return False
        self._database.execute("BEGIN")
        try:
            self._deletions.note_erased(position)
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise
        self._pending = self._deletions.pending()
        return True

    def close(self) -> None:
        """Close the database after a last checkpoint."""
        self.checkpoint()
        self._database.close()
        self._checkpoints.close()

    def _name(self, position: int, kind: int) -> None:
        if self._status is not None:
            self._status.at(position)
            self._status.describe(kind_name(kind))

    def _note_places(self, entries: list[Entry]) -> None:
        """Note the places of the first entry of the journal, and of one in each 256 KiB."""
        number = 0 if entries[0].header.position == 1 else self._next_place(entries, 0)
        while number < len(entries):
            segment, offset, header, *_ = entries[number]
            self._last_place = (segment, offset)
            self._database.execute(
                "INSERT OR REPLACE INTO place VALUES (?, ?, ?)", (header.position, segment, offset)
            )
            number = self._next_place(entries, number)

    def _next_place(self, entries: list[Entry], start: int) -> int:
        segment, offset = self._last_place
        return bisect_left(entries, (segment, offset + _PLACE_EVERY_BYTES), start)

    def _note_large(self, position: int, value: values.Value) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO large VALUES (?, ?, ?)", (position, *values.owner_of(value))
        )

    def _index_entries(self, entries: list[Entry]) -> None:
        batch, number = self._batch, 0
        while number < len(entries):
            if entries[number].segment != batch.segment:
                self._add_events()
                batch.segment = entries[number].segment
            before = number
            if not self.names_records:
                number = batch.add_entries(entries, number)
            if number == before:
                self._index_entry(entries[number])
                number += 1
        self._add_events()

    def _index_entry(self, entry: Entry) -> None:
        header, data = entry.header, entry.data
        position, batch = header.position, self._batch
        in_batch = not (is_large(header) or self.names_records) and entry.offset + header.length <= OFFSET_MAX
        for kind, flags, start, length in entry_format.record_places(data, header):
            payload = data[start : start + length]
            if in_batch and kind == _EVENT:
                batch.add(position, entry.offset + start, payload)
            else:
                self._add_events()
                if self.names_records:
                    self._name(position, kind)
                where = (position, entry.segment, entry.offset + start, length, crc32c(payload))
                value = self._index_record(kind, flags, payload, header.time_ms, where)
                if is_large(header) and value is not None:
                    self._note_large(position, value)
            position += 1

    def _add_events(self) -> None:
        """Index the events that were collected."""
        if self._batch:
            self._events.add(self._batch.segment, self._batch.take())

    def _index_record(
        self, kind: int, flags: int, payload: memoryview, time_ms: int, where: tuple[int, int, int, int, int]
    ) -> values.Value | None:
        if kind == _GAP:
            self._gap(gaps.decode(payload), where[0], time_ms)
            return None
        if kind == _DELETION:
            self._delete(payload, time_ms, where)
            return None
        value = values.decode(kind, payload)
        if isinstance(value, values.Event):
            self._events.add_row(value, where, payload)
        elif isinstance(value, values.Checkpoint):
            self._checkpoint(value, time_ms, where)
        elif isinstance(value, values.Job):
            self._job(value, where)
        else:
            self._setting(value, payload, flags, time_ms, where)
        return value

    def _delete(self, payload: memoryview, time_ms: int, where: tuple[int, int, int, int, int]) -> None:
        deletion = deletions.decode(payload)
        self._deletions.apply(deletion, payload, where[0], time_ms)
        self._has_deleted = True
        if deletion.is_redaction:
            position, segment, offset, *_ = where
            start, length = deletions.place_of_setting(bytes(payload))
            setting = payload[start : start + length]
            value = values.decode(Kind.RUN_SETTING, setting)
            assert isinstance(value, values.RunSetting), "it was decoded as one"
            of_setting = (position, segment, offset + start, length, crc32c(setting))
            self._setting(value, setting, entry_format.FLAG_RESTORED, time_ms, of_setting)

    def _insert_gaps(self) -> None:
        if not self._gaps:
            return
        select = "SELECT first, last FROM gap ORDER BY first DESC LIMIT 1"
        for first, last in self._database.execute(select).fetchall():
            if self._gaps[0].first == last + 1:
                self._gaps[0] = GapRange(first, self._gaps[0].last)
        self._database.executemany("INSERT OR REPLACE INTO gap VALUES (?, ?)", self._gaps)
        self._gaps.clear()

    def _value_at(self, place: ValueAddress) -> bytes | None:
        try:
            return read_value(self._reader, place, lambda: self._place)
        except Refusal:
            return None  # the journal is damaged there: the bytes can't be compared

    def _gap(self, gap: Gap, position: int, time_ms: int) -> None:
        """Settings keep their time, and a lost event its name. What was erased is not lost."""
        if gap.job:
            self._deletions.note_span(gap.job, position)
        if gap.removed:
            self._removed(gap, position, time_ms)
            return
        gaps.add(self._gaps, position)
        for job, run, updated_at in gap.touched:
            self._database.execute(_TOUCH, (updated_at, self._events.run(job, run)))
        if gap.n:
            self._events.add_gap(gap)

    def _removed(self, gap: Gap, position: int, time_ms: int) -> None:
        """What an erased record changed of others."""
        summaries = self._events.summaries
        if gap.op == erasures.OF_CHECKPOINT:
            run = self._deletions.remove_checkpoint(gap, position)
            if run is not None:
                summaries.drop_checkpoint(self._events.summary(gap.jobId, run))
        elif gap.op == erasures.OF_SETTING:
            summaries.add_record(self._events.summary(gap.jobId, gap.runId), gap.expertKey, position, time_ms)

    def _job(self, job: values.Job, where: tuple[int, int, int, int, int]) -> None:
        summaries = self._events.summaries
        if summaries.is_full:
            self._events.make_room()
        summaries.add_job(job, where[0])
        keep_job(self._database, job.id, where[0])
        self._database.execute(
            "INSERT OR REPLACE INTO job VALUES (?, ?, ?, ?, ?, ?, ?)", (job.id, job.startedAt, *where)
        )

    def _checkpoint(
        self, checkpoint: values.Checkpoint, time_ms: int, where: tuple[int, int, int, int, int]
    ) -> None:
        job, id = checkpoint.jobId, checkpoint.id
        before = self._database.execute(RUN_OF_CHECKPOINT, (job, id)).fetchone()
        is_new = before is None or before[0] != checkpoint.runId
        summaries = self._events.summaries
        if before is not None and is_new:
            summaries.drop_checkpoint(self._events.summary(job, before[0]))
        run = self._events.summary(job, checkpoint.runId)
        summaries.add_checkpoint(run, checkpoint, where[0], time_ms, is_new=is_new)
        if before is not None:
            keep_checkpoint(self._database, job, id, where[0])
        self._database.execute(
            "INSERT OR REPLACE INTO checkpoint VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (job, id, int(checkpoint.stepNumber), run.id, *where),
        )

    def _setting(
        self,
        setting: values.RunSetting,
        payload: memoryview,
        flags: int,
        time_ms: int,
        where: tuple[int, int, int, int, int],
    ) -> None:
        summary = self._events.summary(setting.jobId, setting.runId)
        self._events.summaries.add_record(summary, setting.expertKey, where[0], time_ms)
        run = summary.id
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
