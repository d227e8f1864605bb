"""The line between server and keeper: the number of the open segment goes down, reports come up."""

import os
import select
import socket
import struct

import msgspec

_NUMBER = struct.Struct("<Q")
_PACKET_BYTES_MAX = 4096
_TEXT_MAX = 400


class KeeperConfig(msgspec.Struct):
    """Configuration of the process, passed as JSON on its command line."""

    base: str
    parent: int
    log_json: bool
    log_level: str
    bytes_per_second: int
    segment_bytes: int
    exchange: bool = True
    status_fd: int = -1


class Report(msgspec.Struct, array_like=True):
    """State of the keeper.

    Attributes:
        done_below: all segments with a lower number were packed, or can't be for now.
        segments: packed segments of the journal.
        logical_bytes: of these.
        file_bytes: of these.
        fault: why a segment could not be packed; empty if nothing is wrong.
        has_spare: the file of a packed segment is left for the next one.
    """

    done_below: int = 0
    segments: int = 0
    logical_bytes: int = 0
    file_bytes: int = 0
    fault: str = ""
    has_spare: bool = False


class ServerEnd:
    """The server's end; it never blocks."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._sent = 0

    def send(self, number: int) -> None:
        """Send the number of the open segment, once; if the socket is full, at the next call."""
        if number == self._sent:
            return
        try:
            self._socket.send(_NUMBER.pack(number))
            self._sent = number
        except (BlockingIOError, ConnectionError):
            pass

    def receive(self) -> tuple[list[Report], bool]:
        """Return the reports that came, and whether the process is gone."""
        reports: list[Report] = []
        while True:
            try:
                packet = self._socket.recv(_PACKET_BYTES_MAX)
            except BlockingIOError:
                return reports, False
            except ConnectionError:
                return reports, True
            if not packet:
                return reports, True
            reports.append(msgspec.json.decode(packet, type=Report))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class KeeperEnd:
    """The keeper's end."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self.number = 0

    def wait(self, seconds: float) -> bool:
        """Wait for a number of the open segment, at most this long. Returns whether one came."""
        came = False
        while self._poll.poll(0 if came else seconds * 1000):
            packet = self._socket.recv(_PACKET_BYTES_MAX)
            if not packet:
                os._exit(0)  # the server is gone
            (self.number,) = _NUMBER.unpack(packet)
            came = True
        return came

    def report(self, report: Report) -> None:
        """Send a report."""
        report = msgspec.structs.replace(report, fault=report.fault[:_TEXT_MAX])
        try:
            self._socket.send(msgspec.json.encode(report))
        except ConnectionError:
            os._exit(0)
