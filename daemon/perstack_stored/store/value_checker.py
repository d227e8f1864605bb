"""A process that checks large values: that can take seconds, in which the serving loop serves the others.

A thread of the daemon sends it one request's values at a time and waits for what is wrong with them.
"""

import contextlib
import os
import queue
import socket
import struct
import sys
import threading
from collections.abc import Callable, Sequence

import msgspec
import structlog

from perstack_storage.protocol import ErrorCode
from perstack_stored.errors import Refusal
from perstack_stored.model import values
from perstack_stored.process import interpreter

Items = Sequence[tuple[int, bytes | bytearray]]
Refusals = dict[int, Refusal]

CHECKER_MODULE = "perstack_stored.store.value_checker"
_COUNT = struct.Struct("<I")
_ITEM = struct.Struct("<BQ")
_LENGTH = struct.Struct("<I")
_NICE = 5  # the loop goes first
_IDLE_SECONDS = 60.0
_SILENCE_SECONDS = 120.0
_ATTEMPTS = 2
_STOP_SECONDS = 2.0

_log = structlog.get_logger()


class _Wrong(msgspec.Struct, array_like=True):
    """What is wrong with one of the values."""

    item: int
    code: str
    message: str
    field: str | None


class ValueChecker:
    """The daemon's side: one request at a time. Starts thread and process when they are first needed."""

    def __init__(self, wake: Callable[[], None]) -> None:
        """`wake` is called from the thread when something is done."""
        self._wake = wake
        self._work: queue.SimpleQueue[Items | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Refusals] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._helper: _Helper | None = None
        self._stopping = False

    def start(self, items: Items) -> None:
        """Begin to check; nothing may be under way."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="check", daemon=True)
            self._thread.start()
        self._work.put(items)

    def finished(self) -> Refusals | None:
        """What is wrong, by the number of the item; None if that is not known yet."""
        try:
            return self._done.get_nowait()
        except queue.Empty:
            return None

    def stop(self) -> None:
        """End thread and process, whatever is under way."""
        self._stopping = True
        self._work.put(None)
        helper = self._helper
        if helper is not None:
            helper.interrupt()
        if self._thread is not None:
            self._thread.join(_STOP_SECONDS)  # a check in the thread itself can't be cut short
            self._thread = None

    def _run(self) -> None:
        try:
            while True:
                try:
                    items = self._work.get(timeout=_IDLE_SECONDS if self._helper else None)
                except queue.Empty:
                    self._let_go()
                    continue
                if items is None or self._stopping:
                    return
                refusals = self._check(items)
                del items
                self._done.put(refusals)
                self._wake()
        finally:
            self._let_go()

    def _check(self, items: Items) -> Refusals:
        for _ in range(_ATTEMPTS):
            try:
                if self._helper is None:
                    self._helper = _Helper()
                if self._stopping:  # looked at after it is there for `stop` to see
                    return {}
                return self._helper.check(items)
            except OSError as error:
                self._let_go()
                if self._stopping:
                    return {}
                _log.warning("checker_ended", reason=str(error))
        # Slower for everybody, but nothing is refused for a fault of ours.
        return refusals_of(items)

    def _let_go(self) -> None:
        helper, self._helper = self._helper, None
        if helper is not None:
            helper.close()


class _Helper:
    """The process and the line to it."""

    def __init__(self) -> None:
        self._line, theirs = socket.socketpair()
        self._line.settimeout(_SILENCE_SECONDS)
        try:
            self._process = interpreter.start(
                CHECKER_MODULE, str(theirs.fileno()), pass_fds=[theirs.fileno()]
            )
        except OSError:
            self._line.close()
            raise
        finally:
            theirs.close()

    def check(self, items: Items) -> Refusals:
        """Let it check the values of a request.

        Raises:
            OSError: it has ended, or hangs.
        """
        self._line.sendall(_COUNT.pack(len(items)))
        for kind, payload in items:
            self._line.sendall(_ITEM.pack(kind, len(payload)))
            self._line.sendall(payload)
        (length,) = _LENGTH.unpack(_receive(self._line, _LENGTH.size))
        found = msgspec.json.decode(_receive(self._line, length), type=list[_Wrong])
        return {wrong.item: Refusal(ErrorCode(wrong.code), wrong.message, wrong.field) for wrong in found}

    def interrupt(self) -> None:
        """Make `check` raise; may be called from another thread."""
        with contextlib.suppress(OSError):  # it has just been let go
            self._line.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the process."""
        self._line.close()
        self._process.kill()
        self._process.wait()


def refusals_of(items: Items) -> Refusals:
    """What is wrong with values, by their number."""
    refusals: Refusals = {}
    for i, (kind, payload) in enumerate(items):
        try:
            values.check(kind, payload)
        except Refusal as refusal:
            refusals[i] = refusal
    return refusals


def _receive(line: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        got = line.recv_into(view)
        if not got:
            raise ConnectionAbortedError("the process that checks large values has ended")
        view = view[got:]
    return data


def serve(line: socket.socket) -> None:
    """The process's side: check until the line ends."""
    while True:
        (count,) = _COUNT.unpack(_receive(line, _COUNT.size))
        found = []
        for i in range(count):
            kind, size = _ITEM.unpack(_receive(line, _ITEM.size))
            wrong = refusals_of([(kind, _receive(line, size))]).get(0)
            if wrong is not None:
                found.append(_Wrong(i, wrong.code.value, wrong.message, wrong.field))
        answer = msgspec.json.encode(found)
        line.sendall(_LENGTH.pack(len(answer)) + answer)


def main() -> None:
    """Entry of the process: the descriptor of the line."""
    interpreter.ignore_group_signals()
    os.nice(_NICE)
    try:
        serve(socket.socket(fileno=int(sys.argv[1])))
    except OSError:
        sys.exit(0)  # the daemon is gone, or has no use for it


if __name__ == "__main__":
    main()
