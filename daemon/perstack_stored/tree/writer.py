"""The tree: the documented folders and files, a projection of the journal that Perstack's own tools read.

Each file appears whole or not at all: it is written without a name and then linked, or written aside and then
exchanged with the old one. Where the file system has no such way, it is written aside and then renamed
(`FileSystemFeatures`). The durable cursor moves only behind a sync of the whole file system, at most
`UNSYNCED_RECORDS_MAX` records later; what follows it is written again after a crash, where it is not there
already as it should be.
"""

import errno
import os
import sqlite3
import stat
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from perstack_stored.datadir.background_sync import BackgroundSync
from perstack_stored.datadir.filesystem import FOLDER_MODE
from perstack_stored.datadir.layout import (
    ASIDE_NAMES,
    ASIDE_PREFIX,
    STAGING_NAME,
    TOP,
    DataDir,
    FileSystemFeatures,
    TreeModes,
)
from perstack_stored.errors import DamageError, IndexUnusableError, Refusal, TreeUnsyncedError
from perstack_stored.index.connection import read_cursor
from perstack_stored.index.value_lookup import ValueAddress, read_value
from perstack_stored.index.writer import kind_name
from perstack_stored.journal import format as record
from perstack_stored.journal.reader import Entry, JournalReader, LogPosition, segment_name
from perstack_stored.model import json_text as jsontext
from perstack_stored.model import values
from perstack_stored.model.kinds import Kind
from perstack_stored.model.run_settings import setting_text
from perstack_stored.process.worker_status import WorkerStatus
from perstack_stored.tree import cursor as tree_cursor
from perstack_stored.tree.cursor import Cursor, load_cursor, save_cursor
from perstack_stored.tree.write import SETTING_NAME, Write, divided, event_name

from .blocked import BlockedRecord
from .helper import ParallelWriter, Slice, slice_of

_FOLDERS_OPEN_MAX = 256
# What a removed folder answers: ENOENT, but ext4 says EPERM where a file without a name is to be made in it.
_FOLDER_GONE = (errno.ENOENT, errno.EPERM)
# The name can't be had in the tree as it is, e.g. because a link or a folder was put in its place. One file
# must not stop all the others.
_BLOCKED = (
    errno.ELOOP,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.EXDEV,  # a folder that is a mount of its own
    errno.EBUSY,  # a file that is one
)


def _unsynced(error: OSError) -> TreeUnsyncedError:
    # It is told once: the pages count as clean now, and the next sync would report a success.
    return TreeUnsyncedError(f"syncing the tree failed: {error}")


class TreeOptions(NamedTuple):
    """How a tree is written.

    Attributes:
        modes: permissions of new files and folders.
        features: what the file system can do.
        assists: only `write_part` is used, beside another process that has the cursor.
        passed_over: records that are not written.
    """

    modes: TreeModes = TreeModes()
    features: FileSystemFeatures = FileSystemFeatures()
    assists: bool = False
    passed_over: tuple[BlockedRecord, ...] = ()


