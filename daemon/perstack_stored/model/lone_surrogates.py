"""JSON text with escapes of lone surrogates, which msgspec refuses and JSON allows. No I/O.

A private character replaces each escaped surrogate, alone or one of a pair, and its neighbours from U+D000
on. That changes no length and only text: an escaped backslash stays one.
"""

import re

from .names import ID_BYTES_MAX

_SLICE_BYTES = 1 << 20
# Escapes of U+D000 to U+DFFF, which include all surrogates, and the private characters that replace them.
_ESCAPES = (rb"\ud", rb"\uD")
STAND_IN, OTHER_STAND_IN = rb"\ue", rb"\uf"
PRIVATE = re.compile("[\ue000-\uefff]")
_FROM_STAND_IN = 0xE000 - 0xD000


def with_stand_in(payload: bytes | bytearray | memoryview, stand_in: bytes) -> bytearray:
    """A copy of a JSON text with escaped surrogates replaced by `STAND_IN` or `OTHER_STAND_IN`."""
    text = bytearray(payload)
    for escape in _ESCAPES:
        for start in range(0, len(text), _SLICE_BYTES):
            # Reaches into the next slice, so that no escape is cut in two.
            piece = text[start : start + _SLICE_BYTES + len(escape) - 1]
            if escape in piece:
                text[start : start + len(piece)] = piece.replace(escape, stand_in)
    return text


def as_sent(text: str, other: str) -> str:
    """Reconstruct a string as sent, from its texts with both replacements."""
    if len(text) > ID_BYTES_MAX:
        return text  # refused for its length
    units = [a if a == b else chr(ord(a) - _FROM_STAND_IN) for a, b in zip(text, other, strict=True)]
    # Through UTF-16, where two surrogates in a row are one character.
    return "".join(units).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
