"""The line between server and keeper: the state of the journal goes down, reports come up."""

import socket
import struct
from typing import NamedTuple

import msgspec

from perstack_stored.process.line import ChildEnd, ChildReport, ServerEnd

_STATE = struct.Struct("<QQ?Q")
ALL_SEGMENTS = 2**63


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


class Report(ChildReport, array_like=True):
    """State of the keeper.

    Attributes:
        done_below: all segments with a lower number were packed, or can't be for now.
        segments: packed segments of the journal.
        logical_bytes: of these.
        file_bytes: of these.
        has_spare: the file of a packed segment is left for the next one.
        erased_to: all deletions up to this position are erased; 0 if the process has erased none.
        erased_segments: segments that were written again without what was deleted.
        erased_records: records that were erased in them.
        wants_segment: the open segment holds something to erase.
        erase_fault: why a deletion can't be erased until somebody acts; empty if nothing is wrong.
    """

    done_below: int = 0
    segments: int = 0
    logical_bytes: int = 0
    file_bytes: int = 0
    has_spare: bool = False
    erased_to: int = 0
    erased_segments: int = 0
    erased_records: int = 0
    wants_segment: bool = False
    erase_fault: str = ""


class KeeperEnd(ChildEnd[JournalState, Report]):
    """The keeper's end."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock, _unpack, JournalState())


def server_end(sock: socket.socket) -> ServerEnd[JournalState, Report]:
    """The server's end."""
    return ServerEnd(sock, lambda state: _STATE.pack(*state), Report)


def _unpack(packet: bytes) -> JournalState:
    return JournalState(*_STATE.unpack(packet))
