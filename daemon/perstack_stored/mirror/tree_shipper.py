"""Ships the files of the tree as objects under the keys of Perstack's own S3 storage, which reads them.

It follows the index, as the tree does. Objects are replaced; how far it is stands in a file of the base. If
that is lost, all is shipped again, to the same keys. A fence says whose tree it is: the objects of two bases
under one prefix would overwrite and remove each other.
"""

import contextlib
import sqlite3
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec
import structlog

from perstack_stored.datadir.filesystem import FILE_MODE, atomic_replace, read_whole
from perstack_stored.datadir.layout import DataDir
from perstack_stored.errors import IndexUnusableError, Refusal, StoredError
from perstack_stored.index.connection import connect, read_cursor
from perstack_stored.index.deletions import Removals
from perstack_stored.index.value_lookup import ValueAddress, read_value
from perstack_stored.journal import entry_format
from perstack_stored.journal.reader import JournalReader, LogPosition
from perstack_stored.journal.segment_walk import Entry
from perstack_stored.model import deletions, json_text, values
from perstack_stored.model.kinds import Kind
from perstack_stored.model.run_settings import setting_text

from .shipper import Shipped
from .tree_fence import TaggedObjects, TreeFence

CURSOR_NAME = "mirror-tree.json"
KEY_BYTES_MAX = 1024
"""S3 takes no longer key: such a value is passed over."""
_NOT_IN_XML = frozenset("\ufffe\uffff")
"""Characters that ids may have, but no XML, as which S3 takes the keys of objects to be removed."""
_FRACTION_DIGITS = 24  # a hundred million events share a time: less than 2**-53 of the smallest
_SLICE_RECORDS = 1024
_SLICE_BYTES = 8 << 20

_log = structlog.get_logger()


class ObjectStore(TaggedObjects, Protocol):
    """Objects that are replaced and removed: `bucket.Bucket`. Errors are its own."""

    def put_all(self, objects: dict[str, bytes]) -> None:
        """Put objects by key, in any order."""

    def remove_below(self, folder: str) -> None:
        """Remove all objects below a folder."""

    def remove(self, keys: Sequence[str]) -> None:
        """Remove objects, as far as they are there."""


class IndexBehindError(StoredError):
    """The index does not reach as far as it said: it is built again."""


class _Cursor(msgspec.Struct):
    history: str
    url: str
    position: int


class _Row(NamedTuple):
    position: int
    kind: int
    payload: memoryview
    n: int


def event_key(timestamp: float, step: float, type: str, n: int) -> str:
    """The name of an event's object. Of those that would share it, all but the first get a fraction.

    Perstack's storage reads the time as a number, and the type as what follows the step. The fraction is too
    small for its numbers: they round to the time itself. The names sort as the events were stored.
    """
    exact = str(timestamp)
    time = exact if exact.replace(".", "").isdigit() and timestamp % 1 else str(int(timestamp))
    if n > 1:
        time += f"{'' if '.' in time else '.'}{n:0{_FRACTION_DIGITS}d}"
    return f"event-{time}-{int(step)}-{type}.json"


def is_key(key: str) -> bool:
    """Whether an object can have a key, and can be removed by it."""
    return len(key.encode()) <= KEY_BYTES_MAX and not _NOT_IN_XML & set(key)


