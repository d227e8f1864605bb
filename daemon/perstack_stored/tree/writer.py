"""The tree writer: projects the journal to the documented folders and files, which Perstack's tools read.

`FileWriter` puts each file in its place. The durable cursor moves after a sync of the whole file system, at
most `UNSYNCED_RECORDS_MAX` records later. After a crash the following records are written again, where
their files don't have the right content.
"""

import errno
import sqlite3
from collections.abc import Callable, Iterable, Iterator

from perstack_storage.protocol import ErrorCode
from perstack_stored.datadir.background_sync import BackgroundSync
from perstack_stored.datadir.layout import (
    DataDir,
)
from perstack_stored.errors import DamageError, IndexUnusableError, Refusal
from perstack_stored.index.connection import read_cursor
from perstack_stored.index.deletions import Removals
from perstack_stored.index.job_ends import job_end
from perstack_stored.index.value_lookup import ValueAddress, read_value
from perstack_stored.index.writer import kind_name
from perstack_stored.journal import entry_format
from perstack_stored.journal.reader import JournalReader, LogPosition
from perstack_stored.journal.segment_names import segment_name
from perstack_stored.journal.segment_walk import Entry
from perstack_stored.model import deletions, json_text, values
from perstack_stored.model.kinds import Kind
from perstack_stored.model.run_settings import setting_text
from perstack_stored.process.worker_status import WorkerStatus
from perstack_stored.tree import cursor as tree_cursor
from perstack_stored.tree.cursor import Cursor, save_cursor
from perstack_stored.tree.write import SETTING_NAME, Write, divided, event_name

from .file_writer import FileWriter, is_blocked, unsynced
from .helper import ParallelWriter, Slice, slice_of
from .left_out import LeftOut, load, save
from .old_jobs import OldJobs, files_of
from .options import TreeOptions
from .remover import Remover

_NO_FILE = frozenset({int(Kind.GAP)})


def _has_file(kind: int, payload: memoryview) -> bool:
    if kind == Kind.DELETION:
        return deletions.decode(payload).is_redaction
    return kind not in _NO_FILE


def _is_removed(removals: Removals, write: Write) -> bool:
    job = write.folders[1]
    is_setting = write.name == SETTING_NAME
    if removals.has(write.position, job, write.run, is_setting=is_setting):
        return True
    id = write.name.removesuffix(".json")
    return write.kind == "checkpoint" and removals.has_checkpoint(write.position, job, id)


class _DeletedError(Exception):
    """A record was deleted while its file was to be written."""


