"""Counts the nesting of JSON: each Python and each JSON library has a bound of its own. No I/O.

All functions take linear time, walk without recursion, and hold a slice of the text at a time.
"""

import re
from itertools import accumulate

import msgspec

NESTING_MAX = 860
"""Maximum depth of objects and arrays in a value, itself included.

It covers what older daemons promised (about 850), and every reader can open it: 1,024 levels in orjson, 1,000
less the caller's own calls in Python's json.
"""
SHALLOW_BYTES = 2 * NESTING_MAX
"""Text of at most this size can't be nested more deeply."""

_SLICE_BYTES = 1 << 20
_ROOM_MIN = 16  # levels
_STEPS_EXACT = 1024
_QUOTE = ord('"')
# An opening bracket becomes 1, a closing one -1 as a signed byte; quotes stay, all other bytes go.
_STEPS = bytes.maketrans(b"{[}]", b"\x01\x01\xff\xff")
_REST = bytes(byte for byte in range(256) if byte not in b'{[}]"')
# Up to the next bracket outside of strings. Possessive: nothing is kept for backtracking.
_BRACKET = re.compile(rb'(?:[^"{}\[\]]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+[{}\[\]]', re.DOTALL)


def is_too_deep(text: bytes | bytearray) -> bool:
    """Whether a value is nested more deeply than `NESTING_MAX`. For invalid JSON either may result."""
    if len(text) <= SHALLOW_BYTES or (len(text) <= _SLICE_BYTES and not _opens_many(text, NESTING_MAX)):
        return False
    depth = start = 0
    in_string = False
    while start < len(text):
        piece = bytes(text[start : start + _SLICE_BYTES])
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2:  # an escape is not cut in two
            piece = bytes(text[start : start + _SLICE_BYTES + 1])
        start += len(piece)
        outside, in_string = steps_outside_strings(piece, in_string=in_string)
        at = 0
        while at < len(outside):
            # At a distance from the bound, brackets are counted in groups; close to it, one by one.
            room = NESTING_MAX - depth
            steps = outside[at : at + (room if room >= _ROOM_MIN else _STEPS_EXACT)]
            if room < _ROOM_MIN and max(accumulate(memoryview(steps).cast("b"), initial=depth)) > NESTING_MAX:
                return True
            depth += 2 * steps.count(b"\x01") - len(steps)
            at += len(steps)
    return False


def are_shallow(items: list[msgspec.Raw], size: int) -> bool:
    """Whether a value of `size` bytes is known to be shallow, from the items of an array in it.

    The array is a member of the value; most large values are checkpoints with many small messages.
    """
    sizes = list(map(len, items))
    rest = size - sum(sizes) - len(sizes) + 1  # besides the items and the commas between them
    if rest > SHALLOW_BYTES:
        return False
    if max(sizes, default=0) <= SHALLOW_BYTES - 4:
        return True
    large = [item for item, length in zip(items, sizes, strict=True) if length > SHALLOW_BYTES - 4]
    return not any(_opens_many(bytes(item), NESTING_MAX - 2) for item in large)


def _opens_many(text: bytes | bytearray, most: int) -> bool:
    """Whether there are more than `most` opening brackets, including those in strings."""
    # Replacing takes a third of the time of bytes.count, which tests each byte by itself.
    return b"[" in text.replace(b"{", b"[").replace(b"[", b" ", most)


def steps_outside_strings(piece: bytes, *, in_string: bool) -> tuple[bytes, bool]:
    """The steps up and down of a piece, and whether it ends inside a string."""
    if b"\\" in piece:
        piece = piece.replace(rb"\\", b"").replace(rb"\"", b"")
    # Two adjacent quotes are removed together: text around them stays inside or outside.
    parts = piece.translate(_STEPS, _REST).replace(b'""', b"").split(b'"')
    return b"".join(parts[1 if in_string else 0 :: 2]), in_string ^ (len(parts) % 2 == 0)


def pruned(text: bytes | bytearray | memoryview, levels: int) -> bytes:
    """A JSON value without the content of objects and arrays below `levels`."""
    kept: list[bytes | bytearray | memoryview] = []
    depth = copied = 0
    for match in _BRACKET.finditer(text):
        end = match.end()
        if text[end - 1] in b"{[":
            depth += 1
            if depth == levels + 1:
                kept.append(text[copied:end])
        else:
            if depth == levels + 1:
                copied = end - 1
            depth -= 1
    kept.append(text[copied:])
    return b"".join(kept)
