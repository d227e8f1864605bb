"""Evidence: what the index knows of lost records, and bytes that it vouches for by checksum. Reads only."""

import os
import sqlite3
import stat
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from perstack_stored.datadir.filesystem import read_whole
from perstack_stored.datadir.layout import DataDir
from perstack_stored.errors import IndexUnusableError
from perstack_stored.index.connection import connect, read_cursor
from perstack_stored.index.event_reader import decode_block
from perstack_stored.index.schema import SCHEMA_VERSION, VOUCHING_VERSIONS
from perstack_stored.model import json_text
from perstack_stored.model.checksum import crc32c
from perstack_stored.model.gaps import Gap
from perstack_stored.model.kinds import Kind
from perstack_stored.model.run_settings import setting_as_sent
from perstack_stored.offline.check.index import copy_index
from perstack_stored.tree.expected_files import JOB_NAME, SETTING_NAME
from perstack_stored.tree.write import event_name

from .pieces import Hole

_EVENTS = """
SELECT position, segment, offset, length, crc, run.job, run.name, timestamp, step, type, n, at
FROM event JOIN run ON run.id = event.run WHERE position BETWEEN ? AND ? AND segment > 0
"""
_BLOCKS = """
SELECT run.job, run.name, data FROM event_block JOIN run ON run.id = event_block.run WHERE last_position >= ?
"""
_BLOCKS_SINCE = 4  # version of the index
_CHECKPOINTS = """
SELECT position, segment, offset, length, crc, job, id FROM checkpoint WHERE position BETWEEN ? AND ?
"""
_JOBS = "SELECT position, segment, offset, length, crc, id FROM job WHERE position BETWEEN ? AND ?"
_SETTINGS = """
SELECT position, segment, offset, length, crc, run.job, run.name, rewritten, sent_at
FROM setting JOIN run ON run.id = setting.run WHERE position BETWEEN ? AND ?
"""
_REPEATS = "SELECT position, 0, 0, 0, 0 FROM twin WHERE n = 0 AND position BETWEEN ? AND ?"
_DELETIONS = "SELECT position, 0, 0, length(value), crc, value FROM deletion WHERE position BETWEEN ? AND ?"
_DELETIONS_SINCE = 6  # version of the index
_TOUCHED = """
SELECT run.job, run.name, updated_at FROM setting JOIN run ON run.id = setting.run
WHERE rewritten AND updated_at BETWEEN ? AND ?
"""

Place = tuple[int, int, int, int]  # segment, offset, length, crc32c
Row = Sequence[Any]


class Known(NamedTuple):
    """Facts of a lost record, and where its bytes may be, if the index has their checksum."""

    gap: Gap
    kind: int = 0
    place: Place = (0, 0, 0, 0)
    path: tuple[str, ...] = ()
    layouts: Callable[[bytes], Iterator[bytes]] = lambda text: iter((text,))
    content: bytes | None = None  # the record itself, where the index has it

    def is_vouched(self, payload: bytes | memoryview) -> bool:
        """Whether these are the record's bytes, by the index's checksum."""
        _, _, length, crc = self.place
        return bool(self.kind) and len(payload) == length and crc32c(payload) == crc


NOTHING_KNOWN = Known(Gap())


