"""Guesses from the bytes of a file why it is no JSON; a mixture may be JSON by chance. No I/O."""

import json

_DECODER = json.JSONDecoder()
_DECODED_BYTES_MAX = 4 << 20  # decoded, a value takes up to 60 times its bytes


def how_torn(payload: bytes) -> str | None:
    """Describe the result of a torn write; None for bytes that don't look like a torn object."""
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
        # For a string without an end the error's position is its beginning.
        if error.pos >= len(text.rstrip()) - 1 or error.msg.startswith("Unterminated string"):
            return "it is cut short"
        return f"parts of two versions, or damage, at character {error.pos}"
    except (RecursionError, ValueError):  # a number with more digits than Python accepts
        return None
    return "the end of a longer version follows the value" if text.lstrip()[end:].strip() else None
