"""What stands in the journal in place of a lost record: a gap, with what the index knew of it. No I/O.

A gap is a record of the kind `Kind.GAP`, so it keeps the position; its payload is empty, or the JSON object
drawn in proto/journal.md.
"""

from typing import NamedTuple

import msgspec


class Gap(msgspec.Struct, omit_defaults=True):
    """What is known of a lost record; nothing, if all is empty."""

    op: str = ""  # how it was stored
    jobId: str = ""  # noqa: N815 - as in the values
    runId: str = ""  # noqa: N815
    id: str = ""  # of a job or checkpoint
    timestamp: float = 0  # of an event, as are those below
    stepNumber: int = 0  # noqa: N815
    type: str = ""
    n: int = 0  # the event's number among those that would share its file, from 1
    length: int = 0
    crc: int = 0
    isRepeat: bool = False  # noqa: N815 - an event that repeats an earlier one
    isOlder: bool = False  # noqa: N815 - a newer version was stored behind it, or it was a setting stored again
    touched: list[
        tuple[str, str, float]
    ] = []  # job, run, updatedAt: settings that may have been stored again

    @property
    def job(self) -> str:
        """The job that it belonged to, if that is known."""
        return self.jobId or (self.id if self.op == "storeJob" else "")


class GapRange(NamedTuple):
    """Consecutive positions that were lost."""

    first: int
    last: int


_decoder = msgspec.json.Decoder(Gap)
_encode = msgspec.json.Encoder().encode


def encode(gap: Gap) -> bytes:
    """Payload of a gap's record."""
    text = _encode(gap)
    return b"" if text == b"{}" else text


def decode(payload: bytes | bytearray | memoryview) -> Gap:
    """What the payload of a gap's record says."""
    return _decoder.decode(payload) if payload else Gap()


def add(ranges: list[GapRange], position: int) -> None:
    """Add a lost position behind those of the ranges."""
    if ranges and ranges[-1].last == position - 1:
        ranges[-1] = GapRange(ranges[-1].first, position)
    else:
        ranges.append(GapRange(position, position))
