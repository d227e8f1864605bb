"""JSON to and from bytes: orjson, and a second opinion where it refuses or would change a value."""

import json
import re
from typing import Any

import orjson

from perstack_storage._core import deepjson

# An integer beyond 64 bits has 20 characters at least, its sign included. A look at each fifth byte meets
# such a run 4 times wherever it begins; a timestamp of 13 digits it meets 3 times at most.
_LONG_INTEGER = re.compile(rb"-[0-9]{19}|[0-9]{20}")
_LONG_INTEGER_BYTES = 20
_STRIDE = 5
_RUN = b"0" * (_LONG_INTEGER_BYTES // _STRIDE)
_DIGITS_TO_ZERO = bytes.maketrans(b"-123456789", b"0" * 10)
_CHUNK_BYTES = 96_000  # so that the copies stay in the processor's cache; a multiple of the stride
_INT_DIGITS_MAX = 4300
"""What Python converts without a change of settings."""


def dumps(value: object) -> bytes:
    """Returns a value as JSON in UTF-8, without spaces.

    What JSON has is taken, lone surrogates and integers of any length too. NaN and infinities become
    `null`, as JSON.stringify does it.

    Raises:
        TypeError: something in the value has no form in JSON; the message says what and where.
        NestedTooDeeply: the value holds itself, or is nested too deeply.
    """
    try:
        return orjson.dumps(value)
    except TypeError:  # orjson.JSONEncodeError is one
        return deepjson.encode(value).encode()


def loads(data: bytes) -> Any:
    """Returns the value of JSON bytes, equal to what was stored.

    Integers keep all their digits. A number beyond the range of a double becomes infinity.

    Raises:
        ValueError: the bytes are no JSON.
        NestedTooDeeply: the value is nested too deeply.
    """
    if _may_hold_long_integer(data):
        return _loads_slowly(data)
    try:
        return orjson.loads(data)
    except ValueError:  # orjson refuses lone surrogates, 1e400 and deep nesting
        return _loads_slowly(data)


def _loads_slowly(data: bytes) -> Any:
    try:
        return json.loads(data, parse_int=_parse_int)
    except RecursionError:  # at a depth that depends on the Python, and on the depth of the caller
        return deepjson.decode(data.decode(errors="surrogatepass"), _parse_int)


def _may_hold_long_integer(data: bytes) -> bool:
    """Whether orjson, which makes a float of an integer beyond 64 bits without a word, might meet one."""
    for start in range(0, len(data), _CHUNK_BYTES):
        end = start + _CHUNK_BYTES + _LONG_INTEGER_BYTES
        sampled = data[start:end:_STRIDE].translate(_DIGITS_TO_ZERO)
        if _RUN in sampled and _LONG_INTEGER.search(data, start, end) is not None:
            return True
    return False


def _parse_int(digits: str) -> int | float:
    return int(digits) if len(digits) <= _INT_DIGITS_MAX else float(digits)
