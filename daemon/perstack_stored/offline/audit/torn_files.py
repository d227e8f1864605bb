"""How a file came to hold no JSON, guessed from its bytes. No I/O. A mixture may even be JSON by chance."""

import json

_DECODER = json.JSONDecoder()
_DECODED_BYTES_MAX = 4 << 20  # decoded, a value takes up to 60 times its bytes


def how_torn(payload: bytes) -> str | None:
    """What a torn write left, in words; None for what does not look like a torn object."""
    if not payload:
        return "it is empty: made, and never written"
    if not payload.strip(b"\0"):
        return "nothing but zeros: its blocks never reached the disk"
    is_object = payload.lstrip().startswith(b"{")
    if is_object and (payload.endswith(b"\0") or b"\0\0\0\0" in payload):
        return "there are zeros in it: some of its blocks never reached the disk"
    if not is_object or len(payload) > _DECODED_BYTES_MAX:
        return None
    text = payload.decode(errors="replace")
    try:
        _, end = _DECODER.raw_decode(text.lstrip())
    except json.JSONDecodeError as error:
        # Of a string without an end the beginning is told.
        if error.pos >= len(text.rstrip()) - 1 or error.msg.startswith("Unterminated string"):
            return "it is cut short"
        return f"parts of two versions, or damage, at character {error.pos}"
    except (RecursionError, ValueError):  # a number of more digits than Python takes
        return None
    return "the end of a longer version stands behind the value" if text.lstrip()[end:].strip() else None
