"""Checksums of the index's pages: SQLite has none, and a byte changed at rest would change answers unnoticed.

     0               8          12         16   17        28        32
     +---------------+----------+----------+----+---------+---------+-- … --+
     | "PSTKIDX1"    |page size | pages    |busy| 0       | crc32c  | crc32c of each page, u32
     +---------------+----------+----------+----+---------+---------+-- … --+

The database's file changes in checkpoints only, which the index requests itself. `busy` 1: one is under way.
Before a daemon's first index worker opens the index, the file must be as the last checkpoint left it. Later
transactions in SQLite's log are discarded, and indexed again from the journal.
"""

import errno
import os
import sqlite3
import struct
from collections.abc import Callable, Iterator

from perstack_stored.datadir.filesystem import FILE_MODE
from perstack_stored.errors import IndexUnusableError
from perstack_stored.model.checksum import crc32c

SUFFIX = "-sums"
_WAL = "-wal"
_HEAD = struct.Struct("<8sIIB11x")
_HEAD_BYTES = _HEAD.size + 4
_SUM_BYTES = 4
_MAGIC = b"PSTKIDX1"
_READ_PAGES = 256
_WAL_HEAD_BYTES = 32
_FRAME_HEAD_BYTES = 24
# A log of this size is checkpointed into the database's file; some 2,000 pages.
WAL_BYTES = 8 << 20
_AGAIN_BYTES = 1 << 20
_PATIENCE_MS = 50


def verify_at_rest(path: str, on_progress: Callable[[], None] = lambda: None) -> None:
    """Check an index that no process has open, and reset it to its last checkpoint.

    `on_progress` is called at intervals: a large index takes long.

    Raises:
        IndexUnusableError: its bytes have changed.
    """
    if not os.path.exists(path):
        return
    try:
        with open(path + SUFFIX, "rb") as sums:
            head = sums.read(_HEAD_BYTES)
            if len(head) < _HEAD_BYTES or crc32c(head[:-4]) != int.from_bytes(head[-4:], "little"):
                raise IndexUnusableError("the checksums of the index are damaged")
            _, page_bytes, pages, is_busy = _HEAD.unpack_from(head)
            if is_busy:
                return  # SQLite continues the checkpoint from its own log
            _compare(path, sums.read(), page_bytes, pages, on_progress)
    except FileNotFoundError:
        raise IndexUnusableError("the index has no checksums") from None
    for suffix in (_WAL, "-shm"):
        if os.path.exists(path + suffix):
            os.unlink(path + suffix)


def _compare(path: str, sums: bytes, page_bytes: int, pages: int, on_progress: Callable[[], None]) -> None:
    if os.path.getsize(path) != page_bytes * pages or len(sums) < pages * _SUM_BYTES:
        raise IndexUnusableError("the index has another size than it had")
    for number, page in enumerate(_pages(path, page_bytes)):
        if number % _READ_PAGES == 0:
            on_progress()
        wanted = int.from_bytes(sums[number * _SUM_BYTES : (number + 1) * _SUM_BYTES], "little")
        if crc32c(page) != wanted:
            raise IndexUnusableError(f"page {number + 1} of the index is not as it was written")


def _pages(path: str, page_bytes: int) -> Iterator[memoryview]:
    with open(path, "rb", buffering=0) as file:
        while data := file.read(_READ_PAGES * page_bytes):
            for start in range(0, len(data), page_bytes):
                yield memoryview(data)[start : start + page_bytes]


class CheckpointedChecksums:
    """Checkpoints SQLite's log into the database's file, and updates the checksums."""

    def __init__(self, path: str, database: sqlite3.Connection) -> None:
        self._path = path
        self._database = database
        self._page_bytes: int = database.execute("PRAGMA page_size").fetchone()[0]
        self._lock_wait_ms: int = database.execute("PRAGMA busy_timeout").fetchone()[0]
        self._fd = os.open(path + SUFFIX, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
        # Kept open: closing any descriptor of the file would drop the locks that SQLite has on it.
        self._pages_fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._due = WAL_BYTES
        self.begun = 0
        # SQLite's own checkpoints would change pages without new checksums.
        database.execute("PRAGMA wal_autocheckpoint = 0")
        self.run()

    def run_if_due(self) -> None:
        """Checkpoint if the log is long enough; without room for a checkpoint the log keeps growing.

        Raises:
            OSError, sqlite3.Error: it failed, and can be tried again.
        """
        if self._wal_size() < self._due:
            return
        try:
            self.run()
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
            self._due = self._wal_size() + _AGAIN_BYTES
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                raise
            self._due = self._wal_size() + _AGAIN_BYTES

    def run(self) -> None:
        """Run a checkpoint."""
        self.begun += 1
        touched = self._touched()
        self._put_head(is_busy=True)
        self._database.execute(f"PRAGMA busy_timeout = {_PATIENCE_MS}")
        try:
            is_blocked, logged, done = self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            self._database.execute(f"PRAGMA busy_timeout = {self._lock_wait_ms}")
        self._due = self._wal_size() + WAL_BYTES
        if is_blocked and logged != done:
            return  # a reader blocks it; its pages stay in the log until the next one
        self._put_sums(touched)
        self._put_head(is_busy=False)

    def close(self) -> None:
        """Close the files; the database must be closed already."""
        os.close(self._fd)
        os.close(self._pages_fd)

    @property
    def has_log(self) -> bool:
        """Whether SQLite's log holds pages."""
        return self._wal_size() > 0

    def _wal_size(self) -> int:
        try:
            return os.stat(self._path + _WAL).st_size
        except FileNotFoundError:
            return 0

    def _touched(self) -> set[int] | None:
        """Numbers of the pages in the log; None means all, while there are no checksums yet."""
        if os.fstat(self._fd).st_size < _HEAD_BYTES:
            return None
        touched: set[int] = set()
        try:
            fd = os.open(self._path + _WAL, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return touched
        try:
            salts = os.pread(fd, _WAL_HEAD_BYTES, 0)[16:24]
            offset = _WAL_HEAD_BYTES
            while len(head := os.pread(fd, _FRAME_HEAD_BYTES, offset)) == _FRAME_HEAD_BYTES:
                if head[8:16] != salts:
                    break  # belongs to an earlier round of the log
                touched.add(int.from_bytes(head[:4], "big"))
                offset += _FRAME_HEAD_BYTES + self._page_bytes
        finally:
            os.close(fd)
        return touched

    def _put_sums(self, touched: set[int] | None) -> None:
        pages = self._page_count()
        for number in range(1, pages + 1) if touched is None else sorted(touched):
            if number <= pages:
                page = os.pread(self._pages_fd, self._page_bytes, (number - 1) * self._page_bytes)
                place = _HEAD_BYTES + (number - 1) * _SUM_BYTES
                os.pwrite(self._fd, crc32c(page).to_bytes(_SUM_BYTES, "little"), place)

    def _page_count(self) -> int:
        return os.fstat(self._pages_fd).st_size // self._page_bytes

    def _put_head(self, *, is_busy: bool) -> None:
        head = _HEAD.pack(_MAGIC, self._page_bytes, self._page_count(), is_busy)
        os.pwrite(self._fd, head + crc32c(head).to_bytes(4, "little"), 0)
        os.fdatasync(self._fd)
