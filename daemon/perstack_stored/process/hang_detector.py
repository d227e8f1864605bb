"""Notices that a worker process hangs: it is there, and shows no progress.

A worker that waits for the disk is left alone, and so is one that syncs: killed, it would have to begin that
wait once more. That it waits is shown. What counts is the time in which the watching process ran itself.
"""

import os
import time

from .worker_status import WorkerStatus

_LOOK_SECONDS = 1.0  # a longer pause between two looks is our own standstill, and does not count
_START_FACTOR = 3  # a start has to load the interpreter first
_STOPPED = (b"T", b"t")
_DISK = b"D"


class HangDetector:
    """How long a worker has shown no progress."""

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
        """Seconds without progress, until now."""
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
        """What is wrong, or "", and whether the worker hangs and is to be killed."""
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
    """The state of each thread of a process, as /proc names it."""
    states = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/stat", "rb") as stat:
                states.append(stat.read().rpartition(b") ")[2][:1])
    except OSError:
        pass  # it is ending
    return states
