"""Detects a worker process that hangs: it runs, and shows no progress.

A worker that waits for the disk is not killed, nor is one that syncs: the next one would begin the same
wait again. The wait is reported instead. Only the time in which the watching process itself ran counts.
"""

import os
import time

from .worker_status import WorkerStatus

_LOOK_SECONDS = 1.0  # a longer pause between two looks is a standstill of the watcher, and does not count
_START_FACTOR = 3  # a start must load the interpreter first
_STOPPED = (b"T", b"t")
_DISK = b"D"


class HangDetector:
    """Measures how long a worker has shown no progress."""

    def __init__(self, pid: int, status: WorkerStatus, seconds_max: float) -> None:
        self._pid = pid
        self._status = status
        self._seconds_max = seconds_max
        self._seen = status.progress
        self._began = self._looked = time.monotonic()
        self._sampled = 0.0
        self._disk = 0.0
        self._has_begun = False

    def seconds(self) -> float:
        """Seconds without progress until now."""
        now = time.monotonic()
        if now - self._looked > _LOOK_SECONDS:
            pause = now - self._looked - _LOOK_SECONDS
            self._began += pause
            self._disk += pause
        self._looked = now
        progress = self._status.progress
        if progress != self._seen:
            self._seen, self._began, self._disk = progress, now, 0.0
            self._has_begun = True
        return now - self._began

    def look(self) -> tuple[str, bool]:
        """Return the problem, or "", and whether the worker hangs and must be killed."""
        silent = self.seconds()
        limit = self._seconds_max * (1 if self._has_begun else _START_FACTOR)
        if silent < limit / 2:
            return "", False
        now = self._looked
        if now - self._sampled >= min(_LOOK_SECONDS, limit / 8):
            self._sampled = now
            if self._waits_for_disk():
                self._disk = now
        if silent < limit:
            return "", False
        if now - self._disk < limit:
            return f"waits for the disk, for {limit:g} s and longer", False
        return f"no sign of life for {limit:g} s", True

    def _waits_for_disk(self) -> bool:
        states = thread_states(self._pid)
        if any(state in _STOPPED for state in states):
            return False
        return _DISK in states or self._status.is_syncing


def thread_states(pid: int) -> list[bytes]:
    """State of each thread of a process, as in /proc."""
    states = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/stat", "rb") as stat:
                states.append(stat.read().rpartition(b") ")[2][:1])
    except OSError:
        pass  # it is ending
    return states
