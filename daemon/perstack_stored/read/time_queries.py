"""`positionAt`: the last position whose record was stored by a time."""

from typing import Any

from perstack_storage.protocol import ErrorCode
from perstack_stored.errors import Refusal
from perstack_stored.journal.reader import LogPosition
from perstack_stored.journal.segment_walk import Entry
from perstack_stored.protocol import frames
from perstack_stored.read.source import Answer, Source

from . import window_reader


def position_at(source: Source, arguments: dict[str, Any]) -> Answer:
    """The last position stored at `timeMs` or before it, 0 if none was, and when it was.

    Times of entries don't go back, but where a wrong clock was put right by more than a minute; there it is
    one of several.
    """
    until = source.indexed()
    position, time_ms = last_by(source, until, arguments["timeMs"])
    return Answer({}, iter([frames.encode({"position": position, "time": time_ms})]))


def last_by(source: Source, until: LogPosition, time_ms: float) -> tuple[int, int | None]:
    """The last position, up to `until`, whose entry was written by a time, and when; 0 and None without one.

    Each step reads some 256 KiB of the journal, and there are as many as the position has binary digits.
    """
    low, high, found = 0, until.position, None
    while low < high:
        header = _entry_of(source, (low + high + 1) // 2, until).header
        if header.time_ms <= time_ms:
            low, found = header.position + header.count - 1, header.time_ms
        else:
            high = header.position - 1
    return low, found


def _entry_of(source: Source, position: int, until: LogPosition) -> Entry:
    for entry in window_reader.entries(source.database, source.reader, position - 1, until):
        if position < entry.header.position + entry.header.count:
            return entry
    raise Refusal(ErrorCode.DAMAGED, f"position {position} is missing in the journal")
