"""Status of a worker process in shared memory: its progress, and the record that it processes.

     0         8          16        24         32       40
     +---------+----------+---------+----------+--------+------ … --+
     | beats   | position | reading | syncing  | length | text      |
     +---------+----------+---------+----------+--------+------ … --+

A write costs no system call, and can still be read after the worker was killed. `position` is the current
record, 0 for none. `reading` 1: it reads a piece of the journal that begins there. `text` names the
record; only a worker that takes small steps writes it, after an earlier worker died.
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
    """Either end of the memory; without `memory`, of private memory."""

    def __init__(self, memory: mmap.mmap | None = None) -> None:
        self._memory = memory or mmap.mmap(-1, BYTES)
        self._numbers = memoryview(self._memory)[:_TEXT].cast("Q")
        self._sync_lock = threading.Lock()

    @classmethod
    def shared(cls) -> tuple["WorkerStatus", int]:
        """Create shared memory; return it with a descriptor for the worker, which the caller closes."""
        fd = os.memfd_create("perstack-worker")
        os.ftruncate(fd, BYTES)
        return cls.of(fd), fd

    @classmethod
    def of(cls, fd: int) -> "WorkerStatus":
        """Map the memory of a descriptor."""
        return cls(mmap.mmap(fd, BYTES))

    # --- the worker's side -------------------------------------------------------------------------

    def beat(self) -> None:
        """Show progress."""
        self._numbers[_BEATS] += 1

    def at(self, position: int) -> None:
        """Show the record that the worker begins; 0: none."""
        self._numbers[_POSITION] = position

    def read(self, position: int) -> None:
        """Show that the worker begins to read the journal at this record."""
        self._numbers[_READING] = 1
        self._numbers[_POSITION] = position

    def has_read(self) -> None:
        """Show that the read has ended."""
        self._numbers[_POSITION] = 0
        self._numbers[_READING] = 0

    def describe(self, kind: str, file: str = "") -> None:
        """Name the current record: its kind, and its file in the tree, which holds its ids."""
        text = json.dumps([self.position, kind, file]).encode()
        if len(text) > BYTES - _TEXT:
            text = json.dumps([self.position, kind, ""]).encode()
        self._numbers[_LENGTH] = 0
        self._memory[_TEXT : _TEXT + len(text)] = text
        self._numbers[_LENGTH] = len(text)

    @contextmanager
    def in_sync(self) -> Iterator[None]:
        """Context of a sync: it takes as long as the disk takes."""
        with self._sync_lock:
            self._numbers[_SYNCING] += 1
        try:
            yield
        finally:
            with self._sync_lock:
                self._numbers[_SYNCING] -= 1

    # --- the parent's side -------------------------------------------------------------------------

    @property
    def progress(self) -> tuple[int, int]:
        """Values that change while the worker makes progress."""
        return self._numbers[_BEATS], self._numbers[_POSITION]

    @property
    def position(self) -> int:
        """The worker's current record, also after its death; 0 for none."""
        return self._numbers[_POSITION]

    @property
    def is_reading(self) -> bool:
        """Whether it reads a piece of the journal that begins there."""
        return bool(self._numbers[_READING])

    @property
    def is_syncing(self) -> bool:
        """Whether a sync is in progress."""
        return bool(self._numbers[_SYNCING])

    @property
    def described(self) -> tuple[str, str]:
        """Kind and file of the record, if the worker has named it."""
        length = min(self._numbers[_LENGTH], BYTES - _TEXT)
        try:
            position, kind, file = json.loads(self._memory[_TEXT : _TEXT + length])
        except ValueError:
            return "", ""
        return (str(kind), str(file)) if position == self.position else ("", "")
