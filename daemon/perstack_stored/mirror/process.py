"""Starts and watches the mirror, in the server. Nothing waits for it but a stop, for some seconds."""

import os
import signal
import socket
import subprocess
import time
from typing import Any

import msgspec
import structlog

from perstack_stored.journal.reader import LogPosition
from perstack_stored.observe.counters import PositionHistory
from perstack_stored.process import interpreter
from perstack_stored.process.backoff import Backoff
from perstack_stored.process.hang_detector import HangDetector
from perstack_stored.process.socket_pair import pair
from perstack_stored.process.worker_status import WorkerStatus

from .channel import MirrorConfig, Report, ServerEnd
from .worker import MIRROR_MODULE

_BACKOFF_SECONDS = (0.5, 1.0, 5.0, 30.0)
_STABLE_SECONDS = 60.0
_SILENCE_SECONDS = 120.0  # several times what one request may take
_ENDING_SECONDS = 0.5
_POLL_SECONDS = 0.01

_log = structlog.get_logger()


class MirrorProcess:
    """The mirror as the server sees it. `follow` is called about once a second."""

    def __init__(self, config: MirrorConfig) -> None:
        """Prepare it; no process starts yet. `config` is given to each process."""
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None
        self._line: ServerEnd | None = None
        self._hang: HangDetector | None = None
        self._report = Report()
        self._before = Report()  # sums of the processes that ended
        self._backoff = Backoff(_BACKOFF_SECONDS, _STABLE_SECONDS)
        self._history = PositionHistory()
        self._started = 0.0
        self._start_at = 0.0
        self._fault = ""
        self._is_over = False
        self.faults = 0
        self.starts = 0
        self.place: LogPosition | None = None

    def follow(self, mark: LogPosition) -> None:
        """Collect reports, start the process if it does not run, and send the synced log position."""
        now = time.monotonic()
        if self._line is not None:
            self._hear()
        if self._process is None and not self._is_over and now >= self._start_at:
            self._start()
        if self._line is not None:
            self._line.send(mark)
        self._history.note(now, mark.position, 0 if self.place is None else self.place.position)

    def describe(self) -> dict[str, Any]:
        """State for `stats`, but for how far it is."""
        return {
            "enabled": True,
            "pieces": self._before.pieces + self._report.pieces,
            "bytes": self._before.logical_bytes + self._report.logical_bytes,
            "packedBytes": self._before.stored_bytes + self._report.stored_bytes,
            "fault": self._fault or self._report.fault,
            "faults": self.faults,
            "starts": self.starts,
        }

    def lag_seconds(self) -> float:
        """Age of the oldest record that is not in the bucket, as far as this daemon knows it."""
        position = 0 if self.place is None else self.place.position
        return self._history.lag_seconds(time.monotonic(), position)

    @property
    def pid(self) -> int | None:
        """Process id, None if it does not run."""
        return None if self._process is None else self._process.pid

    def finish(self, mark: LogPosition, seconds: float) -> None:
        """Ship up to a log position, if that takes no longer than some seconds, and end the process.

        The journal may be closed meanwhile: what it writes then comes after the position.
        """
        deadline = time.monotonic() + seconds
        while self._line is not None:
            self._line.send(mark)
            self._hear()
            if self.place is not None and self.place.position >= mark.position:
                break
            if self._report.fault or time.monotonic() >= deadline:
                _log.warning("mirror_unfinished", reason="it did not end in time; the next start goes on")
                break
            time.sleep(_POLL_SECONDS)
        self.stop()

    def stop(self) -> None:
        """Kill the process: a piece that it has not finished is found at the next start."""
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
                    MIRROR_MODULE,
                    str(other.fileno()),
                    msgspec.json.encode(config).decode(),
                    pass_fds=[other.fileno(), status_fd],
                )
        except OSError as error:
            if own is not None:
                own.close()
            self._failed(f"can't be started: {error}", 0.0)
            return
        finally:
            os.close(status_fd)
        self._line = ServerEnd(own)
        self._hang = HangDetector(self._process.pid, status, _SILENCE_SECONDS)
        self._started = time.monotonic()
        self.starts += 1

    def _hear(self) -> None:
        assert self._line is not None
        reports, gone = self._line.receive()
        for report in reports:
            if report.fault and report.fault != self._report.fault:
                self.faults += 1
            self._fault = ""
            self._report = report
            if report.place is not None:
                self.place = LogPosition(*report.place)
            self._is_over = report.is_over
        if gone:
            self._reap()
        elif self._hang is not None and self._process is not None:
            fault, hangs = self._hang.look()
            if hangs:
                _log.error("mirror_silent", reason=fault)
                self._process.kill()

    def _reap(self) -> None:
        status = self._await_end()
        self._drop_line()
        reason = self._report.fault or f"ended with status {status}"
        before, last = self._before, self._report
        self._before = Report(
            pieces=before.pieces + last.pieces,
            stored_bytes=before.stored_bytes + last.stored_bytes,
            logical_bytes=before.logical_bytes + last.logical_bytes,
        )
        self._report = Report()
        if self._is_over:
            self._fault = reason
            _log.critical("mirror_stopped", reason=reason)
            return
        self._failed(reason, time.monotonic() - self._started)

    def _failed(self, reason: str, seconds: float) -> None:
        pause = self._backoff.pause(seconds)
        self._start_at = time.monotonic() + pause
        self._fault = reason
        _log.error("mirror_ended", reason=reason, again_in_s=pause)

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
            _log.error("mirror_not_gone", pid=process.pid)
            return -signal.SIGKILL

    def _drop_line(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None
