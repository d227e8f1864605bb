"""A second process that writes half of the files while the tree lags: one process can't use a second core.

Whole jobs are divided, so that within a job files appear in the order of the journal. Both processes read the
same slice and divide it alike; the next slice begins when both are done. The first process owns the cursor.
"""

import contextlib
import os
import select
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from typing import NamedTuple

import structlog

from perstack_stored.journal.reader import LogPosition
from perstack_stored.journal.segment_walk import Entry
from perstack_stored.process.hang_detector import HangDetector
from perstack_stored.process.socket_pair import pair
from perstack_stored.process.worker_status import WorkerStatus

HELPED_LAG_RECORDS = 2048
"""The helper is used only if the tree lags by more records: small slices are not worth dividing."""
IDLE_SECONDS = 10.0
"""A helper is stopped after it was idle this long."""
_LOOK_MS = 500
_PAUSE_SECONDS = 60.0
_SLICE = struct.Struct("<QQQQQQQ")
_DONE = struct.Struct("<?Q")

StartHelper = Callable[[int, int], "subprocess.Popen[bytes]"]

_log = structlog.get_logger()


class Slice(NamedTuple):
    """A piece of the journal to divide, and the position after which it is written."""

    place: LogPosition
    until: LogPosition
    position: int

    def pack(self) -> bytes:
        """Encode it for the socket."""
        return _SLICE.pack(*self.place, *self.until, self.position)

    @classmethod
    def unpack(cls, data: bytes) -> "Slice":
        """Decode it from the socket."""
        numbers = _SLICE.unpack(data)
        return cls(LogPosition(*numbers[:3]), LogPosition(*numbers[3:6]), numbers[6])


class ParallelWriter:
    """The first process's side: starts the helper on demand, and works without it if it fails."""

    def __init__(self, start: StartHelper, status: WorkerStatus, silence_seconds: float) -> None:
        """Prepare it; no process starts yet.

        Args:
            start: starts the process with descriptors of the socket and of its status.
            status: of this process; it shows progress as long as the helper does.
            silence_seconds: a helper without progress for this long is stopped.
        """
        self._start_process = start
        self._status = status
        self._silence_seconds = silence_seconds
        self._silence: HangDetector | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
        self._not_before = 0.0
        self.blocked = 0

    @property
    def running(self) -> bool:
        """Whether a helper runs."""
        return self._process is not None

    def ask(self, piece: Slice) -> bool:
        """Ask the helper to write its part of a slice; False if no helper is available."""
        if self._line is None and not self._start():
            return False
        assert self._line is not None
        try:
            self._line.send(piece.pack())
        except OSError as error:
            self._give_up(str(error))
            return False
        return True

    def finish(self) -> bool:
        """Wait for the helper's part; False if this process must write that part itself."""
        assert self._line is not None
        try:
            if not self._await_answer(self._line):
                return False
            answer = self._line.recv(_DONE.size)
        except OSError as error:
            self._give_up(str(error))
            return False
        if len(answer) != _DONE.size:
            self._give_up("it has ended")
            return False
        done, blocked = _DONE.unpack(answer)
        self.blocked += blocked
        return bool(done)

    def _await_answer(self, line: socket.socket) -> bool:
        """Wait for the helper's answer while it makes progress."""
        assert self._silence is not None
        poll = select.poll()
        poll.register(line, select.POLLIN)
        while not poll.poll(_LOOK_MS):
            reason, hangs = self._silence.look()
            if hangs:
                self._give_up(reason)
                return False
            self._status.beat()  # this process waits for the helper, which is watched here
        return True

    def stop(self) -> None:
        """Stop the helper."""
        if self._line is not None:
            self._line.close()
            self._line = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _start(self) -> bool:
        if time.monotonic() < self._not_before:
            return False
        try:
            self._process, self._line = self._spawn()
        except OSError as error:
            self._give_up(str(error))
            return False
        return True

    def _spawn(self) -> tuple["subprocess.Popen[bytes]", socket.socket]:
        status, status_fd = WorkerStatus.shared()
        try:
            own, other = pair()
            try:
                process = self._start_process(other.fileno(), status_fd)
            except OSError:
                own.close()
                raise
            finally:
                other.close()
        finally:
            os.close(status_fd)
        self._silence = HangDetector(process.pid, status, self._silence_seconds)
        return process, own

    def _give_up(self, reason: str) -> None:
        _log.warning("tree_helper_ended", reason=reason)
        self.stop()
        self._not_before = time.monotonic() + _PAUSE_SECONDS


def serve(line: socket.socket, write_slice: Callable[[Slice], int | None]) -> None:
    """The helper's side: write slices until the socket closes.

    Args:
        line: the socket to the first process.
        write_slice: writes a part; returns the count of files that are blocked, None if it failed.
    """
    # Where the first process was killed before it read an answer, the socket is reset, not closed.
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        while packet := line.recv(_SLICE.size):
            blocked = write_slice(Slice.unpack(packet))
            line.send(_DONE.pack(blocked is not None, blocked or 0))
    os._exit(0)


def slice_of(entries: list[Entry], until: LogPosition, position: int) -> Slice:
    """The slice that the entries are."""
    first = entries[0]
    return Slice(LogPosition(first.header.position - 1, first.segment, first.offset), until, position)
