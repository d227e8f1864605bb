"""The line between the server and a child process: a state goes down, reports come up, each a packet.

Only the newest state counts, so a full socket loses nothing that matters. The child ends with the server.
"""

import os
import select
import socket
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

_PACKET_BYTES_MAX = 4096
_TEXT_MAX = 400


class ChildReport(msgspec.Struct, array_like=True):
    """What a child process reports.

    Attributes:
        fault: why it can't go on, or what it could not do; empty if nothing is wrong.
    """

    fault: str = ""


State = TypeVar("State")
Report = TypeVar("Report", bound=ChildReport)


class ServerEnd(Generic[State, Report]):
    """The server's end; it never blocks."""

    def __init__(
        self, sock: socket.socket, pack: Callable[[State], bytes], report_type: type[Report]
    ) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._pack = pack
        self._report_type = report_type
        self._sent: State | None = None

    def send(self, state: State) -> None:
        """Send the state, once; if the socket is full, at the next call."""
        if state == self._sent:
            return
        try:
            self._socket.send(self._pack(state))
            self._sent = state
        except (BlockingIOError, ConnectionError):
            pass

    def receive(self) -> tuple[list[Report], bool]:
        """Return the reports that came, and whether the process is gone."""
        reports: list[Report] = []
        is_reset = False
        while True:
            try:
                packet = self._socket.recv(_PACKET_BYTES_MAX)
            except BlockingIOError:
                return reports, False
            except ConnectionError:
                if is_reset:
                    return reports, True
                # It ended with states unread: the kernel reports that first, its last reports after it.
                is_reset = True
                continue
            if not packet:
                return reports, True
            reports.append(msgspec.json.decode(packet, type=self._report_type))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class ChildEnd(Generic[State, Report]):
    """The child's end. `state` is the newest that came."""

    def __init__(self, sock: socket.socket, unpack: Callable[[bytes], State], first: State) -> None:
        self._socket = sock
        self._unpack = unpack
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self.state = first

    def wait(self, seconds: float) -> bool:
        """Wait for a state, at most this long; returns whether one came. Ends with the server."""
        came = False
        while self._poll.poll(0 if came else seconds * 1000):
            packet = self._socket.recv(_PACKET_BYTES_MAX)
            if not packet:
                os._exit(0)  # the server is gone
            self.state = self._unpack(packet)
            came = True
        return came

    def report(self, report: Report) -> None:
        """Send a report."""
        report = msgspec.structs.replace(report, fault=report.fault[:_TEXT_MAX])
        try:
            self._socket.send(msgspec.json.encode(report))
        except ConnectionError:
            os._exit(0)
