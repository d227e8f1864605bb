"""The line between the server and a child process: a state goes down, reports come up, each a packet.

Only the newest state counts, so a full socket loses nothing that matters. The child ends with the server.
`projection/channel.py` sends and receives packets of its own in the same way.
"""

import contextlib
import os
import select
import socket
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

PACKET_BYTES_MAX = 4096
_TEXT_MAX = 400


class ChildReport(msgspec.Struct, array_like=True):
    """What a child process reports.

    Attributes:
        fault: why it can't go on, or what it could not do; empty if nothing is wrong.
    """

    fault: str = ""


State = TypeVar("State")
Report = TypeVar("Report", bound=ChildReport)


def send_packet(sock: socket.socket, packet: bytes) -> bool:
    """Send a packet. Returns whether it was sent: the socket may be full, or the other end gone."""
    try:
        sock.send(packet)
    except (BlockingIOError, ConnectionError):
        return False
    return True


def receive_packet(sock: socket.socket) -> bytes:
    """Return the next packet; empty if the other end is gone."""
    for _ in range(2):
        with contextlib.suppress(ConnectionError):
            return sock.recv(PACKET_BYTES_MAX)
        # It ended with packets unread: the kernel reports that once, and its last packets after it.
    return b""


def receive_packets(sock: socket.socket) -> tuple[list[bytes], bool]:
    """Return the packets that came to a socket that does not block, and whether the other end is gone."""
    packets: list[bytes] = []
    while True:
        try:
            packet = receive_packet(sock)
        except BlockingIOError:
            return packets, False
        if not packet:
            return packets, True
        packets.append(packet)


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
        if send_packet(self._socket, self._pack(state)):
            self._sent = state

    def receive(self) -> tuple[list[Report], bool]:
        """Return the reports that came, and whether the process is gone."""
        packets, is_gone = receive_packets(self._socket)
        return [msgspec.json.decode(packet, type=self._report_type) for packet in packets], is_gone

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
            packet = receive_packet(self._socket)
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
