"""Room kept for the index: on a full disk it still comes to the end of the journal, so that reads go on.

The journal has its room before it needs it, so it may take records for which the index has none. The room is
kept where nobody else can take it: behind the end of SQLite's log file, to which each transaction goes first.
Where it can't be had any more, stores are refused.
"""

import ctypes
import errno
import os
import time

import structlog

RESERVE_BYTES = 16 << 20
# What was acknowledged and is not indexed yet must fit in here.
MARGIN_BYTES = 6 << 20
_EVERY_SECONDS = 0.1
_KEEP_SIZE = 1
# The file system can't reserve any; other errors may pass.
_NEVER = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}

_libc = ctypes.CDLL(None, use_errno=True)
_log = structlog.get_logger()


class DiskReserve:
    """The room behind the end of the log of an open index. `short` says that it could not be had."""

    def __init__(self, index_path: str) -> None:
        # Not the index itself: SQLite has locks on it, which closing another descriptor would drop.
        self._path = f"{index_path}-wal"
        self._next = 0.0
        self._error = 0
        self.out_of_space = False

    def keep(self) -> None:
        """See, every so often, that the room is there."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _EVERY_SECONDS
        error = self._allocate()
        if error in _NEVER:
            self._next = float("inf")
        if error != self._error and error not in {0, errno.ENOSPC, errno.EDQUOT}:
            # Not for want of room: the index does without it.
            _log.warning("no_reserve", reason=os.strerror(error))
        self._error = error
        out_of_space = error in {errno.ENOSPC, errno.EDQUOT}
        if out_of_space != self.out_of_space:
            self.out_of_space = out_of_space
            _log.warning("disk_full" if out_of_space else "disk_has_room", reserve_bytes=RESERVE_BYTES)

    def _allocate(self) -> int:
        """Number of the error, 0 if the room is there now."""
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
