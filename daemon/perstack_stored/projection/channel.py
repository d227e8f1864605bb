"""The line between the server and a follower: marks go down, reports come up, each a packet of its own.

A mark says up to where the journal is synced. A report says how far the follower has come. Only the newest
of either counts, so a full line loses nothing that matters.
"""

import os
import select
import socket
import struct
from typing import NamedTuple

from perstack_stored.journal.reader import LogPosition

_MARK = struct.Struct("<QQQ")
_REPORT = struct.Struct("<QQQQ???")
_PACKET_BYTES_MAX = 2048


class Report(NamedTuple):
    """How far a follower has come.

    `blocked` counts files it couldn't have, `fault` is what stops it; `short`: the disk has no room for more;
    `rebuilt`: this process made the index anew, since the one before could not be used.
    """

    place: LogPosition
    blocked: int
    idle: bool
    fault: str
    out_of_space: bool = False
    rebuilt: bool = False


class SupervisorChannel:
    """The server's end: never blocks."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self.sent: LogPosition | None = None

    def fileno(self) -> int:
        """Descriptor to poll for reports."""
        return self._socket.fileno()

    def send(self, mark: LogPosition) -> None:
        """Tell the follower up to where it may read; when the line is full, the next call tries again."""
        if mark == self.sent:
            return
        try:
            self._socket.send(_MARK.pack(*mark))
            self.sent = mark
        except (BlockingIOError, ConnectionError):
            pass

    def receive(self) -> tuple[Report | None, bool]:
        """The newest report, if any came, and whether the follower is gone."""
        newest = None
        is_reset = False
        while True:
            try:
                packet = self._socket.recv(_PACKET_BYTES_MAX)
            except BlockingIOError:
                return newest, False
            except ConnectionError:
                if is_reset:
                    return newest, True
                # It ended with marks unread: that is told first, and its last reports behind it.
                is_reset = True
                continue
            if not packet:
                return newest, True
            *place, blocked, idle, out_of_space, rebuilt = _REPORT.unpack_from(packet)
            fault = packet[_REPORT.size :].decode(errors="replace")
            newest = Report(LogPosition(*place), blocked, idle, fault, out_of_space, rebuilt)

    def finish(self) -> None:
        """Let the follower come to the last mark and end."""
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Cut the line."""
        self._socket.close()


class WorkerChannel:
    """The follower's end."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self.mark = LogPosition(0, 0, 0)
        self.finishing = False

    def wait(self, seconds: float) -> None:
        """Take in the newest mark; wait for one at most so long (0: don't wait)."""
        while not self.finishing and self._poll.poll(seconds * 1000):
            packet = self._socket.recv(_PACKET_BYTES_MAX)
            if not packet:
                self.finishing = True
                return
            self.mark = LogPosition(*_MARK.unpack(packet))
            seconds = 0

    def report(self, report: Report) -> None:
        """Say how far we are. A server that is gone ends the follower."""
        fault = report.fault.encode()[: _PACKET_BYTES_MAX - _REPORT.size]
        try:
            facts = _REPORT.pack(
                *report.place, report.blocked, report.idle, report.out_of_space, report.rebuilt
            )
            self._socket.send(facts + fault)
        except ConnectionError:
            os._exit(1)
