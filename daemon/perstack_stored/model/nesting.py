"""How deeply JSON is nested, counted here: each Python and each JSON library has a bound of its own. No I/O.

All of it is linear in time, walks without recursion, and holds a slice of the text at a time.
"""

import re
from itertools import accumulate

import msgspec

NESTING_MAX = 860
"""A value may have so many objects and arrays within each other, itself included.

What older daemons promised (about 850), and below what each reader can open: 1,024 levels in orjson, 1,000
less the caller's own calls in Python's json.
"""
SHALLOW_BYTES = 2 * NESTING_MAX
"""Text of so few bytes can't be nested more deeply."""

_SLICE_BYTES = 1 << 20
_ROOM_MIN = 16  # levels
_STEPS_EXACT = 1024
_QUOTE = ord('"')
# An opening bracket becomes 1, a closing one -1 as a signed byte; the quotes stay, all else is left out.
_STEPS = bytes.maketrans(b"{[}]", b"\x01\x01\xff\xff")
_REST = bytes(byte for byte in range(256) if byte not in b'{[}]"')
# Up to the next bracket that is in no string. Possessive: nothing is kept to try again.
_BRACKET = re.compile(rb'(?:[^"{}\[\]]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+[{}\[\]]', re.DOTALL)


def is_too_deep(text: bytes | bytearray) -> bool:
    """Whether a value is nested more deeply than `NESTING_MAX`. What is no JSON may be taken for either."""
    if len(text) <= SHALLOW_BYTES or (len(text) <= _SLICE_BYTES and not _opens_many(text, NESTING_MAX)):
        return False
    depth = start = 0
    in_string = False
    while start < len(text):
        piece = bytes(text[start : start + _SLICE_BYTES])
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2:  # an escape is not cut in two
            piece = bytes(text[start : start + _SLICE_BYTES + 1])
        start += len(piece)
        outside, in_string = _steps_outside_strings(piece, in_string=in_string)
        at = 0
        while at < len(outside):
            # As many as can't reach the bound; close to it, each one is looked at.
            room = NESTING_MAX - depth
            steps = outside[at : at + (room if room >= _ROOM_MIN else _STEPS_EXACT)]
            if room < _ROOM_MIN and max(accumulate(memoryview(steps).cast("b"), initial=depth)) > NESTING_MAX:
                return True
            depth += 2 * steps.count(b"\x01") - len(steps)
            at += len(steps)
    return False


def are_shallow(items: list[msgspec.Raw], size: int) -> bool:
    """Whether it is plain that a value of so many bytes is not too deep, from the items of an array in it.

    The array is a member of the value; most large values are checkpoints with many small messages.
    """
    sizes = list(map(len, items))
    rest = size - sum(sizes) - len(sizes) + 1  # beside the items and the commas between them
    if rest > SHALLOW_BYTES:
        return False
    if max(sizes, default=0) <= SHALLOW_BYTES - 4:
        return True
    large = [item for item, length in zip(items, sizes, strict=True) if length > SHALLOW_BYTES - 4]
    return not any(_opens_many(bytes(item), NESTING_MAX - 2) for item in large)


def _opens_many(text: bytes | bytearray, most: int) -> bool:
    """Whether there are more than so many opening brackets, those in strings as well."""
    # To replace takes a third of the time of bytes.count, which looks at each byte by itself.
    return b"[" in text.replace(b"{", b"[").replace(b"[", b" ", most)


def _steps_outside_strings(piece: bytes, *, in_string: bool) -> tuple[bytes, bool]:
    """The steps up and down of a piece, and whether it ends within a string."""
    if b"\\" in piece:
        piece = piece.replace(rb"\\", b"").replace(rb"\"", b"")
    # Two quotes beside each other go together: what lies around them stays inside or outside.
    parts = piece.translate(_STEPS, _REST).replace(b'""', b"").split(b'"')
    return b"".join(parts[1 if in_string else 0 :: 2]), in_string ^ (len(parts) % 2 == 0)


def pruned(text: bytes | bytearray | memoryview, levels: int) -> bytes:
    """A value that was found to be JSON, without what its objects and arrays below so many levels hold."""
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
