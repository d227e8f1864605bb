"""Lock of the users of a daemon that `exec` started. The kernel releases locks of dead processes.

Every `exec` holds a shared lock on `{base}/.stored/exec` while its command runs. The last one to leave stops
the daemon, if an `exec` had started it; the file identifies that process by more than its pid.
"""

import fcntl
import json
import os

from perstack_stored.datadir.filesystem import FILE_MODE
from perstack_stored.datadir.lock import Started, facts_of

NAME = "exec"
LOG_NAME = "exec.log"


class LauncherLock:
    """The shared lock of one `exec`."""

    def __init__(self, stored: int) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(NAME, flags, FILE_MODE, dir_fd=stored)

    def join(self) -> bool:
        """Take the lock; False while the last user stops the daemon."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def started(self, daemon: Started) -> None:
        """Record a daemon that an `exec` started."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, json.dumps(daemon._asdict()).encode() + b"\n", 0)

    def last(self) -> Started | None:
        """The daemon that an `exec` started, if it has no other user; none can join then."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        facts = facts_of(os.pread(self._fd, 4096, 0))
        pid, process = facts.get("pid"), facts.get("process")
        return Started(pid, process) if isinstance(pid, int) and isinstance(process, str) else None

    def forget(self) -> None:
        """Forget the recorded daemon, which has ended."""
        os.ftruncate(self._fd, 0)

    def leave(self) -> None:
        """Release the lock."""
        os.close(self._fd)
