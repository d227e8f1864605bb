"""A child process that the server starts, watches, and starts again after a pause when it fails."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple

import msgspec
import structlog

from . import interpreter
from .backoff import Backoff
from .hang_detector import HangDetector
from .line import Report, ServerEnd, State
from .socket_pair import pair
from .worker_status import WorkerStatus

_ENDING_SECONDS = 0.5

_log = structlog.get_logger()


class Times(NamedTuple):
    """How patient the supervisor is, in seconds.

    Attributes:
        pauses: before another start, longer after each failure; the last one stays.
        stable: a process that has run for longer begins with the first pause again.
        silence: a process without progress for this long is killed.
    """

    pauses: tuple[float, ...]
    stable: float
    silence: float


class SupervisedChild(Generic[State, Report]):
    """One process at a time. `fault` says why the last one ended, or did not start."""

    def __init__(
        self,
        name: str,
        module: str,
        line: Callable[[socket.socket], ServerEnd[State, Report]],
        times: Times,
        pass_fds: Sequence[int] = (),
    ) -> None:
        """Prepare it; no process starts yet.

        Args:
            name: first word of its events in the log.
            module: its `main` is run, with a descriptor of the line and the configuration as JSON.
            line: makes the server's end of the line.
            times: see there.
            pass_fds: descriptors that each process inherits, such as the lock of the base.
        """
        self._name = name
        self._module = module
        self._make_line = line
        self._silence_seconds = times.silence
        self._pass_fds = pass_fds
        self._process: subprocess.Popen[bytes] | None = None
        self._line: ServerEnd[State, Report] | None = None
        self._hang: HangDetector | None = None
        self._backoff = Backoff(times.pauses, times.stable)
        self._started = 0.0
        self.start_at = 0.0
        self.fault = ""
        self.starts = 0

    @property
    def pid(self) -> int | None:
        """Process id, None if it does not run."""
        return None if self._process is None else self._process.pid

    @property
    def has_line(self) -> bool:
        """Whether a process runs, or has left reports."""
        return self._line is not None

    @property
    def is_due(self) -> bool:
        """Whether none runs, and the pause is over."""
        return self._process is None and time.monotonic() >= self.start_at

    def start(self, config: msgspec.Struct) -> bool:
        """Start a process; returns whether it runs.

        Args:
            config: for its command line, so without secrets; its `status_fd` is set here.
        """
        status, status_fd = WorkerStatus.shared()
        own: socket.socket | None = None
        try:
            own, other = pair()
            with other:
                config = msgspec.structs.replace(config, status_fd=status_fd)
                self._process = interpreter.start(
                    self._module,
                    str(other.fileno()),
                    msgspec.json.encode(config).decode(),
                    pass_fds=[other.fileno(), status_fd, *self._pass_fds],
                )
        except OSError as error:
            if own is not None:
                own.close()
            self._started = time.monotonic()
            self.failed(f"can't be started: {error}")
            return False
        finally:
            os.close(status_fd)
        self._line = self._make_line(own)
        self._hang = HangDetector(self._process.pid, status, self._silence_seconds)
        self._started = time.monotonic()
        self.starts += 1
        return True

    def send(self, state: State) -> None:
        """Send the process a state, if one runs."""
        if self._line is not None:
            self._line.send(state)

    def receive(self) -> tuple[list[Report], int | None]:
        """Return the reports that came, and the exit status of a process that has ended.

        A process that hangs is killed. After an end that is a failure, the caller calls `failed`.
        """
        if self._line is None:
            return [], None
        reports, gone = self._line.receive()
        if reports:
            self.fault = ""
        if gone:
            status = self._await_end()
            self._drop_line()
            return reports, status
        if self._hang is not None and self._process is not None:
            fault, hangs = self._hang.look()
            if hangs:
                _log.error(f"{self._name}_silent", reason=fault)
                self._process.kill()
        return reports, None

    def failed(self, reason: str) -> None:
        """Note why the process has ended, and plan the next start."""
        pause = self._backoff.pause(time.monotonic() - self._started)
        self.start_at = time.monotonic() + pause
        self.fault = reason
        _log.error(f"{self._name}_ended", reason=reason, again_in_s=pause)

    def stop(self) -> None:
        """Kill the process: what it has not finished is void."""
        if self._process is not None:
            self._process.kill()
            self._await_end()
        self._drop_line()

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
            _log.error(f"{self._name}_not_gone", pid=process.pid)
            return -signal.SIGKILL

    def _drop_line(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None
