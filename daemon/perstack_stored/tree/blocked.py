"""Records that the tree passes over, because a worker died twice while it wrote one of them.

`{base}/.stored/tree.blocked` keeps them over a restart: the next worker must not die from them. They are
tried again by a newer version of the program and by `rebuild --retry-blocked`. A record whose value a later
one has replaced needs no retry.
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
    """One record. `kind` and `file` are "" if the worker died before it knew them."""

    position: int
    kind: str = ""
    file: str = ""


class _File(msgspec.Struct):
    store: str
    version: str
    records: list[BlockedRecord]


class BlockedList(NamedTuple):
    """Content of the file. `is_current`: this version of the program has tried the records itself."""

    records: tuple[BlockedRecord, ...] = ()
    is_current: bool = True


def load(files: FileSystem, stored_dir: int, store: bytes) -> BlockedList:
    """Load the records of this journal that are passed over; none if the file can't be used."""
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
    """Save the list, as tried by this version."""
    data = msgspec.json.encode(_File(store.hex(), __version__, sorted(records, key=lambda r: r.position)))
    atomic_replace(files, FILE_NAME, data, 0o600, dir_fd=stored_dir)


class Deaths:
    """Counts at which records a worker died.

    Attributes:
        careful_until: up to this position the next worker takes small steps and names each record.
    """

    def __init__(self) -> None:
        self._times: Counter[int] = Counter()
        self.careful_until = 0

    def note(self, status: WorkerStatus) -> BlockedRecord | None:
        """Note a death; return the record if the worker died at it too often."""
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
