"""Starts and watches the keeper, in the server. It runs only while there is something to pack or erase."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from perstack_stored.process import interpreter
from perstack_stored.process.backoff import Backoff
from perstack_stored.process.hang_detector import HangDetector
from perstack_stored.process.socket_pair import pair
from perstack_stored.process.worker_status import WorkerStatus

from .channel import JournalState, KeeperConfig, Report, ServerEnd
from .worker import KEEPER_MODULE

_FIRST_START_SECONDS = 5.0  # the start of the daemon, and of the agents, goes first
_BACKOFF_SECONDS = (1.0, 10.0, 60.0, 600.0)
_STABLE_SECONDS = 60.0
_SILENCE_FACTOR = 6  # it runs when nobody else wants to
_ENDING_SECONDS = 0.5

_log = structlog.get_logger()


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
        self._lock_fd = lock_fd
        self._silence_seconds = silence_seconds * _SILENCE_FACTOR
        self._on_packed = on_packed
        self._on_spare = on_spare
        self._process: subprocess.Popen[bytes] | None = None
        self._line: ServerEnd | None = None
        self._hang: HangDetector | None = None
        self._report = Report()
        self._shown = Report()  # a new process counts from the first segment
        self._backoff = Backoff(_BACKOFF_SECONDS, _STABLE_SECONDS)
        self._started = 0.0
        self._start_at = time.monotonic() + _FIRST_START_SECONDS
        self._fault = ""
        self._erased_to = self.erased_records = 0
        self._first = 0
        self.starts = 0

    def follow(self, state: JournalState) -> None:
        """Collect reports, and start the process if segments may have to be packed, or written again."""
        segment = state.segment
        if self._line is not None:
            self._hear()
        now = time.monotonic()
        if not self._first:
            self._first = segment
        elif segment > self._first and not self.starts:
            self._start_at = min(self._start_at, now)  # this load made it
        is_wanted = state.erases or (self._config.packs and segment > max(1, self._report.done_below))
        if self._process is None and is_wanted and now >= self._start_at:
            self._start()
        if self._line is not None:
            self._line.send(state)

    @property
    def erased_to(self) -> int:
        """All deletions up to this position are erased in the journal; 0 if none were."""
        return self._erased_to

    @property
    def wants_segment(self) -> bool:
        """Whether the open segment holds something to erase."""
        return self._report.wants_segment

    def describe(self) -> dict[str, Any]:
        """State for `stats`."""
        report = self._shown
        return {
            "segments": report.segments,
            "bytes": report.logical_bytes,
            "packedBytes": report.file_bytes,
            "fault": self._fault or self._report.fault,
        }

    @property
    def pid(self) -> int | None:
        """Process id, None if it does not run."""
        return None if self._process is None else self._process.pid

    def stop(self) -> None:
        """Kill the process: what it has not finished is void."""
        if self._process is not None:
            self._process.kill()
            self._await_end()
        self._drop_line()

    def _start(self) -> None:
        status, status_fd = WorkerStatus.shared()
        own: socket.socket | None = None
        try:
            own, other = pair()
            with other:
                config = msgspec.structs.replace(self._config, status_fd=status_fd)
                self._process = interpreter.start(
                    KEEPER_MODULE,
                    str(other.fileno()),
                    msgspec.json.encode(config).decode(),
                    pass_fds=[other.fileno(), status_fd, self._lock_fd],
                )
        except OSError as error:
            if own is not None:
                own.close()
            self._failed(f"can't be started: {error}", 0.0)
            return
        finally:
            os.close(status_fd)
        self._line = ServerEnd(own)
        self._hang = HangDetector(self._process.pid, status, self._silence_seconds)
        self._started = time.monotonic()
        self._report = Report()
        self.starts += 1

    def _hear(self) -> None:
        assert self._line is not None
        reports, gone = self._line.receive()
        if reports:
            self._note_erased(reports[-1])
            if reports[-1].segments != self._report.segments:
                self._on_packed()
            if reports[-1].has_spare:
                self._on_spare()
            self._report, self._fault = reports[-1], ""
            if self._report.done_below or self._report.segments >= self._shown.segments:
                self._shown = self._report
        if gone:
            self._reap()
        elif self._hang is not None and self._process is not None:
            fault, hangs = self._hang.look()
            if hangs:
                _log.error("keeper_silent", reason=fault)
                self._process.kill()

    def _note_erased(self, report: Report) -> None:
        if report.erased_segments != self._report.erased_segments:
            self.erased_records += report.erased_records - self._report.erased_records
            self._on_packed()
        self._erased_to = max(self._erased_to, report.erased_to)

    def _reap(self) -> None:
        """Collect the status of a process that ended. 0: it had nothing to do any more."""
        status = self._await_end()
        self._drop_line()
        if status != 0:
            reason = self._report.fault or f"ended with status {status}"
            self._failed(reason, time.monotonic() - self._started)

    def _failed(self, reason: str, seconds: float) -> None:
        pause = self._backoff.pause(seconds)
        self._start_at = time.monotonic() + pause
        self._fault = reason
        _log.error("keeper_ended", reason=reason, again_in_s=pause)

    def _await_end(self) -> int:
        """Wait for the process; one that the kernel can't end yet is left to it."""
        assert self._process is not None
        process, self._process = self._process, None
        try:
            return process.wait(timeout=_ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
        try:
            return process.wait(timeout=_ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            _log.error("keeper_not_gone", pid=process.pid)
            return -signal.SIGKILL

    def _drop_line(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None
