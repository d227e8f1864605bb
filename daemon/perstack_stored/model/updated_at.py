"""Finds `updatedAt` in the text of a run setting, in the same time for every shape of it. No I/O.

Testing each token costs a hundred times as much where brackets or members are dense: a setting of 60 MB
kept the index busy for a minute, which counts as a hang. The decoder takes all shapes alike, but returns
no offsets. It returns a view of the text, though; so the text is overwritten, slice by slice,
until the view changes.
"""

import msgspec

from . import json_text
from .values import raw_updated_at

_SLICE_BYTES = 1 << 20


def span(setting: bytes) -> tuple[int, int]:
    """Start and end of the value of `updatedAt`; of the last one, if there are two."""
    try:
        text, found = raw_updated_at(setting)
    except (msgspec.DecodeError, RecursionError):  # an older daemon accepted deeper values
        tokens = json_text.span(setting, "updatedAt")
        assert tokens is not None, "updatedAt was required when it was stored"
        return tokens
    start = _start_of(memoryview(found), text)
    return start, start + len(memoryview(found))


def _start_of(view: memoryview, text: bytearray) -> int:
    """Offset at which a view of `text` begins. Overwrites the text."""
    first, last = 0, len(text)
    while last - first > 1:
        middle = first + min((last - first + 1) // 2, _SLICE_BYTES)
        other = b"\x01" if view[0] == 0 else b"\x00"
        text[first:middle] = other * (middle - first)
        if view[0] == other[0]:
            last = middle
        else:
            first = middle
    return first
