"""Supervisor of a worker process, in the server: starts, feeds, watches and restarts it."""

import os
import signal
import socket
import subprocess
import time

import msgspec
import structlog

from perstack_stored.journal.reader import LogPosition
from perstack_stored.process import interpreter
from perstack_stored.process.backoff import Backoff
from perstack_stored.process.hang_detector import HangDetector
from perstack_stored.process.socket_pair import pair
from perstack_stored.process.worker_status import WorkerStatus
from perstack_stored.projection.worker_config import WorkerConfig
from perstack_stored.tree.blocked import BlockedRecord, Deaths

from .channel import Report, SupervisorChannel
from .worker import DAMAGE_STATUS, INDEX_STATUS, WORKER_MODULE

_BACKOFF_SECONDS = (0.1, 0.5, 2.0, 10.0)
_STABLE_SECONDS = 30.0
# An index takes long to rebuild: where it fails repeatedly, most of the time is left to the stores.
_REBUILD_BACKOFF_SECONDS = (0.1, 2.0, 10.0, 60.0)
_REBUILD_STABLE_SECONDS = 600.0
_ENDING_SECONDS = 0.5
_LOOK_SECONDS = 0.1
_ENDING_POLL_SECONDS = 0.001

_log = structlog.get_logger()


class ProjectionProcess:
    """Supervises one worker. `place` is the log position of its last report, None until the first."""

    def __init__(self, kind: str, config: WorkerConfig, lock_fd: int) -> None:
        """Prepare it; no process starts yet.

        Args:
            kind: "index" or "tree".
            config: given to each process; some fields are set at each start.
            lock_fd: the lock of the base, which each worker holds as well.
        """
        self.kind = kind
        self.place: LogPosition | None = None
        self.fault = ""
        self.blocked = 0
        self.out_of_space = False
        self.pending = self.oldest_ms = 0  # deletions that are not erased
        self.idle = False
        self.starts = 0
        self.faults = 0
        self.rebuilds = 0
        self.heard = 0.0
        self.generation = 0
        self._config = config
        self._lock_fd = lock_fd
        self._process: subprocess.Popen[bytes] | None = None
        self._line: SupervisorChannel | None = None
        self._started = 0.0
        self._backoff = Backoff(_BACKOFF_SECONDS, _STABLE_SECONDS)
        self._rebuild_backoff = Backoff(_REBUILD_BACKOFF_SECONDS, _REBUILD_STABLE_SECONDS)
        self._rebuild_reason = ""
        self._given_up = 0.0
        self._is_rebuilt = False
        self._reported = ""  # the fault that this process reported last
        self._was_open = False  # a process has opened its files, and maybe written
        self._restart_at = 0.0
        self._status: WorkerStatus | None = None
        self._silence: HangDetector | None = None
        self._silence_fault = ""
        self._look_at = 0.0
        self._deaths = Deaths()
        self._blocked: dict[int, BlockedRecord] = {}  # not saved by a process yet
        self._dying: tuple[subprocess.Popen[bytes], SupervisorChannel | None] | None = (
            None  # killed, still there
        )

    @property
    def running(self) -> bool:
        """Whether the process was started, and has not been seen to end."""
        return self._process is not None

    @property
    def pid(self) -> int | None:
        """Process id, None if it does not run."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process. If the system has no room for one, it is tried again later."""
        try:
            self._process, line = self._spawn()
        except OSError as error:
            pause = self._backoff.pause(0.0)
            self._restart_at = time.monotonic() + pause
            self._note_fault(f"can't be started: {error}")
            _log.error("follower_not_started", follower=self.kind, reason=str(error), again_in_s=pause)
            return
        self._line = SupervisorChannel(line)
        assert self._status is not None
        self._silence = HangDetector(self._process.pid, self._status, self._config.silence_seconds)
        self._silence_fault = ""
        self._started = time.monotonic()
        self._is_rebuilt = False
        self._reported = ""
        self.starts += 1

    def _spawn(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        """Start the process. Returns it with the server's end of the channel."""
        self._status, status_fd = WorkerStatus.shared()
        try:
            own, other = pair()
        except OSError:
            os.close(status_fd)
            raise
        config = msgspec.structs.replace(
            self._config,
            lock_fd=self._lock_fd,
            at_rest=not self._was_open,
            rebuild_reason=self._rebuild_reason,
            status_fd=status_fd,
            careful_until=self._deaths.careful_until,
            blocked=tuple(self._blocked.values()),
        )
        arguments = msgspec.json.encode(config).decode()
        try:
            process = interpreter.start(
                WORKER_MODULE,
                self.kind,
                str(other.fileno()),
                arguments,
                # It holds the lock, so that no other daemon starts while a worker still writes.
                pass_fds=[other.fileno(), status_fd, self._lock_fd],
            )
        except OSError:
            own.close()
            raise
        finally:
            other.close()
            os.close(status_fd)
        return process, own

    def fileno(self) -> int | None:
        """Descriptor to poll, None if the process does not run."""
        return None if self._line is None else self._line.fileno()

    @property
    def sent(self) -> LogPosition | None:
        """The newest log position sent to it."""
        return None if self._line is None else self._line.sent

    def send(self, mark: LogPosition) -> None:
        """Send it the log position up to which the journal is synced."""
        if self._line is not None:
            self._line.send(mark)

    def send_erased(self, position: int) -> None:
        """Send it the position up to which deletions are erased."""
        if self._line is not None and position:
            self._line.send_erased(position)

    def send_aged(self, time_ms: int) -> None:
        """Send it the time in ms by which ages are counted."""
        if self._line is not None:
            self._line.send_aged(time_ms)

    def receive(self) -> bool:
        """Collect reports, and check whether it hangs. Returns whether the process is gone."""
        if self._line is None:
            return False
        report, gone = self._line.receive()
        if report is not None:
            self._take(report)
        if not gone:
            self._look()
        return gone

    def _look(self) -> None:
        """Kill a process that hangs. The next one starts when this one is really gone."""
        assert self._silence is not None
        assert self._process is not None
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_SECONDS
        fault, hangs = self._silence.look()
        if fault == self._silence_fault:
            return
        was, self._silence_fault = self._silence_fault, fault
        if fault:
            self._note_fault(fault)
            _log.error("follower_silent", follower=self.kind, reason=fault, killed=hangs)
        elif self.fault == was:
            self._note_fault(self._reported)
            _log.info("follower_goes_on", follower=self.kind)
        if hangs:
            self._process.kill()

    def _take(self, report: Report) -> None:
        self.heard = time.monotonic()
        self._note_fault(report.fault)
        self._reported = report.fault
        self.blocked = report.blocked
        self.idle = report.idle
        self.out_of_space = report.out_of_space
        self.pending, self.oldest_ms = report.pending, report.oldest_ms
        if report.rebuilt and not self._is_rebuilt:
            self._is_rebuilt = True
            self.rebuilds += 1
        self._silence_fault = ""
        if not report.fault:
            self.place = report.place
            self._was_open = True
            self._rebuild_reason = ""
            self._blocked.clear()  # the worker has saved them

    def _note_fault(self, fault: str) -> None:
        if fault and fault != self.fault:
            self.faults += 1
        self.fault = fault

    def reap(self) -> int:
        """Collect the status of a process that is gone, and plan the next start. Returns the exit status."""
        assert self._process is not None
        try:
            # The channel closes a moment before the process has ended; its status says why it ended.
            status = self._process.wait(timeout=_ENDING_SECONDS)
            self._drop_line()
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = -signal.SIGKILL
            self._await_end()
        self._process = None
        self.generation += 1
        self.place = None
        pause = self._backoff.pause(time.monotonic() - self._started)
        self._restart_at = time.monotonic() + pause
        if self._silence_fault:
            self.fault = self._silence_fault
        elif not self._reported:
            self.faults += 1
            self.fault = f"ended with status {status}"
        if not self._reported:
            self._note_death()
        if status == DAMAGE_STATUS:
            self.fault = "the journal is damaged"
        _log.error("follower_ended", follower=self.kind, status=status, reason=self.fault, restart_in_s=pause)
        if status == INDEX_STATUS and self.kind == "index":
            self.rebuild_index(self.fault)
        return status

    def _note_death(self) -> None:
        """Note a death without a reason. After two deaths at one record, that record is blocked."""
        assert self._status is not None
        if self._status.position:
            self.fault = f"{self.fault}, at record {self._status.position}"
        record = self._deaths.note(self._status)
        if record is None:
            return
        facts = {"position": record.position, "kind": record.kind}
        if self.kind == "tree":
            self._blocked[record.position] = record
            _log.error("record_passed_over", follower=self.kind, **facts, file=record.file)
        else:
            # A read must not miss acknowledged records: so the index waits here, and reports where.
            _log.error("record_stops_index", follower=self.kind, **facts)

    def _await_end(self) -> None:
        """Wait until a killed process is gone, and its helper, which holds the channel open as well.

        If the kernel can't end them yet, as while the disk hangs, the next process waits as well.
        """
        assert self._process is not None
        deadline = time.monotonic() + _ENDING_SECONDS
        self._dying, self._line = (self._process, self._line), None
        while self._is_dying():
            if time.monotonic() > deadline:
                _log.error("follower_not_gone", follower=self.kind, pid=self._process.pid)
                return
            time.sleep(_ENDING_POLL_SECONDS)

    def _is_dying(self) -> bool:
        if self._dying is None:
            return False
        process, line = self._dying
        if process.poll() is None:
            return True
        if line is not None:
            if not line.receive()[1]:
                return True
            line.close()
        self._dying = None
        return False

    def rebuild_index(self, reason: str) -> None:
        """Kill the process of an index that can't be used, and have the next one rebuild it."""
        self.stop()
        self._note_fault(reason)
        if not self._rebuild_reason:
            now = time.monotonic()
            pause = self._rebuild_backoff.pause(now - self._given_up)
            self._given_up, self._rebuild_reason = now, reason
            self._restart_at = max(self._restart_at, now + pause)
            _log.error("index_given_up", reason=reason, rebuilt_in_s=pause)

    def due(self) -> bool:
        """Whether it is time to start it again."""
        return self._process is None and time.monotonic() >= self._restart_at and not self._is_dying()

    def stop(self) -> None:
        """Kill it; the next one goes on from its cursor."""
        if self._process is not None:
            self._process.kill()
            self._await_end()
            self._process = None
            self.generation += 1
            self.place = None

    def finish(self) -> None:
        """Let it reach the last log position, within its own time limit."""
        if self._line is not None:
            self._line.finish()

    def _drop_line(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None

    def wait(self, seconds: float) -> bool:
        """Wait for a process that was asked to finish. False if it had to be killed."""
        if self._process is None:
            return True
        deadline = time.monotonic() + seconds
        while self._process.poll() is None and time.monotonic() < deadline:
            self.receive()  # otherwise it would block on a full channel
            time.sleep(0.005)
        self.receive()
        done = self._process.poll() == 0
        place = self.place
        self.stop()
        self.place = place  # the worker after this one goes as far
        return done