class TreeShipper:
    """Ships a tree, slice by slice: events first, then checkpoints and settings, then jobs.

    So a reader that sees a job or checkpoint finds the events that it tells of.
    """

    def __init__(
        self, bucket: ObjectStore, datadir: DataDir, reader: JournalReader, url: str, prefix: str
    ) -> None:
        """Prepare it.

        Args:
            bucket: where the objects go.
            datadir: the base.
            reader: reads its journal.
            url: of the mirror; another one begins from the start.
            prefix: of all keys.
        """
        self._bucket = bucket
        self._datadir = datadir
        self._reader = reader
        self._url = url
        self._prefix = prefix
        self._store = reader.chain.headers[1].store
        self._fence = TreeFence(bucket, reader.chain, prefix, url)
        self._place = reader.start()

    @property
    def place(self) -> LogPosition:
        """Log position up to which the bucket holds the tree."""
        return self._place

    def find(self, mark: LogPosition) -> LogPosition:
        """Find how far the tree was shipped. To be called once, before `ship`.

        Raises:
            MirrorConflictError: the prefix holds the tree of another history or continuation.
            StoredError: the bucket does not answer.
        """
        self._fence.look(mark)
        position = min(self._load(), mark.position)
        self._place = self._reader.seek(position, mark)
        return self._place

    def ship(self, mark: LogPosition) -> Shipped | None:
        """Ship the next slice of what is indexed; None if there is nothing to ship.

        Raises:
            MirrorConflictError: another mirror writes there.
            StoredError: the bucket does not answer, or the index is being built.
            sqlite3.Error, OSError: the index or the journal can't be read.
        """
        entries: list[Entry] = []
        records = size = 0
        for entry in self._reader.entries(self._place, mark):
            entries.append(entry)
            records, size = records + entry.header.count, size + len(entry.data)
            if records >= _SLICE_RECORDS or size >= _SLICE_BYTES:
                break
        if not entries:
            return None
        until = self._reader.place_after(entries[-1])
        with contextlib.closing(connect(self._datadir.index_path, read_only=True)) as index:
            if read_cursor(index, self._store).position < until.position:
                raise IndexBehindError("the index is being built")
            self._fence.pass_(until.position, mark)
            self._remove_deleted(index, entries)
            stages = self._objects(index, entries)
        for objects in stages:
            self._bucket.put_all(objects)
        self._place = until
        self._save(until.position)
        count = sum(map(len, stages))
        return Shipped(until, size, sum(len(data) for stage in stages for data in stage.values()), count)

    # --- objects -----------------------------------------------------------------------------------

    def _objects(self, index: sqlite3.Connection, entries: list[Entry]) -> list[dict[str, bytes]]:
        """The objects of a slice: events; checkpoints and settings; jobs. Of each key the newest counts."""
        first = entries[0].header.position
        removals = Removals(index, first)
        stages: list[dict[str, bytes]] = [{}, {}, {}]
        for row in self._rows(index, entries):
            found = self._object(index, row, removals)
            if found is None:
                continue
            stage, name, content = found
            key = self._prefix + name
            if not is_key(key):
                _log.error("object_passed_over", position=row.position, reason="S3 takes no such key")
                continue
            stages[stage][key] = content
        return stages

    @staticmethod
    def _rows(index: sqlite3.Connection, entries: list[Entry]) -> list[_Row]:
        """The records of a slice that have an object."""
        first, last = entries[0].header.position, entries[-1].header
        select = "SELECT position, n FROM twin WHERE position BETWEEN ? AND ?"
        numbers = dict(index.execute(select, (first, last.position + last.count)).fetchall())
        rows = []
        for entry in entries:
            places = entry_format.record_places(entry.data, entry.header)
            for position, place in enumerate(places, entry.header.position):
                payload = entry.data[place.start : place.start + place.length]
                kind, n = place.kind, numbers.get(position, 1)
                if kind == Kind.DELETION:
                    deletion = deletions.decode(payload)
                    if not deletion.is_redaction:
                        continue
                    kind, payload = Kind.RUN_SETTING, memoryview(deletion.value)
                if n and kind != Kind.GAP:
                    rows.append(_Row(position, kind, payload, n))
        return rows

    def _object(
        self, index: sqlite3.Connection, row: _Row, removals: Removals
    ) -> tuple[int, str, bytes] | None:
        """Stage, name and content of a record's object; None if a later deletion has removed it."""
        value = values.decode(row.kind, row.payload)
        if isinstance(value, values.Job):
            if removals and removals.has(row.position, value.id, ""):
                return None
            return 2, f"jobs/{value.id}/job.json", json_text.indent(row.payload.tobytes())
        job, run = value.jobId, value.runId
        is_setting = row.kind == Kind.RUN_SETTING
        if removals and removals.has(row.position, job, run, is_setting=is_setting):
            return None
        if isinstance(value, values.Event):
            name = event_key(value.timestamp, value.stepNumber, value.type, row.n)
            return 0, f"jobs/{job}/runs/{run}/{name}", row.payload.tobytes()
        if isinstance(value, values.Checkpoint):
            if removals and removals.has_checkpoint(row.position, job, value.id):
                return None
            return 1, f"jobs/{job}/checkpoints/{value.id}.json", row.payload.tobytes()
        content = self._setting(index, job, run)
        return None if content is None else (1, f"jobs/{job}/runs/{run}/run-setting.json", content)

    def _setting(self, index: sqlite3.Connection, job: str, run: str) -> bytes | None:
        """The setting as it is now; None if it is deleted."""
        row = index.execute(
            "SELECT segment, offset, length, crc, updated_at, rewritten FROM setting"
            " JOIN run ON run.id = setting.run WHERE run.job = ? AND run.name = ?",
            (job, run),
        ).fetchone()
        if row is None:
            return None
        *where, updated_at, rewritten = row
        try:
            payload = read_value(self._reader, ValueAddress(*where), lambda: read_cursor(index))
        except Refusal as refusal:
            raise IndexUnusableError(f"a setting can't be read: {refusal.message}") from None
        return setting_text(payload, updated_at, rewritten=bool(rewritten))

    def _remove_deleted(self, index: sqlite3.Connection, entries: list[Entry]) -> None:
        """Remove the objects of jobs and runs that some entries delete; what came later is put again."""
        for entry in entries:
            places = entry_format.record_places(entry.data, entry.header)
            for position, place in enumerate(places, entry.header.position):
                if place.kind != Kind.DELETION:
                    continue
                deletion = deletions.decode(entry.data[place.start : place.start + place.length])
                if deletion.is_redaction:
                    continue
                folder = f"{self._prefix}jobs/{deletion.jobId}/"
                if deletion.runId is None:
                    self._bucket.remove_below(folder)
                    continue
                self._bucket.remove_below(f"{folder}runs/{deletion.runId}/")
                select = "SELECT id FROM deleted_checkpoint WHERE deletion = ?"
                ids = [id for (id,) in index.execute(select, (position,))]
                self._bucket.remove([key for id in ids if is_key(key := f"{folder}checkpoints/{id}.json")])

    # --- cursor ------------------------------------------------------------------------------------

    def _load(self) -> int:
        """The position in the file; 0 if it is of another mirror or history, or lost."""
        files, stored = self._datadir.files, self._datadir.folders.stored
        data = read_whole(files, CURSOR_NAME, dir_fd=stored)
        if data is None:
            return 0
        try:
            cursor = msgspec.json.decode(data, type=_Cursor)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return 0
        is_ours = (cursor.history, cursor.url) == (self._store.hex(), self._url)
        return max(0, cursor.position) if is_ours else 0

    def _save(self, position: int) -> None:
        data = msgspec.json.encode(_Cursor(self._store.hex(), self._url, position))
        files, stored = self._datadir.files, self._datadir.folders.stored
        atomic_replace(files, CURSOR_NAME, data, FILE_MODE, dir_fd=stored)
