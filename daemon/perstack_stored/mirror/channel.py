"""The line between server and mirror: the synced log position goes down, reports come up."""

import socket
import struct

import msgspec

from perstack_stored.journal.reader import LogPosition
from perstack_stored.process.line import ChildEnd, ChildReport, ServerEnd

_PLACE = struct.Struct("<QQQ")


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


class Report(ChildReport, array_like=True):
    """State of the mirror.

    Attributes:
        place: log position up to which the bucket holds the journal: position, segment, offset. None until
            it was found in the bucket.
        pieces: objects that this process made.
        stored_bytes: of these.
        logical_bytes: of the journal in these.
        is_over: another history is there: no other try may succeed.
        replaced: segments that were erased in, and that this process replaced in the bucket.
        to_replace: segments that were erased in, and wait to be replaced.
        replace_fault: why they are not; empty if nothing is wrong.
    """

    place: tuple[int, int, int] | None = None
    pieces: int = 0
    stored_bytes: int = 0
    logical_bytes: int = 0
    is_over: bool = False
    replaced: int = 0
    to_replace: int = 0
    replace_fault: str = ""


class MirrorEnd(ChildEnd[LogPosition | None, Report]):
    """The mirror's end; its state is the synced log position, None before the first."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock, _unpack, None)


def server_end(sock: socket.socket) -> ServerEnd[LogPosition, Report]:
    """The server's end."""
    return ServerEnd(sock, lambda mark: _PLACE.pack(*mark), Report)


def _unpack(packet: bytes) -> LogPosition:
    return LogPosition(*_PLACE.unpack(packet))
