"""A simulated machine: each system call is a place to crash, to fail, to let others run.

One machine runs at a time; `Kernel.current` is it.
"""

import errno
import os
from collections.abc import Callable
from itertools import count
from random import Random
from typing import ClassVar

from tests.simulation.disk import Disk, File, Folder, Node
from tests.simulation.tasks import Scheduler, Task

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
# What each call may fail with. A close that fails has closed, and nobody asks.
FAULTS: dict[str, tuple[int, ...]] = {
    "open": (errno.EMFILE, errno.EIO),
    "create": (errno.EMFILE, *_FULL),
    "mkdir": _FULL,
    "listdir": (errno.EIO,),
    "link": _FULL,
    "stat": (errno.EIO,),
    "pread": (errno.EIO,),
    "pwritev": _FULL,
    "fallocate": _FULL,
    "truncate": (errno.EIO,),
    "rename": _FULL,
    "exchange": _FULL,
    "unlink": (errno.EIO,),
    "rmdir": (errno.EIO,),
    "fdatasync": (errno.EIO, errno.ENOSPC),
    "fsync": (errno.EIO,),
    "syncfs": (errno.EIO,),
}
# How much more often than others a call fails: what is rare, and what matters most when it fails.
_OFTEN = {"fallocate": 60, "fdatasync": 5, "syncfs": 5}
Tear = Callable[[Disk, Random], None]
_fds = count(1_000_000)


class Clock:
    """Stands in for the module `time`; moves when it is looked at."""

    def __init__(self, start_ms: int = 1_800_000_000_000) -> None:
        self.ms = float(start_ms)
        self.up = 0.0

    def time_ns(self) -> int:
        self.ms += 0.25
        return int(self.ms * 1_000_000)

    def monotonic(self) -> float:
        self.up += 0.0001
        return self.up

    perf_counter = monotonic
    CLOCK_BOOTTIME = 7

    def clock_gettime(self, _clock: int) -> float:
        return self.up

    def sleep(self, seconds: float) -> None:
        self.up += seconds
        Kernel.current.scheduler.pause(waits=True)


class Kernel:
    """One boot of a machine, until it is killed or its power is cut."""

    current: ClassVar["Kernel"]

    def __init__(self, disk: Disk, random: Random) -> None:
        self.disk = disk
        self.random = random
        self.scheduler = Scheduler()
        self.clock = Clock()
        self.calls = 0
        self.fault_odds = 0.0
        self.faults: list[tuple[str, int]] = []
        self.switch_odds = 0.0
        # Called before each system call with its name and what a half-done one would leave behind.
        self.before: Callable[[str, Tear | None], None] = lambda _name, _tear: None
        self.changed: Callable[[], None] = lambda: None
        self.granted = 0  # leases
        self.errors = 0  # write-backs that failed anywhere; syncfs tells each descriptor once
        self._open: dict[int, Node | int] = {}
        self._owner: dict[int, Task | None] = {}
        self._heard: dict[int, int] = {}  # errors of the file, by descriptor
        self._heard_all: dict[int, int] = {}

    # --- what every call does ----------------------------------------------------------------------

    def enter(self, name: str, tear: Tear | None = None) -> None:
        """Let others run, note a place to crash, and fail where the seed says so."""
        scheduler, random = self.scheduler, self.random
        if scheduler.current is not None:
            scheduler.pause()
        elif self.switch_odds and random.random() < self.switch_odds and scheduler.tasks:
            scheduler.run(random.choice(scheduler.tasks), random.randint(1, 6))
        self.calls += 1
        self.before(name, tear)
        odds = self.fault_odds * _OFTEN.get(name, 1)
        if odds and name in FAULTS and random.random() < odds:
            number = random.choice(FAULTS[name])
            self.faults.append((name, number))
            raise OSError(number, os.strerror(number), name)

    def new_fd(self, node: Node | int) -> int:
        """A descriptor of a node."""
        fd = next(_fds)
        self._open[fd] = node
        self._owner[fd] = self.scheduler.current
        if isinstance(node, File):
            self._heard[fd] = node.errors if node.reported else node.errors - 1
        self._heard_all[fd] = self.errors
        return fd

    def fail_write_back(self, odds: float) -> None:
        """Write-back of some files fails: what was to be written is gone, and the pages count as clean."""
        for node in self.disk.nodes():
            if isinstance(node, File) and node.dirty and self.random.random() < odds:
                node.drop(self.random)
                self.errors += 1

    def report_errors(self, fd: int, file: File) -> None:
        """As fsync on Linux: a failed write-back is reported once to each descriptor that was open."""
        if self._heard[fd] < file.errors:
            self._heard[fd] = file.errors
            file.reported = True
            self.faults.append(("fsync", errno.EIO))
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def report_all_errors(self, fd: int) -> None:
        """As syncfs on Linux, since 5.8."""
        if self._heard_all[fd] < self.errors:
            self._heard_all[fd] = self.errors
            self.faults.append(("syncfs", errno.EIO))
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def node(self, fd: int) -> Node | int:
        """What a descriptor stands for."""
        try:
            return self._open[fd]
        except KeyError:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from None

    def file(self, fd: int) -> File:
        node = self.node(fd)
        if not isinstance(node, File):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        return node

    def folder(self, fd: int | None) -> Folder:
        assert fd is not None, "every name is looked up in an open folder"
        node = self.node(fd)
        if not isinstance(node, Folder):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        return node

    def look_up(self, fd: int | None, name: str) -> Node:
        found = self.folder(fd).names.get(name)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return found

    def close(self, fd: int) -> None:
        self.node(fd)
        del self._open[fd], self._owner[fd]

    def is_alone(self, fd: int) -> bool:
        """Whether no other descriptor is open on a file."""
        self.enter("lease")
        node = self.node(fd)
        # What a task that was killed had open is closed.
        owners = [self._owner[other] for other, where in self._open.items() if where is node]
        is_alone = sum(owner is None or not owner.done for owner in owners) == 1
        self.granted += is_alone
        return is_alone

    @property
    def open_count(self) -> int:
        """Descriptors that are open."""
        return len(self._open)
