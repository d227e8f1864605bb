"""The line between server and keeper: the state of the journal goes down, reports come up."""

import os
import select
import socket
import struct
from typing import NamedTuple

import msgspec

_STATE = struct.Struct("<QQ?Q")
ALL_SEGMENTS = 2**63
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
    packs: bool = True
    status_fd: int = -1


class JournalState(NamedTuple):
    """What the keeper must know.

    Attributes:
        segment: number of the open segment.
        projected: position that index and tree have reached.
        erases: deletions are not erased yet.
        free_below: number of a segment: those before it may get other bytes. A mirror ships each as it was.
    """

    segment: int = 0
    projected: int = 0
    erases: bool = False
    free_below: int = ALL_SEGMENTS


class Report(msgspec.Struct, array_like=True):
    """State of the keeper.

    Attributes:
        done_below: all segments with a lower number were packed, or can't be for now.
        segments: packed segments of the journal.
        logical_bytes: of these.
        file_bytes: of these.
        fault: why a segment could not be packed; empty if nothing is wrong.
        has_spare: the file of a packed segment is left for the next one.
        erased_to: all deletions up to this position are erased; 0 if the process has erased none.
        erased_segments: segments that were written again without what was deleted.
        erased_records: records that were erased in them.
        wants_segment: the open segment holds something to erase.
    """

    done_below: int = 0
    segments: int = 0
    logical_bytes: int = 0
    file_bytes: int = 0
    fault: str = ""
    has_spare: bool = False
    erased_to: int = 0
    erased_segments: int = 0
    erased_records: int = 0
    wants_segment: bool = False


class ServerEnd:
    """The server's end; it never blocks."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._sent = JournalState()

    def send(self, state: JournalState) -> None:
        """Send the state of the journal, once; if the socket is full, at the next call."""
        if state == self._sent:
            return
        try:
            self._socket.send(_STATE.pack(*state))
            self._sent = state
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
        self.state = JournalState()

    def wait(self, seconds: float) -> bool:
        """Wait for a state of the journal, at most this long. Returns whether one came."""
        came = False
        while self._poll.poll(0 if came else seconds * 1000):
            packet = self._socket.recv(_PACKET_BYTES_MAX)
            if not packet:
                os._exit(0)  # the server is gone
            self.state = JournalState(*_STATE.unpack(packet))
            came = True
        return came

    def report(self, report: Report) -> None:
        """Send a report."""
        report = msgspec.structs.replace(report, fault=report.fault[:_TEXT_MAX])
        try:
            self._socket.send(msgspec.json.encode(report))
        except ConnectionError:
            os._exit(0)
