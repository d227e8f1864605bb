"""Checks large values in a process of its own: a check can take seconds, and the loop serves meanwhile.

A thread of the daemon sends it the values of one request at a time, and waits for the result.
"""

import contextlib
import os
import queue
import socket
import struct
import sys
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import structlog

from perstack_storage.protocol import ErrorCode
from perstack_stored.errors import Refusal
from perstack_stored.model import value_check, values
from perstack_stored.process import interpreter

Items = Sequence[tuple[int, bytes | bytearray]]
Refusals = dict[int, Refusal]
Owners = dict[int, tuple[str, str]]

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
    """What is wrong with one value of a request."""

    item: int
    code: str
    message: str
    field: str | None


class _Found(msgspec.Struct, array_like=True):
    """What is wrong with the values of a request, and jobs and runs of the others by their index."""

    wrong: list[_Wrong]
    owners: Owners


class Checked(NamedTuple):
    """Result of a check, by index of the item: what is wrong, and for the others their job and run."""

    refusals: Refusals
    owners: Owners


class ValueChecker:
    """The daemon's side: checks one request at a time. Thread and process start when they are needed."""

    def __init__(self, wake: Callable[[], None]) -> None:
        """`wake` is called from the thread when a check has ended."""
        self._wake = wake
        self._work: queue.SimpleQueue[Items | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Checked] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._helper: _Helper | None = None
        self._stopping = False

    def start(self, items: Items) -> None:
        """Start a check; none may be in progress."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="check", daemon=True)
            self._thread.start()
        self._work.put(items)

    def finished(self) -> Checked | None:
        """Return the result; None while the check runs."""
        try:
            return self._done.get_nowait()
        except queue.Empty:
            return None

    def stop(self) -> None:
        """End thread and process, even during a check."""
        self._stopping = True
        self._work.put(None)
        helper = self._helper
        if helper is not None:
            helper.interrupt()
        if self._thread is not None:
            self._thread.join(_STOP_SECONDS)  # a check in the thread itself can't be interrupted
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
                checked = self._check(items)
                del items
                self._done.put(checked)
                self._wake()
        finally:
            self._let_go()

    def _check(self, items: Items) -> Checked:
        for _ in range(_ATTEMPTS):
            try:
                if self._helper is None:
                    self._helper = _Helper()
                if self._stopping:  # tested after it is set, so that `stop` sees it
                    return Checked({}, {})
                return self._helper.check(items)
            except OSError as error:
                self._let_go()
                if self._stopping:
                    return Checked({}, {})
                _log.warning("checker_ended", reason=str(error))
        # Slower for all clients, but a failed helper process refuses no store.
        return check_all(items)

    def _let_go(self) -> None:
        helper, self._helper = self._helper, None
        if helper is not None:
            helper.close()


class _Helper:
    """The process and the socket to it."""

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

    def check(self, items: Items) -> Checked:
        """Have the values of a request checked.

        Raises:
            OSError: the process has ended, or hangs.
        """
        self._line.sendall(_COUNT.pack(len(items)))
        for kind, payload in items:
            self._line.sendall(_ITEM.pack(kind, len(payload)))
            self._line.sendall(payload)
        (length,) = _LENGTH.unpack(_receive(self._line, _LENGTH.size))
        found = msgspec.json.decode(_receive(self._line, length), type=_Found)
        refusals = {one.item: Refusal(ErrorCode(one.code), one.message, one.field) for one in found.wrong}
        return Checked(refusals, found.owners)

    def interrupt(self) -> None:
        """Make `check` raise; may be called from another thread."""
        with contextlib.suppress(OSError):  # it was closed already
            self._line.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the process."""
        self._line.close()
        self._process.kill()
        self._process.wait()


def check_all(items: Items) -> Checked:
    """Check values; a deletion is small, and none of them."""
    refusals: Refusals = {}
    owners: Owners = {}
    for i, (kind, payload) in enumerate(items):
        try:
            value = value_check.check(kind, payload)
        except Refusal as refusal:
            refusals[i] = refusal
        else:
            owners[i] = values.owner_of(value)
    return Checked(refusals, owners)


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
    """The process's side: check until the socket closes."""
    while True:
        (count,) = _COUNT.unpack(_receive(line, _COUNT.size))
        found = _Found([], {})
        for i in range(count):
            kind, size = _ITEM.unpack(_receive(line, _ITEM.size))
            checked = check_all([(kind, _receive(line, size))])
            for wrong in checked.refusals.values():
                found.wrong.append(_Wrong(i, wrong.code.value, wrong.message, wrong.field))
            for owner in checked.owners.values():
                found.owners[i] = owner
        answer = msgspec.json.encode(found)
        line.sendall(_LENGTH.pack(len(answer)) + answer)


def main() -> None:
    """Entry point of the process; its argument is the descriptor of the socket."""
    interpreter.ignore_group_signals()
    os.nice(_NICE)
    try:
        serve(socket.socket(fileno=int(sys.argv[1])))
    except OSError:
        sys.exit(0)  # the daemon has ended, or closed the socket


if __name__ == "__main__":
    main()
