"""Gaps: records that stand in for lost or erased ones, with what is known or needed of them. No I/O.

A gap is a record of the kind `Kind.GAP`, so it keeps the position; its payload is empty, or the JSON object
described in proto/journal.md.
"""

from typing import NamedTuple

import msgspec


class Gap(msgspec.Struct, omit_defaults=True):
    """Known facts of a lost record; all fields may be empty. With `removed` it was erased, not lost."""

    removed: int = 0  # position of the deletion that removed the record
    op: str = ""  # the operation that stored it
    jobId: str = ""  # noqa: N815 - as in the values
    runId: str = ""  # noqa: N815
    id: str = ""  # of a job or checkpoint
    expertKey: str = ""  # noqa: N815 - of a setting that a redaction removed
    timestamp: float = 0  # of an event, as are the next fields
    stepNumber: int = 0  # noqa: N815
    type: str = ""
    n: int = 0  # the event's number among those that would share its file, from 1
    length: int = 0
    crc: int = 0
    isRepeat: bool = False  # noqa: N815 - an event that repeats an earlier one
    isOlder: bool = False  # noqa: N815 - a newer version was stored after it, or it was a setting stored again
    touched: list[
        tuple[str, str, float]
    ] = []  # job, run, updatedAt: settings that may have been stored again

    @property
    def job(self) -> str:
        """The job of the lost record, if known."""
        return self.jobId or (self.id if self.op == "storeJob" else "")


class GapRange(NamedTuple):
    """A range of consecutive lost positions."""

    first: int
    last: int


_decoder = msgspec.json.Decoder(Gap)
_encode = msgspec.json.Encoder().encode


def encode(gap: Gap) -> bytes:
    """Encode the payload of a gap's record."""
    text = _encode(gap)
    return b"" if text == b"{}" else text


def encode_padded(gap: Gap, length: int) -> bytes:
    """Encode the payload of a gap in the place of one of `length` bytes: blanks fill the rest.

    Raises:
        ValueError: it has no room there.
    """
    text = _encode(gap)
    if len(text) > length:
        text = _encode(Gap(removed=gap.removed))
    if len(text) > length:
        raise ValueError(f"{length} bytes have no room for a gap")
    return text.ljust(length)


def decode(payload: bytes | bytearray | memoryview) -> Gap:
    """Decode the payload of a gap's record."""
    return _decoder.decode(payload) if payload else Gap()


def add(ranges: list[GapRange], position: int) -> None:
    """Append a lost position to ranges; it must be after their last one."""
    if ranges and ranges[-1].last == position - 1:
        ranges[-1] = GapRange(ranges[-1].first, position)
    else:
        ranges.append(GapRange(position, position))
