"""Connections to the index: opens it, classifies its errors, and reads its cursor."""

import contextlib
import os
import sqlite3

from perstack_stored.errors import IndexUnusableError
from perstack_stored.index.page_checksums import SUFFIX as SUMS_SUFFIX
from perstack_stored.journal.reader import LogPosition
from perstack_stored.model.checksum import crc32c
from perstack_stored.process.worker_status import WorkerStatus

_PROGRESS_OPCODES = 100_000  # some milliseconds of a statement

_WORKER_LOCK_SECONDS = 1  # a worker that waits for a lock shows no progress, and says so soon

# Errors of the caller, or of a value that is too long: they are no sign of damage.
_OURS = (sqlite3.ProgrammingError, sqlite3.NotSupportedError, sqlite3.DataError)

_PASSING = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_NOMEM,
}


def may_pass(error: sqlite3.Error) -> bool:
    """Whether the cause is a lack of room, descriptors or permission, so that the index is kept."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in _PASSING and code != sqlite3.SQLITE_IOERR_SHORT_READ


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the error means that the index can't be used any more."""
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(error, _OURS) and not may_pass(error)


def connect(
    path: str, *, read_only: bool, lock_seconds: float = 30, status: WorkerStatus | None = None
) -> sqlite3.Connection:
    """Open the index; a writer creates it if there is none.

    Args:
        path: path of the index.
        read_only: the connection only reads.
        lock_seconds: how long a statement waits for another connection's lock.
        status: shows the progress of a worker's long statements.

    Raises:
        sqlite3.Error: it can't be opened.
        IndexUnusableError: it is damaged.
    """
    uri = f"file:{path.replace('%', '%25').replace('?', '%3f').replace('#', '%23')}"
    database = sqlite3.connect(
        uri + ("?mode=ro" if read_only else ""),
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=lock_seconds,
    )
    if status is not None:
        database.set_progress_handler(status.beat, _PROGRESS_OPCODES)
    try:
        database.execute("PRAGMA cache_size = -8192")
    except UnicodeDecodeError as error:  # SQLite's message quotes a damaged schema, and Python decodes it
        database.close()
        raise IndexUnusableError("the schema of the index is damaged") from error
    return database


def connect_worker(path: str, *, read_only: bool, status: WorkerStatus | None) -> sqlite3.Connection:
    """Open the index in a worker: its statements wait for a lock only briefly, and show progress."""
    if status is None:
        return connect(path, read_only=read_only)
    return connect(path, read_only=read_only, lock_seconds=_WORKER_LOCK_SECONDS, status=status)


def position_of(path: str, store: bytes) -> int | None:
    """Position up to which an index of this journal is complete; None if there is no readable one."""
    if not os.path.exists(path):
        return None
    try:
        with contextlib.closing(connect(path, read_only=True)) as database:
            return read_cursor(database, store).position
    except (sqlite3.DatabaseError, IndexUnusableError):
        return None


def read_cursor(database: sqlite3.Connection, store: bytes | None = None) -> LogPosition:
    """Read the log position up to which an index is complete; with `store`, check its journal.

    Raises:
        IndexUnusableError: the index belongs to another journal, or is damaged.
    """
    row = database.execute("SELECT store, position, segment, offset, crc FROM cursor").fetchone()
    if row is None:
        raise IndexUnusableError("the index has no cursor")
    owner, position, segment, offset, crc = row
    if store is not None and owner != store:
        raise IndexUnusableError("the index belongs to another journal")
    mark = LogPosition(position, segment, offset)
    if not isinstance(owner, bytes) or crc != cursor_crc(owner, mark):
        raise IndexUnusableError("the checksum of the index's cursor does not match")
    return mark


def cursor_crc(store: bytes, mark: LogPosition) -> int:
    """Checksum of the cursor's row."""
    return crc32c(f"{store.hex()} {mark.position} {mark.segment} {mark.offset}".encode())


def remove(path: str) -> None:
    """Remove an index and the files beside it."""
    for file in _files_of(path):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(file)


def _files_of(path: str) -> list[str]:
    return [path + suffix for suffix in ("", "-wal", "-shm", "-journal", SUMS_SUFFIX)]
