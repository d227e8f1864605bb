"""What a worker process says of itself in shared memory: that it makes progress, and at which record it is.

     0         8          16        24         32       40
     +---------+----------+---------+----------+--------+------ … --+
     | beats   | position | reading | syncing  | length | text      |
     +---------+----------+---------+----------+--------+------ … --+

A write costs no system call, and can still be read after the worker was killed. `position` is the record that
the worker is at, 0 for none. `reading` 1: it reads a piece of the journal that begins there. `text` names the
record; it is written only by a worker that goes in small steps, since the one before it died.
"""

import json
import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

BYTES = 8192
_BEATS, _POSITION, _READING, _SYNCING, _LENGTH = range(5)
_TEXT = 40


class WorkerStatus:
    """Either end of the memory; without `memory`, of some that nobody else sees."""

    def __init__(self, memory: mmap.mmap | None = None) -> None:
        self._memory = memory or mmap.mmap(-1, BYTES)
        self._numbers = memoryview(self._memory)[:_TEXT].cast("Q")
        self._sync_lock = threading.Lock()

    @classmethod
    def shared(cls) -> tuple["WorkerStatus", int]:
        """New memory, and a descriptor of it that is to be handed to a worker and closed."""
        fd = os.memfd_create("perstack-worker")
        os.ftruncate(fd, BYTES)
        return cls.of(fd), fd

    @classmethod
    def of(cls, fd: int) -> "WorkerStatus":
        """The memory that a descriptor is of."""
        return cls(mmap.mmap(fd, BYTES))

    # --- the worker's side -------------------------------------------------------------------------

    def beat(self) -> None:
        """Some progress was made."""
        self._numbers[_BEATS] += 1

    def at(self, position: int) -> None:
        """The worker begins with a record; 0: it is at none."""
        self._numbers[_POSITION] = position

    def read(self, position: int) -> None:
        """The worker begins to read the journal from this record on."""
        self._numbers[_READING] = 1
        self._numbers[_POSITION] = position

    def has_read(self) -> None:
        """What was to be read is there."""
        self._numbers[_POSITION] = 0
        self._numbers[_READING] = 0

    def describe(self, kind: str, file: str = "") -> None:
        """Name the record that the worker is at: its kind, and its file in the tree, which holds its ids."""
        text = json.dumps([self.position, kind, file]).encode()
        if len(text) > BYTES - _TEXT:
            text = json.dumps([self.position, kind, ""]).encode()
        self._numbers[_LENGTH] = 0
        self._memory[_TEXT : _TEXT + len(text)] = text
        self._numbers[_LENGTH] = len(text)

    @contextmanager
    def in_sync(self) -> Iterator[None]:
        """A sync is under way: it takes as long as the disk takes."""
        with self._sync_lock:
            self._numbers[_SYNCING] += 1
        try:
            yield
        finally:
            with self._sync_lock:
                self._numbers[_SYNCING] -= 1

    # --- the side of the process that started it ---------------------------------------------------

    @property
    def progress(self) -> tuple[int, int]:
        """Something that changes while the worker makes progress."""
        return self._numbers[_BEATS], self._numbers[_POSITION]

    @property
    def position(self) -> int:
        """The record that the worker is at, or was when it died; 0 for none."""
        return self._numbers[_POSITION]

    @property
    def is_reading(self) -> bool:
        """Whether it was reading a piece of the journal that begins there."""
        return bool(self._numbers[_READING])

    @property
    def is_syncing(self) -> bool:
        """Whether a sync is under way."""
        return bool(self._numbers[_SYNCING])

    @property
    def described(self) -> tuple[str, str]:
        """Kind and file of the record, as far as the worker has named it."""
        length = min(self._numbers[_LENGTH], BYTES - _TEXT)
        try:
            position, kind, file = json.loads(self._memory[_TEXT : _TEXT + length])
        except ValueError:
            return "", ""
        return (str(kind), str(file)) if position == self.position else ("", "")
