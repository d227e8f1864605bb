"""Detects a worker process that hangs: it runs, and shows no progress.

A worker that waits for the disk is not killed, nor is one that syncs: the next one would begin the same
wait again. Nor is one that is ready to run and gets no processor, as those of low priority on a busy
machine. The wait is reported instead. Only the time in which the watching process itself ran counts.
"""

import os
import time

from .worker_status import WorkerStatus

_LOOK_SECONDS = 1.0  # a longer pause between two looks is a standstill of the watcher, and does not count
_START_FACTOR = 3  # a start must load the interpreter first
_STOPPED = (b"T", b"t")
_DISK = b"D"
_READY = b"R"
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class HangDetector:
    """Measures how long a worker has shown no progress."""

    def __init__(self, pid: int, status: WorkerStatus, seconds_max: float) -> None:
        self._pid = pid
        self._status = status
        self._seconds_max = seconds_max
        self._seen = status.progress
        self._began = self._looked = time.monotonic()
        self._sampled = 0.0
        self._cpu: float | None = None  # at the last sample
        self._waited = 0.0  # seconds without progress in which it could do nothing for it
        self._waits_for = ""
        self._has_begun = False

    def seconds(self) -> float:
        """Seconds without progress until now."""
        now = time.monotonic()
        if now - self._looked > _LOOK_SECONDS:
            pause = now - self._looked - _LOOK_SECONDS
            self._began += pause
        self._looked = now
        progress = self._status.progress
        if progress != self._seen:
            self._seen, self._began = progress, now
            self._cpu, self._waited = None, 0.0
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
            self._sample(now)
        if silent < limit:
            return "", False
        if silent - self._waited < limit:
            return f"waits for {self._waits_for}, for {limit:g} s and longer", False
        return f"no sign of life for {limit:g} s", True

    def _sample(self, now: float) -> None:
        """Note what the worker waited for since the last sample."""
        states, cpu = thread_states(self._pid), cpu_seconds(self._pid)
        passed = min(now - self._sampled, 2 * _LOOK_SECONDS)  # beyond it, the watcher stood still
        if not any(state in _STOPPED for state in states):
            if _DISK in states or self._status.is_syncing:
                self._waited, self._waits_for = self._waited + passed, "the disk"
            elif _READY in states and self._cpu is not None:
                self._waited += max(0.0, passed - (cpu - self._cpu))
                self._waits_for = "a processor"
        self._sampled, self._cpu = now, cpu


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used, in seconds; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            fields = stat.read().rpartition(b") ")[2].split()
    except OSError:
        return 0.0
    user, system = fields[11:13]  # the 14th and 15th of the line
    return (int(user) + int(system)) / _TICKS_PER_SECOND


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
