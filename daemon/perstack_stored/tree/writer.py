"""The tree writer: projects the journal to the documented folders and files, which Perstack's tools read.

`FileWriter` puts each file in its place. The durable cursor moves after a sync of the whole file system, at
most `UNSYNCED_RECORDS_MAX` records later. After a crash the following records are written again, where
their files don't have the right content.
"""

import errno
import sqlite3
from collections.abc import Callable, Iterable

from perstack_stored.datadir.background_sync import BackgroundSync
from perstack_stored.datadir.layout import DataDir
from perstack_stored.errors import DamageError, Refusal
from perstack_stored.index.job_ends import job_end
from perstack_stored.journal.reader import JournalReader, LogPosition
from perstack_stored.journal.segment_walk import Entry
from perstack_stored.process.worker_status import WorkerStatus
from perstack_stored.tree import cursor as tree_cursor
from perstack_stored.tree.cursor import Cursor, save_cursor
from perstack_stored.tree.write import File, Write, divided, folded

from .deleted_files import DeletedFiles, deletions_in
from .file_writer import FileWriter, is_blocked, unsynced
from .helper import ParallelWriter, Slice, slice_of
from .left_out import LeftOut, load, save
from .old_jobs import OldJobs, files_of
from .options import TreeOptions
from .passed_over import PassedOver
from .record_files import RecordDeletedError, RecordFiles
from .record_writes import RecordWrites, Wanted
from .remover import Remover


class TreeWriter:
    """Writes the tree of a base.

    Attributes:
        syncer: syncs in a thread while the next files are written; optional.
        names_records: describe each record in the worker's status before it is written.
        passed_over: blocked records, which are not written, because a worker died at them.
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
        self._replayed: dict[File, int] = {}
        self._status = status or WorkerStatus()
        self.names_records = False
        self.passed_over = PassedOver(options.passed_over)
        self.blocked = 0
        self.syncer: BackgroundSync[LogPosition] | None = None
        self.on_blocked: Callable[[Write, OSError], None] = lambda _write, _error: None
        self._writer = FileWriter(datadir, options, lambda: self._collect_sync(wait=True))
        self._remover = Remover(files, datadir.folders.base, self._status.beat)
        self._deleted = DeletedFiles(
            index, self._remover, self.passed_over, self._status, self._writer.let_go
        )
        self.old_jobs = OldJobs(index, left_out)
        self._records = RecordFiles(index, reader, self.old_jobs)
        self._record_writes = RecordWrites(index, self._records, self.passed_over, self._status)
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
            deleted.update(deletion.jobId for _, deletion in deletions_in([entry]))
            for write in self._deleted.not_removed(self._writes([entry], last)):
                if write.folders[1] in deleted:
                    self._deleted.begun_again[*write.folders, write.name] = write.position
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
        wanted = self._wanted(entries, until.position)
        pieces = self._record_writes.pieces(entries, wanted)
        # First: what the slice stores under the same ids before a deletion is not written at all.
        others = [piece for piece in pieces if isinstance(piece, Entry)]
        self._deleted.remove(others, self.position, is_named=self.names_records)
        writes = self._record_writes.of(pieces, wanted)
        if helper is None or entries[0].header.position <= self.replay_until:
            self._write_all(writes)
        else:
            self._write_divided(writes, helper, slice_of(entries, until, self.position))
        self.position = until.position
        if until.position >= self.replay_until:
            self._replayed.clear()
            self._deleted.begun_again.clear()
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
        wanted = self._deleted.not_removed(writes)
        if len(wanted) < len(writes) and writes[0].position <= self.replay_until:
            wanted = self._deleted.put_right(writes, wanted, self.replay_until)
        wanted, back = self.old_jobs.sort_out(wanted)
        writes = [write for write in wanted if not write.is_left_out or write.position <= self.replay_until]
        if not writes and not back:
            return
        self._writer.begin({write.folders[:2] for write in writes} | {("jobs", job) for job in back})
        for job in back:
            self._write_older(job, self.old_jobs.left_out.jobs_until)
            self.old_jobs.is_whole(job)
        for write in folded(writes, self._replayed, self._writer.exists):
            # Written before the setting was changed; what a power cut left of it may be torn.
            if write.is_left_out and not self._writer.exists(write):
                continue
            is_written = self._put(write, replay=write.position <= self.replay_until)
            if is_written and self.passed_over.records and write.replaces:
                self.passed_over.drop_older(write)
        self._status.at(0)

    def _put(self, write: Write, *, replay: bool) -> bool:
        """Write a file, or count it as blocked; False if its record was deleted meanwhile."""
        self._status.at(write.position)
        if self.names_records:
            self._status.describe(write.kind, write.path)
        try:
            self._writer.write(write, replay=replay)
        except RecordDeletedError:
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
        for write, type in files_of(self._index, self._reader, job, until, self._records.setting):
            if write.position in self.passed_over.records:
                continue
            is_left_out = bool(type) and self.old_jobs.left_out.has_event(write.position, type)
            if is_left_out and not self._writer.exists(write):
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

    def stop_removing(self) -> None:
        """Some files of a job were removed, and the rest stays."""
        self._remover.stop()

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
        self._remover.stop()
        self._writer.close()

    def _wanted(self, entries: list[Entry], last: int) -> Wanted:
        first = max(entries[0].header.position, self.position + 1)
        return Wanted(range(first, last + 1), self.replay_until, self.names_records)

    def _writes(self, entries: list[Entry], last: int) -> list[Write]:
        wanted = self._wanted(entries, last)
        return self._record_writes.of(self._record_writes.pieces(entries, wanted), wanted)

    def retry_blocked(self, position: int, mark: LogPosition) -> None:
        """Write a record that was passed over, unless a later one replaces it.

        Raises:
            OSError: the file system refuses.
        """
        place = self._reader.seek(position - 1, mark)
        for entry in self._reader.entries(place, mark):
            self.passed_over.records.pop(position, None)
            before, self.position = self.position, position - 1
            try:
                writes = self._writes([entry], entry.header.position + entry.header.count - 1)
            finally:
                self.position = before
            self._write_all([w for w in writes if w.position == position and self._records.is_newest(w)])
            return
