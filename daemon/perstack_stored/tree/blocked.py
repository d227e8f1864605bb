"""Records that the tree passes over, because its process died twice while it was at one of them.

`{base}/.stored/tree.blocked` keeps them over a restart: the next process must not die by them again. They are
taken up again by a newer version of the program, by `rebuild --retry-blocked`, and where a later value has
taken the place of theirs there is nothing left to do.
"""

from collections import Counter
from typing import NamedTuple

import msgspec
import structlog

from perstack_stored import __version__
from perstack_stored.datadir.filesystem import FileSystem, atomic_replace, read_whole
from perstack_stored.process.worker_status import WorkerStatus

FILE_NAME = "tree.blocked"
DEATHS_MAX = 2
_CAREFUL_RECORDS = 4096
_RECORDS_MAX = 1000

_log = structlog.get_logger()


class BlockedRecord(msgspec.Struct, frozen=True):
    """One record. `kind` and `file` are "" where the process died before it knew them."""

    position: int
    kind: str = ""
    file: str = ""


class _File(msgspec.Struct):
    store: str
    version: str
    records: list[BlockedRecord]


class BlockedList(NamedTuple):
    """What the file says. `is_current`: this version of the program has tried the records itself."""

    records: tuple[BlockedRecord, ...] = ()
    is_current: bool = True


def load(files: FileSystem, stored_dir: int, store: bytes) -> BlockedList:
    """The records of this journal that are passed over; none where the file can't be used."""
    data = read_whole(files, FILE_NAME, dir_fd=stored_dir)
    if data is None:
        return BlockedList()
    try:
        found = msgspec.json.decode(data, type=_File)
    except (msgspec.DecodeError, ValueError):
        _log.error("blocked_list_unusable", file=FILE_NAME)
        return BlockedList()
    if found.store != store.hex():
        return BlockedList()
    return BlockedList(tuple(found.records), found.version == __version__)


def save(files: FileSystem, stored_dir: int, store: bytes, records: tuple[BlockedRecord, ...]) -> None:
    """Write the list down, as tried by this version."""
    data = msgspec.json.encode(_File(store.hex(), __version__, sorted(records, key=lambda r: r.position)))
    atomic_replace(files, FILE_NAME, data, 0o600, dir_fd=stored_dir)


class Deaths:
    """At which records a worker died, and how often.

    Attributes:
        careful_until: up to this position the next worker goes in small steps and names each record.
    """

    def __init__(self) -> None:
        self._times: Counter[int] = Counter()
        self.careful_until = 0

    def note(self, status: WorkerStatus) -> BlockedRecord | None:
        """Take in a death; returns the record that the worker died at too often."""
        position = status.position
        if not position:
            return None
        if status.is_reading:
            self.careful_until = position + _CAREFUL_RECORDS
            return None
        self.careful_until = max(self.careful_until, position)
        if len(self._times) >= _RECORDS_MAX:
            self._times.clear()
        self._times[position] += 1
        if self._times[position] < DEATHS_MAX:
            return None
        return BlockedRecord(position, *status.described)
