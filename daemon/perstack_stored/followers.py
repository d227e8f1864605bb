"""The server's side of the followers: starting, feeding and watching them."""

import subprocess
import sys
import time

import msgspec
import structlog

from . import link
from .follower import DAMAGE_STATUS, Place
from .link import Report, ServerEnd
from .segments import Mark

_BACKOFF_SECONDS = (0.1, 0.5, 2.0, 10.0)
_STABLE_SECONDS = 30.0
_ENDING_SECONDS = 0.5

_log = structlog.get_logger()


class Follower:
    """One follower process. `place` is how far it has come, None until its first report."""

    def __init__(self, kind: str, told: Place, lock_fd: int) -> None:
        self.kind = kind
        self.place: Mark | None = None
        self.fault = ""
        self.blocked = 0
        self.short = False
        self.idle = False
        self.starts = 0
        self.heard = 0.0
        self.generation = 0
        self._told = told
        self._lock_fd = lock_fd
        self._process: subprocess.Popen[bytes] | None = None
        self._line: ServerEnd | None = None
        self._started = 0.0
        self._failures = 0
        self._restart_at = 0.0

    @property
    def running(self) -> bool:
        """Whether the process was started, and has not been seen to end."""
        return self._process is not None

    @property
    def pid(self) -> int | None:
        """Process id, None if it does not run."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process."""
        ours, theirs = link.pair()
        told = msgspec.structs.replace(self._told, lock_fd=self._lock_fd, at_rest=self.starts == 0)
        arguments = msgspec.json.encode(told).decode()
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "perstack_stored.follower", self.kind, str(theirs.fileno()), arguments],
            # With the lock, so that no other daemon starts while a follower still writes.
            pass_fds=[theirs.fileno(), self._lock_fd],
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        self._line = ServerEnd(ours)
        self._started = time.monotonic()
        self.starts += 1

    def fileno(self) -> int | None:
        """Descriptor to poll, None if the process does not run."""
        return None if self._line is None else self._line.fileno()

    @property
    def sent(self) -> Mark | None:
        """The newest mark that it was told."""
        return None if self._line is None else self._line.sent

    def send(self, mark: Mark) -> None:
        """Tell it up to where the journal is synced."""
        if self._line is not None:
            self._line.send(mark)

    def receive(self) -> bool:
        """Take in reports. True if the process is gone."""
        if self._line is None:
            return False
        report, gone = self._line.receive()
        if report is not None:
            self._take(report)
        return gone

    def _take(self, report: Report) -> None:
        self.heard = time.monotonic()
        self.fault = report.fault
        self.blocked = report.blocked
        self.idle = report.idle
        self.short = report.short
        if not report.fault:
            self.place = report.place

    def reap(self) -> None:
        """Clean up behind a process that is gone, and plan to start it again."""
        assert self._process is not None
        self._drop_line()
        try:
            # The line is closed a moment before the process has ended, and its status says why it did.
            status = self._process.wait(timeout=_ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        self._process = None
        self.generation += 1
        self.place = None
        if time.monotonic() - self._started > _STABLE_SECONDS:
            self._failures = 0
        pause = _BACKOFF_SECONDS[min(self._failures, len(_BACKOFF_SECONDS) - 1)]
        self._failures += 1
        self._restart_at = time.monotonic() + pause
        self.fault = "the journal is damaged" if status == DAMAGE_STATUS else f"ended with status {status}"
        _log.error("follower_ended", follower=self.kind, status=status, restart_in_s=pause)

    def due(self) -> bool:
        """Whether it is time to start it again."""
        return self._process is None and time.monotonic() >= self._restart_at

    def stop(self) -> None:
        """End it at once; it goes on from its cursor."""
        if self._process is not None:
            self._drop_line()
            self._process.kill()
            self._process.wait()
            self._process = None
            self.generation += 1
            self.place = None

    def finish(self) -> None:
        """Let it come to the last mark, within its own bound of time."""
        if self._line is not None:
            self._line.finish()

    def _drop_line(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None

    def wait(self, seconds: float) -> bool:
        """Wait for a process that was told to finish. False if it had to be killed."""
        if self._process is None:
            return True
        deadline = time.monotonic() + seconds
        while self._process.poll() is None and time.monotonic() < deadline:
            self.receive()  # or it would block on a full line
            time.sleep(0.005)
        self.receive()
        done = self._process.poll() == 0
        place = self.place
        self.stop()
        self.place = place  # the follower behind this one goes as far
        return done
