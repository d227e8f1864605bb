"""Checks values before they are stored, as wire.md, section 6, specifies. No I/O; bytes never change.

msgspec accepts some bytes that are not UTF-8, so a UTF-8 test comes before it. Its maximum depth depends on
the Python, so nesting is counted first (`model/nesting.py`).

Each step is linear in the size of any value, and copies it at most once.
"""

import codecs
import sys

import msgspec

from perstack_storage.protocol import ErrorCode
from perstack_stored.errors import Refusal

from .kinds import Kind
from .names import are_known, check_id, check_type
from .nesting import NESTING_MAX, are_shallow, is_too_deep
from .values import (
    EVENT_DECODER,
    ID_FIELDS,
    KIND_NAMES,
    LARGE_BYTES,
    Checkpoint,
    Event,
    Job,
    Usage,
    Value,
    decode,
)

_EVENT = int(Kind.EVENT)
_FINITE_MAX = sys.float_info.max  # an integer may have any number of digits
# The shortest possible required fields of an event.
_REQUIRED_BYTES_MIN = 88
_SHALLOW_BYTES = 2 * NESTING_MAX + _REQUIRED_BYTES_MIN
_SLICE_BYTES = 1 << 20


def check(kind: int, payload: bytes | bytearray) -> Value:
    """Check a value before it is stored.

    Raises:
        Refusal: BAD_JSON or BAD_VALUE, naming the field.
    """
    if kind == _EVENT and len(payload) <= _SHALLOW_BYTES and payload.isascii():
        try:
            event = EVENT_DECODER.decode(payload)
        except (msgspec.DecodeError, RecursionError):
            return _check_fully(kind, payload)
        # As most are. The others take the longer way.
        if type(event.stepNumber) is int and are_known(event.jobId, event.runId, event.type, event.id):
            return event
    return _check_fully(kind, payload)


def _check_fully(kind: int, payload: bytes | bytearray) -> Value:
    if not payload.isascii():
        _check_utf8(kind, payload)
    if len(payload) <= _SHALLOW_BYTES:
        value = decode(kind, payload)
    elif kind == Kind.CHECKPOINT and len(payload) <= LARGE_BYTES:
        try:
            value = decode(kind, payload)
        except Refusal:
            _check_nesting(kind, payload)  # too deep nesting is reported before any other fault
            raise
        assert isinstance(value, Checkpoint)
        if not are_shallow(value.messages, len(payload)):
            _check_nesting(kind, payload)
    else:
        _check_nesting(kind, payload)
        value = decode(kind, payload)
    for field in ID_FIELDS[kind]:
        check_id(getattr(value, field), field)
    if isinstance(value, Event):
        check_type(value.type)
        if type(value.stepNumber) is not int:
            _whole(value.stepNumber, "stepNumber")
    elif isinstance(value, Checkpoint):
        _whole(value.stepNumber, "stepNumber")
        _finite(value.usage)
    elif isinstance(value, Job):
        _whole(value.totalSteps, "totalSteps")
        _finite(value.usage)
    return value


def _check_nesting(kind: int, payload: bytes | bytearray) -> None:
    if is_too_deep(payload):
        raise Refusal(ErrorCode.BAD_JSON, f"the {KIND_NAMES[Kind(kind)]} is nested too deeply")


def _check_utf8(kind: int, payload: bytes | bytearray) -> None:
    """Refuse bytes that are not UTF-8. In slices: decoded text takes up to four times its bytes."""
    start = 0
    while start < len(payload):
        piece = payload[start : start + _SLICE_BYTES]
        try:
            _, used = codecs.utf_8_decode(piece, "strict", start + len(piece) == len(payload))
        except UnicodeDecodeError as error:
            raise Refusal(
                ErrorCode.BAD_JSON, f"the {KIND_NAMES[Kind(kind)]} is not UTF-8: {error.reason}"
            ) from None
        start += used


def _whole(value: float, field: str) -> None:
    if not float(value).is_integer():
        raise Refusal(ErrorCode.BAD_VALUE, f"{field} must be a whole number", field)


def _finite(usage: Usage) -> None:
    for name in Usage.__struct_fields__:
        if not -_FINITE_MAX <= getattr(usage, name) <= _FINITE_MAX:
            raise Refusal(ErrorCode.BAD_VALUE, f"usage.{name}: number out of range", f"usage.{name}")