class IndexEvidence:
    """Evidence from the index of a base, if it is usable, and from its tree."""

    def __init__(self, base: DataDir, store: bytes | None, scratch: str) -> None:
        self._base = base
        self._known: dict[int, Known] = {}
        self._database: sqlite3.Connection | None = None
        self._has_blocks = self._has_deletions = False
        self.position = 0
        self.reason = ""
        try:
            self._open(store, scratch)
        except (sqlite3.Error, OSError, IndexUnusableError) as error:
            self.reason = str(error)

    def _open(self, store: bytes | None, scratch: str) -> None:
        path = copy_index(self._base, scratch)
        if not os.path.exists(path):
            raise IndexUnusableError("there is no index")
        database = connect(path, read_only=False)
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version not in VOUCHING_VERSIONS:
            raise IndexUnusableError(f"the index has version {version}, not {SCHEMA_VERSION}")
        if store is None:
            raise IndexUnusableError("the journal has no header that identifies the index")
        self.position = read_cursor(database, store).position
        self._database = database
        self._has_blocks = version >= _BLOCKS_SINCE
        self._has_deletions = version >= _DELETIONS_SINCE

    def close(self) -> None:
        """Close the copy of the index."""
        if self._database is not None:
            self._database.close()

    def look_up(self, holes: Sequence[Hole]) -> None:
        """Look up what is known of the positions of holes, which are in order.

        Wrong rows of a damaged index do no harm: bytes count only by their checksum, and a gap only informs.
        """
        holes = [hole for hole in holes if hole.first <= hole.last]
        if self._database is None or not holes:
            return
        self._holes = holes
        self._firsts = [hole.first for hole in holes]
        first, last = holes[0].first, holes[-1].last
        for select, read in _READERS:
            self._note(self._database.execute(select, (first, last)), read)
        if self._has_blocks:
            self._note(self._rows_of_blocks(self._database, first, last), _event)
        if self._has_deletions:
            self._note(self._database.execute(_DELETIONS, (first, last)), _deletion)

    def _note(self, rows: Iterator[Row], read: Callable[[Place, Row], Known]) -> None:
        try:
            for position, *row in rows:
                if self._is_in_hole(position):
                    segment, offset, length, crc, *facts = row
                    self._known[position] = read((segment, offset, length, crc), facts)
        except (sqlite3.Error, TypeError, ValueError) as error:
            self._note_reason(error)

    def _note_reason(self, error: Exception) -> None:
        self.reason = f"not all of the index can be read: {error}"

    def _rows_of_blocks(self, database: sqlite3.Connection, first: int, last: int) -> Iterator[Row]:
        for job, run, data in database.execute(_BLOCKS, (first,)):
            try:
                block = decode_block(data)
            except IndexUnusableError as error:
                self._note_reason(error)
                continue
            if block.position > last:
                continue
            for position, timestamp, step, offset, length, crc, type, n in block.rows():
                address = position, block.segment, offset, length, crc
                yield (*address, job, run, timestamp, step, type, n, None)

    def _is_in_hole(self, position: int) -> bool:
        i = bisect_right(self._firsts, position) - 1
        return i >= 0 and position <= self._holes[i].last

    def known(self, position: int) -> Known:
        """Facts of a lost record."""
        found = self._known.get(position)
        if found is not None:
            return found
        # The index has no row for a value replaced later, but it has passed the position.
        return Known(Gap(isOlder=True)) if position <= self.position and not self.reason else NOTHING_KNOWN

    def touched(self, from_ms: int, to_ms: int) -> list[tuple[str, str, float]]:
        """Settings that were stored again in a span of time."""
        if self._database is None:
            return []
        try:
            return list(self._database.execute(_TOUCHED, (from_ms, to_ms)))
        except sqlite3.Error:
            return []

    def in_tree(self, known: Known) -> bytes | None:
        """The bytes of a record from its file in the tree, or of a deletion from the index itself."""
        if known.content is not None:
            return known.content if known.is_vouched(known.content) else None
        text = self._tree_file(known.path) if known.path else None
        if text is None:
            return None
        return next(filter(known.is_vouched, known.layouts(text)), None)

    def _tree_file(self, path: tuple[str, ...]) -> bytes | None:
        if any(name in {"", ".", ".."} or "/" in name for name in path):
            return None  # a row of a damaged index: nothing outside of the tree may be read
        files = self._base.files
        folder = os.dup(self._base.folders.base)
        try:
            for name in path[:-1]:
                inner = files.open_dir(name, dir_fd=folder)
                files.close(folder)
                folder = inner
            if not stat.S_ISREG(files.stat(path[-1], dir_fd=folder).st_mode):
                return None
            return read_whole(files, path[-1], dir_fd=folder)
        except (OSError, ValueError):
            return None
        finally:
            files.close(folder)


# --- rows of the index -----------------------------------------------------------------------------


def _event(place: Place, row: Row) -> Known:
    job, run, timestamp, step, type, n, at = row
    gap = Gap(
        op="storeEvent",
        jobId=job,
        runId=run,
        timestamp=timestamp if at is None else float(at),
        stepNumber=step,
        type=type,
        n=n,
        length=place[2],
        crc=place[3],
    )
    return Known(gap, Kind.EVENT, place, ("jobs", job, "runs", run, event_name(timestamp, step, type, n)))


def _checkpoint(place: Place, row: Row) -> Known:
    job, id = row
    gap = Gap(op="storeCheckpoint", jobId=job, id=id)
    return Known(gap, Kind.CHECKPOINT, place, ("jobs", job, "checkpoints", f"{id}.json"))


def _job(place: Place, row: Row) -> Known:
    (id,) = row
    return Known(Gap(op="storeJob", id=id), Kind.JOB, place, ("jobs", id, JOB_NAME), json_text.layouts)


def _setting(place: Place, row: Row) -> Known:
    job, run, rewritten, sent_at = row

    def layouts(text: bytes) -> Iterator[bytes]:
        try:
            yield setting_as_sent(text, sent_at) if rewritten else text
        except (ValueError, AssertionError):
            return  # the file holds another value

    gap = Gap(op="storeRunSetting", jobId=job, runId=run)
    return Known(gap, Kind.RUN_SETTING, place, ("jobs", job, "runs", run, SETTING_NAME), layouts)


def _deletion(place: Place, row: Row) -> Known:
    (value,) = row
    return Known(Gap(op="delete"), Kind.DELETION, place, content=bytes(value))


def _repeat(_place: Place, _row: Row) -> Known:
    return Known(Gap(op="storeEvent", isRepeat=True))


_READERS = (
    (_EVENTS, _event),
    (_CHECKPOINTS, _checkpoint),
    (_JOBS, _job),
    (_SETTINGS, _setting),
    (_REPEATS, _repeat),
)