class TreeWriter:
    """Writes the tree of a base.

    Attributes:
        syncer: syncs in a thread while the next files are written; optional.
        names_records: describe each record in the worker's status before it is written.
        passed_over: blocked records by position, which are not written, because a worker died at them.
        passed_over_changed: the list on disk does not match `passed_over`.
        old_jobs: jobs that have left the tree, and the record of what is left out.
    """

    def __init__(
        self,
        datadir: DataDir,
        index: sqlite3.Connection,
        reader: JournalReader,
        store: bytes,
        options: TreeOptions = TreeOptions(),  # noqa: B008 - it can't be changed
        status: WorkerStatus | None = None,
    ) -> None:
        """Go on with the tree at its cursor.

        Args:
            datadir: the data directory.
            index: the index, read only: it numbers events that share a name, and holds the settings' times.
            reader: reads the journal.
            store: the journal's identity.
            options: how the tree is written.
            status: shows this process's progress.
        """
        files, stored_dir = datadir.files, datadir.folders.stored
        self._files = files
        self._stored = stored_dir
        self._index = index
        self._reader = reader
        self._store = store
        cursor, left_out, _ = load(files, stored_dir, store)
        self.position = self.synced = cursor.position
        self.clean = cursor.clean
        self.replay_until = cursor.written_max
        self._lost = cursor.lost
        self._replayed: dict[tuple[tuple[str, ...], str], int] = {}
        self._begun_again: dict[
            tuple[str, ...], int
        ] = {}  # files of deleted jobs: position of the last record
        self._status = status or WorkerStatus()
        self.names_records = False
        self.passed_over = {one.position: one for one in options.passed_over}
        self.passed_over_changed = False
        self.blocked = 0
        self.syncer: BackgroundSync[LogPosition] | None = None
        self.on_blocked: Callable[[Write, OSError], None] = lambda _write, _error: None
        self._writer = FileWriter(datadir, options, lambda: self._collect_sync(wait=True))
        self._remover = Remover(files, datadir.folders.base, self._status.beat)
        self.old_jobs = OldJobs(index, left_out)
        if options.assists:
            self.replay_until = 0

    # --- projection --------------------------------------------------------------------------------

    def plan_replay(self, entries: Iterable[Entry]) -> None:
        """Look ahead at entries that were maybe written before a crash, so that no older version returns."""
        last = 0
        deleted: set[str] = set()
        for entry in entries:
            if entry.header.position > self.replay_until:
                break
            last = entry.header.position + entry.header.count - 1
            deleted.update(deletion.jobId for _, deletion in self._deletions([entry]))
            for write in self._not_removed(self._writes([entry], last)):
                if write.folders[1] in deleted:
                    self._begun_again[*write.folders, write.name] = write.position
                if write.replaces:
                    self._replayed[write.folders, write.name] = write.position
        if self._lost:
            self.replay_until = last

    def apply(self, entries: list[Entry], helper: ParallelWriter | None = None) -> None:
        """Write the entries to the tree, with a helper if there is one.

        Raises:
            OSError: the file system refuses, as when it is full; the same entries can be applied again.
            TreeUnsyncedError: a sync failed; the entries can't be applied again.
            IndexUnusableError: the index is damaged.
        """
        if not entries:
            return
        until = self._reader.place_after(entries[-1])
        self._collect_sync(wait=until.position > self.synced + tree_cursor.UNSYNCED_RECORDS_MAX)
        if self.clean or self._lost or until.position > self.synced + tree_cursor.UNSYNCED_RECORDS_MAX:
            self.sync(clean=False)
        # First: what the slice stores under the same ids before a deletion is not written at all.
        self._remove_deleted(entries)
        writes = self._writes(entries, until.position)
        if helper is None or entries[0].header.position <= self.replay_until:
            self._write_all(writes)
        else:
            self._write_divided(writes, helper, slice_of(entries, until, self.position))
        self.position = until.position
        if until.position >= self.replay_until:
            self._replayed.clear()
            self._begun_again.clear()
        self._sync_beside()

    def write_part(self, piece: Slice) -> int:
        """Write the helper's part of a slice; returns the count of files that are blocked."""
        entries = list(self._reader.entries(piece.place, piece.until))
        self.position, self.blocked = piece.position, 0
        self._write_all(divided(self._writes(entries, piece.until.position))[1])
        return self.blocked

    def _write_divided(self, writes: list[Write], helper: ParallelWriter, piece: Slice) -> None:
        own, helped = divided(writes)
        asked = bool(helped) and helper.ask(piece)
        try:
            self._write_all(own)
        finally:
            # Also after an error in this process's part: never go on while the helper still writes.
            done = asked and helper.finish()
        if helped and not done:
            self._write_all(helped)

    def _write_all(self, writes: list[Write]) -> None:
        # Not before the writes are divided: the index goes on meanwhile, and both must divide alike.
        wanted = self._not_removed(writes)
        if len(wanted) < len(writes) and writes[0].position <= self.replay_until:
            self._remove_torn(writes, wanted)
        writes, back = self.old_jobs.sort_out(wanted)
        if not writes:
            return
        self._writer.begin({write.folders[:2] for write in writes})
        for job in back:
            self._write_older(job, self.old_jobs.left_out.jobs_until)
            self.old_jobs.is_whole(job)
        for write in self._folded(writes):
            # Written before the setting was changed; what a power cut left of it may be torn.
            if write.is_left_out and not self._writer.exists(write):
                continue
            is_written = self._put(write, replay=write.position <= self.replay_until)
            if is_written and self.passed_over and write.replaces:
                self._drop_older(write)
        self._status.at(0)

    def _remove_torn(self, writes: list[Write], wanted: list[Write]) -> None:
        """Remove files of a replay whose records were deleted later: a crash may have torn them.

        Their deletion may come after the daemon is ready. A file that is stored again after it stays.
        """
        stays = {(*write.folders, write.name) for write in wanted} | self._begun_again.keys()
        lives = {write.position for write in wanted}
        runs = set()
        for write in writes:
            if write.position > self.replay_until or write.position in lives:
                continue
            if write.kind == "event":  # the index does not know any more which number its name had
                runs.add((write.folders[1], write.run))
            elif (*write.folders, write.name) not in stays:
                self._remover.remove_file(write.folders, write.name)
        for job, run in runs:
            self._remover.remove_run(job, run, (), stays)
            self._writer.let_go(("jobs", job))

    def _put(self, write: Write, *, replay: bool) -> bool:
        """Write a file, or count it as blocked; False if its record was deleted meanwhile."""
        self._status.at(write.position)
        if self.names_records:
            self._status.describe(write.kind, write.path)
        try:
            self._writer.write(write, replay=replay)
        except _DeletedError:
            return False
        except OSError as error:
            if not is_blocked(error):
                raise
            self.blocked += 1
            self.on_blocked(write, error)
        return True

    # --- jobs that have left the tree --------------------------------------------------------------

    def _write_older(self, job: str, until: int) -> None:
        """Write the files of a job's records up to a position, where they are missing or differ."""
        for write, type in files_of(self._index, self._reader, job, until, self._setting):
            if write.position in self.passed_over:
                continue
            if type and self.old_jobs.left_out.has_event(write.position, type):
                continue
            self._status.beat()
            try:
                # What a power cut left of an earlier try may be torn.
                self._put(write, replay=True)
            except (Refusal, DamageError) as error:
                # A damaged record of an old job must not stop all others.
                self.blocked += 1
                self.on_blocked(write, OSError(errno.EIO, str(error)))

    def write_back(self, job: str) -> None:
        """Write all files of a job, on disk when it returns, up to the tree's position.

        Raises:
            OSError: the file system refuses; it can be tried again.
            TreeUnsyncedError: files may not be on disk.
            IndexUnusableError: the index is damaged.
        """
        self._writer.begin([("jobs", job)])
        self._write_older(job, self.position)
        self._status.at(0)
        self.sync_files()

    def has_job(self, job: str) -> bool:
        """Whether the index knows a job."""
        return job_end(self._index, job) is not None

    def remove_some(self, job: str, most: int) -> bool:
        """Remove some files of a job that has left the tree; returns whether none is left."""
        self._writer.let_go(("jobs", job))
        return self._remover.remove_some(job, most)

    @property
    def removed(self) -> int:
        """Count of files that were removed."""
        return self._remover.removed

    def take_left_out(self, left_out: LeftOut) -> None:
        """Put another record of what is left out in the place of the old one, on disk when it returns.

        Raises:
            OSError: it can't be written; the old one stays.
        """
        save(self._files, self._stored, self._store, left_out)
        self.old_jobs.take(left_out)

    def _not_removed(self, writes: list[Write]) -> list[Write]:
        """The writes of records that no deletion has removed, as far as the index knows."""
        removals = Removals(self._index, writes[0].position) if writes else None
        if not removals:
            return writes
        return [write for write in writes if not _is_removed(removals, write)]

    def _remove_deleted(self, entries: list[Entry]) -> None:
        """Remove the files of jobs and runs that some entries delete."""
        for position, deletion in self._deletions(entries):
            if position > self.position and not deletion.is_redaction:
                self._remove(position, deletion)

    @staticmethod
    def _deletions(entries: list[Entry]) -> Iterator[tuple[int, deletions.Deletion]]:
        for entry in entries:
            places = entry_format.record_places(entry.data, entry.header)
            for position, place in enumerate(places, entry.header.position):
                if place.kind == Kind.DELETION:
                    payload = entry.data[place.start : place.start + place.length]
                    yield position, deletions.decode(payload)

    def _remove(self, position: int, deletion: deletions.Deletion) -> None:
        job, run = deletion.jobId, deletion.runId
        self._status.at(position)
        if self.names_records:
            self._status.describe(kind_name(Kind.DELETION), f"jobs/{job}")
        if position in self.passed_over:
            return
        # A replay may find files of later records: they are replaced in their turn, and don't vanish before.
        kept = {path for path, last in self._begun_again.items() if last > position}
        if run is None:
            self._remover.remove_job(job, kept)
        else:
            select = "SELECT id FROM deleted_checkpoint WHERE deletion = ?"
            checkpoints = [id for (id,) in self._index.execute(select, (position,))]
            self._remover.remove_run(job, run, checkpoints, kept)
        self._writer.let_go(("jobs", job))
        self._forget_passed_over(position, job, run)
        self._status.at(0)

    def _forget_passed_over(self, position: int, job: str, run: str | None) -> None:
        """Forget blocked records of a job or run: they are deleted."""
        folder = f"jobs/{job}/" if run is None else f"jobs/{job}/runs/{run}/"
        for one in list(self.passed_over.values()):
            if one.position < position and one.file.startswith(folder):
                del self.passed_over[one.position]
                self.passed_over_changed = True

    def _drop_older(self, write: Write) -> None:
        """Forget a record that was passed over: a later value of its file is there."""
        older = [
            one.position
            for one in self.passed_over.values()
            if one.file == write.path and one.position < write.position
        ]
        for position in older:
            del self.passed_over[position]
            self.passed_over_changed = True

    def sync(self, *, clean: bool) -> None:
        """Sync all that was written, then move the durable cursor.

        Args:
            clean: nothing will be written before the next sync.

        Raises:
            TreeUnsyncedError: files after the cursor must be written again, by another process.
        """
        self._collect_sync(wait=True)
        if self._lost and self.position < self.replay_until:
            return  # a cursor states that nothing far after it was written
        if self.position == self.synced and clean == self.clean and not self._lost:
            return
        if self.position != self.synced:
            self.sync_files()
        self._save_cursor(self.position, clean=clean)

    def sync_files(self) -> None:
        """Sync all that was written; the cursor does not move.

        Raises:
            TreeUnsyncedError: files that were written may not be on disk.
        """
        self._writer.sync_files()

    def _sync_beside(self) -> None:
        """Start to sync what was written while the next files are made, if there is enough of it."""
        syncer = self.syncer
        if syncer is None or syncer.busy or self._lost:
            return
        if self.position - self.synced >= tree_cursor.UNSYNCED_RECORDS_MAX // 2:
            syncer.start(self._writer.ground, LogPosition(self.position, 0, 0))

    def _collect_sync(self, *, wait: bool) -> None:
        """Move the cursor after a sync that has ended."""
        if self.syncer is None or not self.syncer.busy:
            return
        try:
            done = self.syncer.finished(wait=wait)
        except OSError as error:
            raise unsynced(error) from error
        if done is not None:
            self._save_cursor(done[0].position, clean=False)

    def _save_cursor(self, position: int, *, clean: bool) -> None:
        cursor = Cursor(position, clean, leaves_out=self.old_jobs.left_out != LeftOut())
        save_cursor(self._files, self._stored, self._store, cursor)
        self.synced, self.clean, self._lost = position, clean, False

    def close(self) -> None:
        """Close the folders; no sync may be in progress."""
        if self.syncer is not None:
            self.syncer.stop()
        self._writer.close()

    def _writes(self, entries: list[Entry], last: int) -> list[Write]:
        first = entries[0].header.position
        duplicates = dict(
            self._index.execute(
                "SELECT position, n FROM twin WHERE position BETWEEN ? AND ?", (first, last)
            ).fetchall()
        )
        writes = []
        for entry in entries:
            position = entry.header.position
            for place in entry_format.record_places(entry.data, entry.header):
                payload = entry.data[place.start : place.start + place.length]
                n = duplicates.get(position, 1)
                is_wanted = n and position > self.position and _has_file(place.kind, payload)
                if is_wanted and position not in self.passed_over:
                    self._status.at(position)
                    if self.names_records:
                        self._status.describe(kind_name(place.kind))
                    write = self._as_write(position, place.kind, payload, n)
                    if write is not None:
                        writes.append(write)
                position += 1
        self._status.at(0)
        return writes

    def retry_blocked(self, position: int, mark: LogPosition) -> None:
        """Write a record that was passed over, unless a later one replaces it.

        Raises:
            OSError: the file system refuses.
        """
        place = self._reader.seek(position - 1, mark)
        for entry in self._reader.entries(place, mark):
            self.passed_over.pop(position, None)
            before, self.position = self.position, position - 1
            try:
                writes = self._writes([entry], entry.header.position + entry.header.count - 1)
            finally:
                self.position = before
            self._write_all([w for w in writes if w.position == position and self._is_newest(w)])
            return

    def _is_newest(self, write: Write) -> bool:
        """Whether no later record has the same file, according to the index."""
        job = write.folders[1]
        if write.kind == "checkpoint":
            statement = "SELECT position FROM checkpoint WHERE job = ? AND id = ?"
            key: tuple[str, ...] = (job, write.name.removesuffix(".json"))
        elif write.kind == "job":
            statement, key = "SELECT position FROM job WHERE id = ?", (job,)
        else:
            return True  # an event has a file of its own, and a setting is written as it is now
        row = self._index.execute(statement, key).fetchone()
        return row is not None and row[0] == write.position

    def _as_write(self, position: int, kind: int, payload: memoryview, n: int) -> Write | None:
        """The file of a record; None for an event that is left out."""
        if kind == Kind.DELETION:  # a redaction: the index has its setting
            kind, payload = Kind.RUN_SETTING, memoryview(deletions.decode(payload).value)
        value = values.decode(kind, payload)
        if isinstance(value, values.Event):
            is_left_out = self.old_jobs.left_out.has_event(position, value.type)
            if is_left_out and position > self.replay_until:
                return None
            name = event_name(value.timestamp, value.stepNumber, value.type, n)
            of_run = ("jobs", value.jobId, "runs", value.runId)
            return Write(position, of_run, name, payload.tobytes, False, value.runId, is_left_out)
        if isinstance(value, values.Checkpoint):
            folders = ("jobs", value.jobId, "checkpoints")
            name = f"{value.id}.json"
            return Write(position, folders, name, payload.tobytes, replaces=True, run=value.runId)
        if isinstance(value, values.Job):
            return Write(
                position,
                ("jobs", value.id),
                "job.json",
                lambda: json_text.indent(payload.tobytes()),
                replaces=True,
            )
        job, run = value.jobId, value.runId
        return Write(
            position,
            ("jobs", job, "runs", run),
            SETTING_NAME,
            lambda: self._setting(job, run, position),
            replaces=True,
            run=run,
        )

    def _setting(self, job: str, run: str, position: int) -> bytes:
        """The setting as indexed: as of the record at a position, or newer.

        Raises:
            _DeletedError: it was deleted after this position.
        """
        row = self._index.execute(
            "SELECT segment, offset, length, crc, updated_at, rewritten, position FROM setting"
            " JOIN run ON run.id = setting.run WHERE run.job = ? AND run.name = ?",
            (job, run),
        ).fetchone()
        if row is None:
            if Removals(self._index, position).has(position, job, run, is_setting=True):
                raise _DeletedError
            raise IndexUnusableError("the index lacks a setting that its cursor covers")
        *where, updated_at, rewritten, position_of_value = row
        try:
            payload = read_value(self._reader, ValueAddress(*where), lambda: read_cursor(self._index))
        except Refusal as refusal:
            if refusal.code == ErrorCode.READ_GONE:
                raise _DeletedError from None  # a deletion that the index has yet to see again
            raise DamageError(
                segment_name(where[0]), where[1], position_of_value, "its checksum does not match"
            ) from refusal
        return setting_text(payload, updated_at, rewritten=bool(rewritten))

    def _folded(self, writes: list[Write]) -> list[Write]:
        """Drop the writes that a later one replaces; the first write of a file gives the order."""
        replacing = [write for write in writes if write.replaces]
        newest = {(write.folders, write.name): write.position for write in replacing}
        if len(newest) == len(replacing) and not self._replayed:
            return writes
        newest |= {key: self._replayed[key] for key in newest if self._replayed.get(key, 0) > newest[key]}
        wanted = []
        seen: set[tuple[tuple[str, ...], str]] = set()
        for write in writes:
            key = (write.folders, write.name)
            if write.replaces and newest[key] != write.position:
                if key in seen or self._writer.exists(write):
                    continue
                seen.add(key)
            wanted.append(write)
        return wanted
