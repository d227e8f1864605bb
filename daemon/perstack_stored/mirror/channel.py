"""The line between server and mirror: the synced log position goes down, reports come up."""

import os
import select
import socket
import struct

import msgspec

from perstack_stored.journal.reader import LogPosition

_PLACE = struct.Struct("<QQQ")
_PACKET_BYTES_MAX = 4096
_TEXT_MAX = 400


class MirrorConfig(msgspec.Struct):
    """Configuration of the process, passed as JSON on its command line. It has no secret."""

    base: str
    parent: int
    log_json: bool
    log_level: str
    url: str
    is_of_tree: bool = False
    endpoint: str = ""
    credentials: str = ""
    status_fd: int = -1


class Report(msgspec.Struct, array_like=True):
    """State of the mirror.

    Attributes:
        place: log position up to which the bucket holds the journal: position, segment, offset. None until
            it was found in the bucket.
        pieces: objects that this process made.
        stored_bytes: of these.
        logical_bytes: of the journal in these.
        fault: why it can't go on; empty if nothing is wrong.
        is_over: another history is there: no other try may succeed.
    """

    place: tuple[int, int, int] | None = None
    pieces: int = 0
    stored_bytes: int = 0
    logical_bytes: int = 0
    fault: str = ""
    is_over: bool = False


class ServerEnd:
    """The server's end; it never blocks."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._sent: LogPosition | None = None

    def send(self, mark: LogPosition) -> None:
        """Send the synced log position, once; if the socket is full, at the next call."""
        if mark == self._sent:
            return
        try:
            self._socket.send(_PLACE.pack(*mark))
            self._sent = mark
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


class MirrorEnd:
    """The mirror's end."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self.mark: LogPosition | None = None

    def wait(self, seconds: float) -> None:
        """Wait for a synced log position, at most this long. Ends the process if the server is gone."""
        came = False
        while self._poll.poll(0 if came else seconds * 1000):
            packet = self._socket.recv(_PACKET_BYTES_MAX)
            if not packet:
                os._exit(0)  # the server is gone
            self.mark = LogPosition(*_PLACE.unpack(packet))
            came = True

    def report(self, report: Report) -> None:
        """Send a report."""
        report = msgspec.structs.replace(report, fault=report.fault[:_TEXT_MAX])
        try:
            self._socket.send(msgspec.json.encode(report))
        except ConnectionError:
            os._exit(0)
