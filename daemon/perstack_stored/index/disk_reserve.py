"""Disk space reserved for the index: on a full disk it still reaches the end of the journal, so reads go on.

The journal preallocates its room, so it may take records for which the index has none. The reserve lies where
no other file can take it: after the end of SQLite's log file, to which each transaction goes first.
While it can't be allocated, stores are refused.
"""

import ctypes
import errno
import os
import time

import structlog

RESERVE_BYTES = 16 << 20
# Records that are acknowledged and not indexed yet must fit in here.
MARGIN_BYTES = 6 << 20
_EVERY_SECONDS = 0.1
_KEEP_SIZE = 1
# The file system can't reserve room; other errors may be temporary.
_NEVER = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}

_libc = ctypes.CDLL(None, use_errno=True)
_log = structlog.get_logger()


class DiskReserve:
    """The reserve after the end of the log of an open index. `out_of_space`: it could not be allocated."""

    def __init__(self, index_path: str) -> None:
        # Not the index itself: SQLite has locks on it, which closing another descriptor would drop.
        self._path = f"{index_path}-wal"
        self._next = 0.0
        self._error = 0
        self.out_of_space = False

    def keep(self) -> None:
        """Check the reserve, and allocate it again if needed; does so at intervals only."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _EVERY_SECONDS
        error = self._allocate()
        if error in _NEVER:
            self._next = float("inf")
        if error != self._error and error not in {0, errno.ENOSPC, errno.EDQUOT}:
            # For another reason than lack of room: the index works without a reserve.
            _log.warning("no_reserve", reason=os.strerror(error))
        self._error = error
        out_of_space = error in {errno.ENOSPC, errno.EDQUOT}
        if out_of_space != self.out_of_space:
            self.out_of_space = out_of_space
            _log.warning("disk_full" if out_of_space else "disk_has_room", reserve_bytes=RESERVE_BYTES)

    def _allocate(self) -> int:
        """Allocate the reserve. Returns the error number, 0 on success."""
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return 0  # nothing was written yet
        except OSError as error:
            return error.errno or errno.EIO
        try:
            size = max(RESERVE_BYTES, os.fstat(fd).st_size + MARGIN_BYTES)
            done = _libc.fallocate(fd, _KEEP_SIZE, ctypes.c_int64(0), ctypes.c_int64(size))
            return ctypes.get_errno() if done else 0
        finally:
            os.close(fd)
