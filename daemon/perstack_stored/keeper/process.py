"""Starts and watches the keeper, in the server. It runs only while there is something to pack or erase."""

import time
from collections.abc import Callable
from typing import Any

from perstack_stored.process.supervised import SupervisedChild, Times

from .channel import JournalState, KeeperConfig, Report, server_end
from .worker import KEEPER_MODULE

_FIRST_START_SECONDS = 5.0  # the start of the daemon, and of the agents, goes first
_PAUSE_SECONDS = (1.0, 10.0, 60.0, 600.0)
_STABLE_SECONDS = 60.0
_SILENCE_FACTOR = 6  # it runs when nobody else wants to


class KeeperProcess:
    """The keeper as the server sees it. `follow` is called about once a second."""

    def __init__(
        self,
        config: KeeperConfig,
        lock_fd: int,
        silence_seconds: float,
        on_packed: Callable[[], None],
        on_spare: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare it; no process starts yet.

        Args:
            config: given to each process.
            lock_fd: the lock of the base: no other daemon starts while the keeper still writes.
            silence_seconds: a process without progress for some times this is killed.
            on_packed: called when segments were replaced, so that readers let go of the old files.
            on_spare: called when a plain file is left for the next segment.
        """
        self._config = config
        self._on_packed = on_packed
        self._on_spare = on_spare
        times = Times(_PAUSE_SECONDS, _STABLE_SECONDS, silence_seconds * _SILENCE_FACTOR)
        self._child = SupervisedChild("keeper", KEEPER_MODULE, server_end, times, [lock_fd])
        self._child.start_at = time.monotonic() + _FIRST_START_SECONDS
        self._report = Report()
        self._shown = Report()  # a new process counts from the first segment
        self._erased_to = self.erased_records = 0
        self._first = 0

    def follow(self, state: JournalState) -> None:
        """Collect reports, and start the process if segments may have to be packed, or written again."""
        segment = state.segment
        self._hear()
        if not self._first:
            self._first = segment
        elif segment > self._first and not self._child.starts:
            self._child.start_at = min(self._child.start_at, time.monotonic())  # this load made it
        is_wanted = state.erases or (self._config.packs and segment > max(1, self._report.done_below))
        if is_wanted and self._child.is_due and self._child.start(self._config):
            self._report = Report()
        self._child.send(state)

    @property
    def erased_to(self) -> int:
        """All deletions up to this position are erased in the journal; 0 if none were."""
        return self._erased_to

    @property
    def wants_segment(self) -> bool:
        """Whether the open segment holds something to erase."""
        return self._report.wants_segment

    @property
    def erase_fault(self) -> str:
        """Why a deletion can't be erased until somebody acts; empty if nothing is wrong."""
        return self._child.fault or self._report.erase_fault

    def describe(self) -> dict[str, Any]:
        """State for `stats`."""
        report = self._shown
        return {
            "segments": report.segments,
            "bytes": report.logical_bytes,
            "packedBytes": report.file_bytes,
            "fault": self._child.fault or self._report.fault,
        }

    @property
    def pid(self) -> int | None:
        """Process id, None if it does not run."""
        return self._child.pid

    def stop(self) -> None:
        """Kill the process: what it has not finished is void."""
        self._child.stop()

    def _hear(self) -> None:
        reports, status = self._child.receive()
        if reports:
            self._note_erased(reports[-1])
            if reports[-1].segments != self._report.segments:
                self._on_packed()
            if reports[-1].has_spare:
                self._on_spare()
            self._report = reports[-1]
            if self._report.done_below or self._report.segments >= self._shown.segments:
                self._shown = self._report
        if status:  # 0: it had nothing to do any more
            self._child.failed(self._report.fault or f"ended with status {status}")

    def _note_erased(self, report: Report) -> None:
        if report.erased_segments != self._report.erased_segments:
            self.erased_records += report.erased_records - self._report.erased_records
            self._on_packed()
        self._erased_to = max(self._erased_to, report.erased_to)