class TreeWriter:
    """Writes the tree under the base.

    Attributes:
        syncer: syncs beside the writing where there is one.
        names_records: each record is described in the worker's status before it is written.
        passed_over: records that are not written, since the process died at them; by position.
        passed_over_changed: that is not what the file of them says any more.
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
        """Go on with the tree where its cursor says.

        Args:
            datadir: the data directory.
            index: the index, read only: it numbers events that share a name, and holds the settings' times.
            reader: reads the journal.
            store: the journal's identity.
            options: how the tree is written.
            status: where this process shows its progress.
        """
        files, stored_dir, assists = datadir.files, datadir.folders.stored, options.assists
        self._files = files
        self._base = datadir.folders.base
        self._stored = stored_dir
        self._index = index
        self._reader = reader
        self._store = store
        self._modes = options.modes
        self._ways = options.features
        self._folders: OrderedDict[tuple[str, ...], int] = OrderedDict()
        cursor = load_cursor(files, stored_dir, store)
        self.position = self.synced = cursor.position
        self.clean = cursor.clean
        self.replay_until = cursor.written_max
        self._lost = cursor.lost
        self._replayed: dict[tuple[tuple[str, ...], str], int] = {}
        self._status = status or WorkerStatus()
        self.names_records = False
        self.passed_over = {one.position: one for one in options.passed_over}
        self.passed_over_changed = False
        self.blocked = 0
        self.syncer: BackgroundSync[LogPosition] | None = None
        self.on_blocked: Callable[[Write, OSError], None] = lambda _write, _error: None
        files.make_dir(STAGING_NAME, FOLDER_MODE, dir_fd=stored_dir)
        self._own_staging = self._staging = files.open_dir(STAGING_NAME, dir_fd=stored_dir)
        self._aside = ASIDE_NAMES[assists]
        # What is synced: the base's file system, or that of `jobs` once it is seen to have one of its own.
        self._ground = self._base
        self._device = 0
        if assists:
            self.replay_until = 0
        for left in files.list_dir(self._staging):
            if left == self._aside or not assists:
                files.unlink(left, dir_fd=self._staging)

    # --- projecting --------------------------------------------------------------------------------

    def plan_replay(self, entries: Iterable[Entry]) -> None:
        """Look ahead at what may have been written before a crash, so that no older version comes back."""
        last = 0
        for entry in entries:
            if entry.header.position > self.replay_until:
                break
            last = entry.header.position + entry.header.count - 1
            for write in self._writes([entry], entry.header.position + entry.header.count - 1):
                if write.replaces:
                    self._replayed[write.folders, write.name] = write.position
        if self._lost:
            self.replay_until = last

    def apply(self, entries: list[Entry], helper: ParallelWriter | None = None) -> None:
        """Write what the entries hold, with a helper if there is one.

        Raises:
            OSError: the file system refuses, as when it is full; the same entries can be applied again.
            TreeUnsyncedError: they can't.
            IndexUnusableError: the index is damaged.
        """
        if not entries:
            return
        until = self._reader.behind(entries[-1])
        self._settle(wait=until.position > self.synced + tree_cursor.UNSYNCED_RECORDS_MAX)
        if self.clean or self._lost or until.position > self.synced + tree_cursor.UNSYNCED_RECORDS_MAX:
            self.sync(clean=False)
        writes = self._writes(entries, until.position)
        if helper is None or entries[0].header.position <= self.replay_until:
            self._write_all(writes)
        else:
            self._write_divided(writes, helper, slice_of(entries, until, self.position))
        self.position = until.position
        if until.position >= self.replay_until:
            self._replayed.clear()
        self._sync_beside()

    def write_part(self, piece: Slice) -> int:
        """Write the helper's part of a slice; returns how many files could not be had."""
        entries = list(self._reader.entries(piece.place, piece.until))
        self.position, self.blocked = piece.position, 0
        self._write_all(divided(self._writes(entries, piece.until.position))[1])
        return self.blocked

    def _write_divided(self, writes: list[Write], helper: ParallelWriter, piece: Slice) -> None:
        ours, theirs = divided(writes)
        asked = bool(theirs) and helper.ask(piece)
        try:
            self._write_all(ours)
        finally:
            # Whatever became of ours: nothing is written by two at a time.
            done = asked and helper.finish()
        if theirs and not done:
            self._write_all(theirs)

    def _write_all(self, writes: list[Write]) -> None:
        if not writes:
            return
        self._let_go_if_moved(TOP, self._base)
        top = self._folder(TOP)  # without it there is no tree: nothing is passed over for that
        for job in {write.folders[:2] for write in writes}:
            self._let_go_if_moved(job, top)
        for write in self._folded(writes):
            self._status.at(write.position)
            if self.names_records:
                self._status.describe(write.kind, write.path)
            try:
                self._write(write)
            except OSError as error:
                if error.errno not in _BLOCKED:
                    raise
                self.blocked += 1
                self.on_blocked(write, error)
            if self.passed_over and write.replaces:
                self._drop_older(write)
        self._status.at(0)

    def _drop_older(self, write: Write) -> None:
        """A record that was passed over is not missed any more: a later value of its file is there."""
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
            TreeUnsyncedError: what was written behind the cursor is to be written again, by another process.
        """
        self._settle(wait=True)
        if self._lost and self.position < self.replay_until:
            return  # a cursor would say that nothing far behind it was written
        if self.position == self.synced and clean == self.clean and not self._lost:
            return
        if self.position != self.synced:
            self.sync_files()
        self._save_cursor(self.position, clean=clean)

    def sync_files(self) -> None:
        """Sync all that was written; the cursor stays.

        Raises:
            TreeUnsyncedError: what was written may not be on disk.
        """
        self._sync_ground(self._ground)

    def _sync_ground(self, ground: int) -> None:
        try:
            self._files.sync_all(ground)
        except OSError as error:
            raise _unsynced(error) from error

    def _sync_beside(self) -> None:
        """Begin to sync what was written while the next files are made, if there is enough of it."""
        syncer = self.syncer
        if syncer is None or syncer.busy or self._lost:
            return
        if self.position - self.synced >= tree_cursor.UNSYNCED_RECORDS_MAX // 2:
            syncer.start(self._ground, LogPosition(self.position, 0, 0))

    def _settle(self, *, wait: bool) -> None:
        """Move the cursor behind a sync that has ended."""
        if self.syncer is None or not self.syncer.busy:
            return
        try:
            done = self.syncer.finished(wait=wait)
        except OSError as error:
            raise _unsynced(error) from error
        if done is not None:
            self._save_cursor(done[0].position, clean=False)

    def _save_cursor(self, position: int, *, clean: bool) -> None:
        save_cursor(self._files, self._stored, self._store, Cursor(position, clean))
        self.synced, self.clean, self._lost = position, clean, False

    def close(self) -> None:
        """Close the folders; nothing is being synced."""
        if self.syncer is not None:
            self.syncer.stop()
        while self._folders:
            self._files.close(self._folders.popitem()[1])
        self._files.close(self._own_staging)
        if self._ground != self._base:
            self._files.close(self._ground)

    def _writes(self, entries: list[Entry], last: int) -> list[Write]:
        first = entries[0].header.position
        twins = dict(
            self._index.execute(
                "SELECT position, n FROM twin WHERE position BETWEEN ? AND ?", (first, last)
            ).fetchall()
        )
        writes = []
        for entry in entries:
            position = entry.header.position
            for place in record.record_places(entry.data, entry.header):
                payload = entry.data[place.start : place.start + place.length]
                n = twins.get(position, 1)
                is_wanted = n and position > self.position and place.kind != Kind.GAP
                if is_wanted and position not in self.passed_over:
                    self._status.at(position)
                    if self.names_records:
                        self._status.describe(kind_name(place.kind))
                    writes.append(self._as_write(position, place.kind, payload, n))
                position += 1
        self._status.at(0)
        return writes

    def retry_blocked(self, position: int, mark: LogPosition) -> None:
        """Write a record that was passed over, unless a later one has taken its place.

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
        """Whether no later record has the same file, as the index knows it."""
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

    def _as_write(self, position: int, kind: int, payload: memoryview, n: int) -> Write:
        value = values.decode(kind, payload)
        if isinstance(value, values.Event):
            name = event_name(value.timestamp, value.stepNumber, value.type, n)
            return Write(
                position, ("jobs", value.jobId, "runs", value.runId), name, payload.tobytes, replaces=False
            )
        if isinstance(value, values.Checkpoint):
            folders = ("jobs", value.jobId, "checkpoints")
            return Write(position, folders, f"{value.id}.json", payload.tobytes, replaces=True)
        if isinstance(value, values.Job):
            return Write(
                position,
                ("jobs", value.id),
                "job.json",
                lambda: jsontext.indent(payload.tobytes()),
                replaces=True,
            )
        job, run = value.jobId, value.runId
        return Write(
            position,
            ("jobs", job, "runs", run),
            SETTING_NAME,
            lambda: self._setting(job, run),
            replaces=True,
        )

    def _setting(self, job: str, run: str) -> bytes:
        """The setting as the index has it: as of this record, or newer."""
        row = self._index.execute(
            "SELECT segment, offset, length, crc, updated_at, rewritten, position FROM setting"
            " JOIN run ON run.id = setting.run WHERE run.job = ? AND run.name = ?",
            (job, run),
        ).fetchone()
        if row is None:
            raise IndexUnusableError("the index lacks a setting that it has taken up")
        *where, updated_at, rewritten, position = row
        try:
            payload = read_value(self._reader, ValueAddress(*where), lambda: read_cursor(self._index))
        except Refusal as refusal:
            raise DamageError(
                segment_name(where[0]), where[1], position, "its checksum does not match"
            ) from refusal
        return setting_text(payload, updated_at, rewritten=bool(rewritten))

    def _folded(self, writes: list[Write]) -> list[Write]:
        """The writes without those that a later one replaces; but a file's first version has its place."""
        replacing = [write for write in writes if write.replaces]
        newest = {(write.folders, write.name): write.position for write in replacing}
        if len(newest) == len(replacing) and not self._replayed:
            return writes
        newest |= {key: self._replayed[key] for key in newest if self._replayed.get(key, 0) > newest[key]}
        kept = []
        seen: set[tuple[tuple[str, ...], str]] = set()
        for write in writes:
            key = (write.folders, write.name)
            if write.replaces and newest[key] != write.position:
                if key in seen or self._exists(write):
                    continue
                seen.add(key)
            kept.append(write)
        return kept

    def _exists(self, write: Write) -> bool:
        try:
            self._files.stat(write.name, dir_fd=self._folder(write.folders))
        except OSError as error:
            if error.errno in {*_FOLDER_GONE, *_BLOCKED}:
                return False
            raise  # it may be there, and newer
        return True

    # --- files -------------------------------------------------------------------------------------

    def _write(self, write: Write) -> None:
        try:
            self._put(write)
        except OSError as error:
            if error.errno not in _FOLDER_GONE:
                raise
            # Somebody removed the folder while we held it open: made again, or the error is another one.
            self._forget(write.folders)
            self._put(write)

    def _put(self, write: Write) -> None:
        folder = self._folder(write.folders)
        content = write.content()
        is_replayed = write.position <= self.replay_until
        if (is_replayed or not self._ways.unnamed) and self._is_there(folder, write.name, content):
            return
        if not self._ways.unnamed:
            self._put_by_rename(folder, write.name, content)
            return
        fd = self._files.create_unnamed(self._modes.file, dir_fd=folder)
        try:
            self._files.write(fd, [content], 0)
            try:
                self._files.give_name(fd, write.name, dir_fd=folder)
            except FileExistsError:
                if not self._holds(folder, write.name, content):
                    self._replace(fd, folder, write.name)
        finally:
            self._files.close(fd)

    def _put_by_rename(self, folder: int, name: str, content: bytes) -> None:
        """Write a file under a name in staging, then let it take its place, or that of the old one."""
        try:
            fd = self._files.create(self._aside, self._modes.file, dir_fd=self._staging)
        except FileExistsError:  # it could not be removed the last time
            self._files.unlink(self._aside, dir_fd=self._staging)
            fd = self._files.create(self._aside, self._modes.file, dir_fd=self._staging)
        try:
            try:
                self._files.write(fd, [content], 0)
            finally:
                self._files.close(fd)
            self._rename_aside(folder, name)
        except OSError:
            self._files.unlink(self._aside, dir_fd=self._staging)  # it may be what fills the disk
            raise

    def _rename_aside(self, folder: int, name: str) -> None:
        self._files.rename(self._aside, name, source_dir=self._staging, target_dir=folder)

    def _is_there(self, folder: int, name: str, content: bytes) -> bool:
        # Looked at before a file is made: after a crash most are there, and ext4 may take long to make one.
        try:
            return self._holds(folder, name, content)
        except FileNotFoundError:
            return False

    def _holds(self, folder: int, name: str, content: bytes) -> bool:
        """Whether a file is there as it should be, as after a replay."""
        if stat.S_ISDIR(self._files.stat(name, dir_fd=folder).st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
        fd = self._files.open(name, dir_fd=folder)
        try:
            if self._files.size(fd) != len(content):
                return False
            # After a write-back that failed, the page cache has what the disk has not.
            self._files.forget_cached(fd)
            return self._files.read(fd, len(content), 0) == content
        finally:
            self._files.close(fd)

    def _replace(self, fd: int, folder: int, name: str) -> None:
        # Not rename over the old file: ext4 flushes then (3,000 to 8,000/s against 10,000 to 35,000/s).
        try:
            self._files.give_name(fd, self._aside, dir_fd=self._staging)
        except FileExistsError:  # it could not be removed the last time
            self._files.unlink(self._aside, dir_fd=self._staging)
            self._files.give_name(fd, self._aside, dir_fd=self._staging)
        if not self._ways.exchange:
            try:
                self._rename_aside(folder, name)
            except OSError:
                self._files.unlink(self._aside, dir_fd=self._staging)
                raise
            return
        try:
            self._files.exchange(self._aside, name, source_dir=self._staging, target_dir=folder)
        finally:
            self._files.unlink(self._aside, dir_fd=self._staging)

    def _folder(self, folders: tuple[str, ...]) -> int:
        fd = self._folders.get(folders)
        if fd is not None:
            self._folders.move_to_end(folders)
            return fd
        # Step by step from the base, so that no link on the way can lead out of it.
        parent = self._folder(folders[:-1]) if len(folders) > 1 else self._base
        is_new = self._files.make_dir(folders[-1], self._modes.folder, dir_fd=parent)
        fd = self._files.open_dir(folders[-1], dir_fd=parent)
        try:
            if folders == TOP:
                self._stand_on(fd)
            else:
                self._refuse_foreign(fd, folders[-1], is_new=is_new)
        except OSError:
            self._files.close(fd)
            raise
        self._folders[folders] = fd
        if len(self._folders) > _FOLDERS_OPEN_MAX:
            self._files.close(self._folders.popitem(last=False)[1])
        return fd

    def _stand_on(self, top: int) -> None:
        """Write aside and sync where `jobs` is: it may be a file system or a mount of its own."""
        files = self._files
        is_apart = files.are_apart(self._own_staging, top)
        device, before = files.device(top), self._ground
        if not is_apart and before == self._base:
            self._device = device
            return
        ground = files.open_dir(".", dir_fd=top) if is_apart else self._base
        self._settle(wait=True)
        if self._device not in {0, device}:
            # It was mounted since: what was written to either is on disk before the cursor can say so.
            self._sync_ground(before)
            self._sync_ground(ground)
        if before != self._base:
            files.close(before)
        self._ground, self._device = ground, device
        self._staging = ground if is_apart else self._own_staging
        self._aside = (ASIDE_PREFIX if is_apart else "") + self._aside.removeprefix(ASIDE_PREFIX)

    def _refuse_foreign(self, fd: int, name: str, *, is_new: bool) -> None:
        """Refuse a folder whose files could not be synced, replaced or told apart."""
        if self._files.device(fd) != self._device:
            raise OSError(errno.EXDEV, "the folder is on another file system than jobs/", name)
        if not is_new and self._files.folds_case(fd):  # a new one is as the one that it is in
            raise OSError(errno.ENOTDIR, "the folder takes names that differ by case only for one", name)

    def _let_go_if_moved(self, folders: tuple[str, ...], parent: int) -> None:
        """Close a folder that somebody has moved away, and all below: nobody would look there for files."""
        fd = self._folders.get(folders)
        if fd is None or self._files.is_at(fd, folders[-1], dir_fd=parent):
            return
        for held in [held for held in self._folders if held[: len(folders)] == folders]:
            self._files.close(self._folders.pop(held))

    def _forget(self, folders: tuple[str, ...]) -> None:
        for i in range(1, len(folders) + 1):
            fd = self._folders.pop(folders[:i], None)
            if fd is not None:
                self._files.close(fd)


def umask_for(modes: TreeModes) -> None:
    """Let the modes be exactly what was asked for."""
    os.umask(0o777 & ~(modes.file | modes.folder | FOLDER_MODE))  # our own files take what the owner may
