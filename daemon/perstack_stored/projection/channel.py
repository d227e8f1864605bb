"""The channel between server and worker: log positions go down, reports come up, each a packet of its own.

A log position says up to where the journal is synced; a report says how far the worker has come. What is
erased, and the time by which ages are counted, go down as well. Only the newest of each counts, so a full
socket loses nothing that matters.
"""

import os
import select
import socket
import struct
from typing import NamedTuple

from perstack_stored.journal.reader import LogPosition
from perstack_stored.process.line import receive_packet, receive_packets, send_packet

_MARK = struct.Struct("<QQQ")
_FACT = struct.Struct("<BQ")
_ERASED, _AGED = 1, 2  # kinds of facts
_AGED_STEP_MS = 1000
_REPORT = struct.Struct("<QQQQ???QQ")
_REPORT_BYTES_MAX = 2048


class Report(NamedTuple):
    """Progress of a worker.

    `blocked` counts files that it can't write, `fault` stops it; `out_of_space`: the disk has no room for it;
    `rebuilt`: this process rebuilt the index, because the earlier one could not be used; `pending` deletions
    are not erased, the oldest is of `oldest_ms`.
    """

    place: LogPosition
    blocked: int
    idle: bool
    fault: str
    out_of_space: bool = False
    rebuilt: bool = False
    pending: int = 0
    oldest_ms: int = 0


class SupervisorChannel:
    """The server's end; it never blocks."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self.sent: LogPosition | None = None
        self._erased = self._aged_ms = 0

    def fileno(self) -> int:
        """Descriptor to poll for reports."""
        return self._socket.fileno()

    def send(self, mark: LogPosition) -> None:
        """Send the worker the log position up to which it may read; if the socket is full, later."""
        if mark == self.sent:
            return
        if send_packet(self._socket, _MARK.pack(*mark)):
            self.sent = mark

    def send_erased(self, position: int) -> None:
        """Send the worker the position up to which deletions are erased; if the socket is full, later."""
        if position == self._erased:
            return
        if send_packet(self._socket, _FACT.pack(_ERASED, position)):
            self._erased = position

    def send_aged(self, time_ms: int) -> None:
        """Send the worker the time in ms by which ages are counted; if the socket is full, later."""
        if abs(time_ms - self._aged_ms) < _AGED_STEP_MS:
            return
        if send_packet(self._socket, _FACT.pack(_AGED, time_ms)):
            self._aged_ms = time_ms

    def receive(self) -> tuple[Report | None, bool]:
        """Return the newest report, if any came, and whether the worker is gone."""
        packets, is_gone = receive_packets(self._socket)
        if not packets:
            return None, is_gone
        position, segment, offset, blocked, idle, *facts = _REPORT.unpack_from(packets[-1])
        fault = packets[-1][_REPORT.size :].decode(errors="replace")
        return Report(LogPosition(position, segment, offset), blocked, idle, fault, *facts), is_gone

    def finish(self) -> None:
        """Let the worker reach the last position, and end."""
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class WorkerChannel:
    """The worker's end.

    Attributes:
        mark: up to where it may read; its segment is 0 until the first came.
        erased: position up to which deletions are erased.
        aged_ms: the server's time by which ages are counted, in ms since 1970; 0 until it came.
        finishing: it is to end.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self.mark = LogPosition(0, 0, 0)
        self.erased = self.aged_ms = 0
        self.finishing = False

    def wait(self, seconds: float) -> None:
        """Receive the newest log position; wait for one at most this long (0: don't wait)."""
        while not self.finishing and self._poll.poll(seconds * 1000):
            packet = receive_packet(self._socket)
            if not packet:
                self.finishing = True
                return
            self._take(packet)
            seconds = 0

    def _take(self, packet: bytes) -> None:
        if len(packet) == _MARK.size:
            self.mark = LogPosition(*_MARK.unpack(packet))
            return
        kind, number = _FACT.unpack(packet)
        if kind == _ERASED:
            self.erased = number
        else:
            self.aged_ms = number

    def report(self, report: Report) -> None:
        """Send a report. If the server is gone, the worker ends."""
        fault = report.fault.encode()[: _REPORT_BYTES_MAX - _REPORT.size]
        try:
            place, blocked, idle, _, *more = report
            facts = _REPORT.pack(*place, blocked, idle, *more)
            self._socket.send(facts + fault)
        except ConnectionError:
            os._exit(1)
