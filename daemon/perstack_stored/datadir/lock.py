"""The lock on a base: one daemon, or one offline tool, at a time."""

import errno
import fcntl
import json
import os
import time
from typing import Any, NamedTuple

from perstack_stored.errors import BaseHeldError, ConfigError

from .filesystem import FILE_MODE

NAME = "lock"
# The file system has no locks: only another one helps. Other errors may be temporary.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_RETRY_SECONDS = 10.0  # a worker may be in the middle of a slice, on a machine that is busy
_START_TIME_FIELD = 19  # of /proc/PID/stat, counted from the state
_PID_MAX = 1 << 22  # of Linux


class DataDirLock:
    """An exclusive lock on `{base}/.stored/lock`; the file names the holder."""

    def __init__(self, stored_dir: int) -> None:
        """Take the lock.

        Raises:
            BaseHeldError: another process has it; the message names it.
            ConfigError: the file system takes no locks.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(NAME, flags, FILE_MODE, dir_fd=stored_dir)
        try:
            _lock(self._fd, fcntl.LOCK_EX)
        except OSError as error:
            os.close(self._fd)
            if error.errno not in _NO_LOCKS:
                raise
            raise ConfigError(
                f"the file system of the base takes no locks (flock: {error.strerror}); use another one"
            ) from error
        except BaseHeldError:
            os.close(self._fd)
            raise

    @property
    def fd(self) -> int:
        """Descriptor that carries the lock: a process that inherits it holds the lock too."""
        return self._fd

    def say(self, **facts: object) -> None:
        """Write down the holder of the lock."""
        own = {"pid": os.getpid(), "process": identity_of(os.getpid())}
        data = json.dumps({**own, **facts}).encode() + b"\n"
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, data, 0)

    def release(self) -> None:
        """Release the lock."""
        os.ftruncate(self._fd, 0)
        os.close(self._fd)


class ReadOnlyLock:
    """A shared lock on the lock of a base that is mounted read-only, as in a container.

    A daemon may serve the base through another mount. On a file system that is read-only for all nobody does.
    """

    def __init__(self, stored_dir: int) -> None:
        """Take the lock; a base without a lock file needs none.

        Raises:
            BaseHeldError: another process has the exclusive lock; the message names it.
        """
        try:
            self._fd = os.open(NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=stored_dir)
        except FileNotFoundError:
            self._fd = -1
            return
        try:
            _lock(self._fd, fcntl.LOCK_SH)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Release the lock."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _lock(fd: int, kind: int) -> None:
    """Lock an open file.

    Raises:
        BaseHeldError: another process has the lock; the message names it.
        OSError: the file can't be locked.
    """
    deadline = time.monotonic() + _RETRY_SECONDS
    while True:
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            holder, lives = describe(os.pread(fd, 4096, 0))
            # The workers of a daemon that was killed hold the lock until they have ended.
            if lives or time.monotonic() > deadline:
                if not lives:
                    holder = _as_the_kernel_says(fd) or holder
                raise BaseHeldError(f"the base is held by {holder}; stop it, or use another base") from None
            time.sleep(0.02)


def describe(data: bytes) -> tuple[str, bool]:
    """Describe the holder of the lock for people, and say whether its process is alive."""
    facts = facts_of(data)
    pid = facts.get("pid")
    if pid is None:
        return "another process", False
    if not is_same(pid, facts.get("process")):
        return "another process", False  # written by an earlier holder
    role = facts.get("role", "daemon")
    endpoints = ", ".join(map(str, facts.get("endpoints", [])))
    text = f"the {role} with process id {pid}" + (f" on {endpoints}" if endpoints else "")
    return text, _lives(pid)


def identity_of(pid: int) -> str:
    """Identity of a process, which distinguishes it from a later one of the same pid; "" if unknown.

    Pids recur: after a restart of a container they are the same each time.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as boot:
            boot_id = boot.read().strip()
        with open(f"/proc/{pid}/stat", "rb") as stat:
            fields = stat.read().rpartition(b") ")[2].split()
    except OSError:
        return ""
    return f"{boot_id} {fields[_START_TIME_FIELD].decode()}"


def is_same(pid: int, identity: object) -> bool:
    """Whether the process with this pid has the recorded identity; true if none was recorded."""
    return not isinstance(identity, str) or not identity or identity == identity_of(pid)


def _as_the_kernel_says(fd: int) -> str:
    """Holder of a lock on an open file according to the kernel; "" if unknown."""
    found = os.fstat(fd)
    file = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    try:
        with open("/proc/locks", encoding="ascii") as locks:
            lines = [line.split() for line in locks]
    except OSError:
        return ""
    pids = sorted({line[4] for line in lines if line[1:2] == ["FLOCK"] and line[5:6] == [file]})
    return f"a process that locks its file `{NAME}`, with process id {', '.join(pids)}" if pids else ""


def _lives(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b") ")[2][:1] not in {b"Z", b"X"}
    except OSError:
        return False


def facts_of(data: bytes) -> dict[str, Any]:
    """Decode the recorded facts of a process, without values that this program can't have written.

    A pid that is not positive could be that of a group, or of all.
    """
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    facts = dict(found)
    pid, endpoints = facts.get("pid"), facts.get("endpoints", [])
    if type(pid) is not int or not 0 < pid <= _PID_MAX:
        facts.pop("pid", None)
    if not isinstance(endpoints, list) or not all(isinstance(endpoint, str) for endpoint in endpoints):
        facts.pop("endpoints")
    if not isinstance(facts.get("role", ""), str):
        facts.pop("role")
    return facts


class Holder(NamedTuple):
    """The holder of a base's lock as it recorded itself; one that just took the lock has recorded nothing."""

    role: str
    pid: int
    endpoints: tuple[str, ...]
    process: str = ""  # see `identity_of`

    @property
    def started(self) -> "Started":
        """The process as recorded by `exec`."""
        return Started(self.pid, self.process)

    @property
    def is_daemon(self) -> bool:
        """Whether it is a daemon, not a command; one that just took the lock counts as one."""
        return self.role in {"", "daemon"}

    @property
    def endpoint(self) -> str:
        """Where the daemon is asked: over ipc if it serves there, which needs no key; "" if nowhere yet."""
        return min(self.endpoints, key=lambda endpoint: not endpoint.startswith("ipc:"), default="")


class Started(NamedTuple):
    """A daemon that an `exec` started. Its pid alone may belong to another process by now."""

    pid: int
    process: str


def holder_of(stored: int) -> Holder | None:
    """The holder of the base; None if it is free."""
    try:
        fd = os.open(NAME, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=stored)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        facts = facts_of(os.pread(fd, 4096, 0))
        pid = facts.get("pid")
        process = facts.get("process", "")
        if not isinstance(pid, int) or not os.path.exists(f"/proc/{pid}") or not is_same(pid, process):
            return Holder("", 0, ())  # written by an earlier holder
        endpoints = facts.get("endpoints") or ()
        return Holder(str(facts.get("role", "")), pid, tuple(map(str, endpoints)), str(process))
    finally:
        os.close(fd)
