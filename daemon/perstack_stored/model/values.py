# ruff: noqa: N815 - fields are named as in the values
"""Checks values before they are stored, as wire.md, section 6, specifies. No I/O; bytes never change.

msgspec checks the required fields and skips the rest. It refuses some legal JSON (lone surrogate
escapes) and accepts some bytes that are not UTF-8, so a UTF-8 test comes before it and a second decoding
after it. Its maximum depth depends on the Python, so nesting is counted first (`model/nesting.py`).

Each step is linear in the size of any value, and copies it at most once.
"""

import codecs
import re
import sys
from typing import Annotated, Never

import msgspec
from msgspec import Meta

from perstack_storage.protocol import ErrorCode
from perstack_stored.errors import Refusal

from .kinds import Kind
from .nesting import NESTING_MAX, are_shallow, is_too_deep, pruned

UNSET = msgspec.UNSET
SAFE_INTEGER_MAX = 2**53 - 1
ID_BYTES_MAX = 200
TYPE_BYTES_MAX = 100

_Ms = Annotated[int, Meta(ge=0, le=SAFE_INTEGER_MAX)] | Annotated[float, Meta(ge=0, le=SAFE_INTEGER_MAX)]
_Step = _Ms  # JSON has one kind of number: 3.0 is a step as well, 3.5 is refused by _whole
_Number = int | float
_Object = dict[str, msgspec.Raw]


class Usage(msgspec.Struct):
    """The five counters of a job or checkpoint."""

    inputTokens: _Number
    outputTokens: _Number
    reasoningTokens: _Number
    totalTokens: _Number
    cachedInputTokens: _Number


class Expert(msgspec.Struct):
    """The expert that made a checkpoint."""

    key: str
    name: str
    version: str


class Job(msgspec.Struct):
    """Required fields of a job."""

    id: str
    status: str
    coordinatorExpertKey: str
    totalSteps: _Step
    startedAt: _Ms
    usage: Usage


class Checkpoint(msgspec.Struct):
    """Required fields of a checkpoint."""

    id: str
    jobId: str
    runId: str
    status: str
    stepNumber: _Step
    messages: list[msgspec.Raw]
    expert: Expert
    usage: Usage


class Event(msgspec.Struct):
    """Required fields of an event."""

    id: str
    expertKey: str
    jobId: str
    runId: str
    type: str
    timestamp: _Ms
    stepNumber: _Step


class RunSetting(msgspec.Struct):
    """Required fields of a run setting, and the two that have a default when read."""

    jobId: str
    runId: str
    model: str
    expertKey: str
    perstackApiBaseUrl: str
    providerConfig: _Object
    input: _Object
    experts: _Object
    env: _Object
    maxRetries: _Number
    timeout: _Number
    startedAt: _Ms
    updatedAt: _Ms
    reasoningBudget: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    maxSteps: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _LargeCheckpoint(Checkpoint):
    """A large checkpoint: millions of small messages would take 30 times their bytes as objects."""

    messages: msgspec.Raw  # type: ignore[assignment]


class _LargeRunSetting(RunSetting):
    """A large run setting: its members stay text."""

    providerConfig: msgspec.Raw  # type: ignore[assignment]
    input: msgspec.Raw  # type: ignore[assignment]
    experts: msgspec.Raw  # type: ignore[assignment]
    env: msgspec.Raw  # type: ignore[assignment]


class _Sent(msgspec.Struct):
    """The time of a run setting as text."""

    updatedAt: msgspec.Raw


Value = Job | Checkpoint | Event | RunSetting

_TYPES: dict[int, type[Value]] = {
    Kind.JOB: Job,
    Kind.CHECKPOINT: Checkpoint,
    Kind.EVENT: Event,
    Kind.RUN_SETTING: RunSetting,
}
_DECODERS: dict[int, msgspec.json.Decoder[Value]] = {k: msgspec.json.Decoder(t) for k, t in _TYPES.items()}
_LARGE_BYTES = 1 << 20
_LARGE_DECODERS: dict[int, msgspec.json.Decoder[Value]] = _DECODERS | {
    Kind.CHECKPOINT: msgspec.json.Decoder(_LargeCheckpoint),
    Kind.RUN_SETTING: msgspec.json.Decoder(_LargeRunSetting),
}
_LARGE_FIELDS = {
    Kind.CHECKPOINT: (b"[", "array", ("messages",)),
    Kind.RUN_SETTING: (b"{", "object", ("providerConfig", "input", "experts", "env")),
}
_TYPES_BY_START = {b"{": "object", b"[": "array", b'"': "str", b"t": "bool", b"f": "bool", b"n": "null"}
_SENT = msgspec.json.Decoder(_Sent)
_IDS: dict[int, tuple[str, ...]] = {
    Kind.JOB: ("id",),
    Kind.CHECKPOINT: ("id", "jobId", "runId"),
    Kind.EVENT: ("id", "jobId", "runId"),
    Kind.RUN_SETTING: ("jobId", "runId"),
}
_FINITE_MAX = sys.float_info.max  # an integer may have any number of digits
_NAMES = {
    Kind.JOB: "job",
    Kind.CHECKPOINT: "checkpoint",
    Kind.EVENT: "event",
    Kind.RUN_SETTING: "run setting",
}

_FORBIDDEN = re.compile(r"[/\\\x00-\x1f\x7f-\x9f]")
_PATH = re.compile(r" - at `\$\.?(.*?)`$")
# Ids that passed the check: jobs and runs recur with each event.
_known_ids: set[str] = set()
_KNOWN_IDS_MAX = 4096

# The shortest possible required fields of an event.
_REQUIRED_BYTES_MIN = 88
_SHALLOW_BYTES = 2 * NESTING_MAX + _REQUIRED_BYTES_MIN
_PRUNED_LEVELS = 64  # far below all required fields
_SLICE_BYTES = 1 << 20
# Escapes of U+D000 to U+DFFF, which include all surrogates, and the private characters that replace them.
_ESCAPES = (rb"\ud", rb"\uD")
_STAND_IN, _OTHER_STAND_IN = rb"\ue", rb"\uf"
_PRIVATE = re.compile("[\ue000-\uefff]")
_FROM_STAND_IN = 0xE000 - 0xD000


def decode(kind: int, payload: bytes | bytearray | memoryview) -> Value:
    """Decode the required fields of a value that was checked when it was stored, or is being checked.

    Raises:
        Refusal: BAD_JSON or BAD_VALUE.
    """
    try:
        return _DECODERS[kind].decode(payload) if len(payload) <= _LARGE_BYTES else _large(kind, payload)
    except msgspec.ValidationError as error:
        _refuse(kind, error)
    except msgspec.DecodeError:
        return _second_opinion(kind, payload)
    except RecursionError:  # an older daemon accepted deeper values; the caller's own calls count as well
        return decode(kind, pruned(payload, _PRUNED_LEVELS))


def _small(kind: int, payload: bytes | bytearray | memoryview) -> Value:
    return _DECODERS[kind].decode(payload)


def _large(kind: int, payload: bytes | bytearray | memoryview) -> Value:
    """Decode a large value: its large arrays and objects stay text.

    Raises:
        msgspec.DecodeError: as from the decoders.
    """
    value = _LARGE_DECODERS[kind].decode(payload)
    opening, due, names = _LARGE_FIELDS.get(Kind(kind), (b"", "", ()))
    for name in names:
        text = memoryview(getattr(value, name))
        if text[:1] != opening:
            number = "float" if any(mark in bytes(text[:64]) for mark in (b".", b"e", b"E")) else "int"
            found = _TYPES_BY_START.get(bytes(text[:1]), number)
            raise msgspec.ValidationError(f"Expected `{due}`, got `{found}` - at `$.{name}`")
    return value


def updated_at_as_sent(setting: bytes | memoryview) -> str:
    """The text of the number in a stored setting's `updatedAt`."""
    try:
        found = _SENT.decode(setting)
    except (msgspec.DecodeError, RecursionError):  # see decode
        found = _SENT.decode(_with_stand_in(pruned(setting, _PRUNED_LEVELS), _STAND_IN))
    return bytes(found.updatedAt).decode()


def raw_updated_at(setting: bytes) -> tuple[bytearray, msgspec.Raw]:
    """A copy of a stored setting, and the view of its `updatedAt` in the copy.

    Raises:
        msgspec.DecodeError, RecursionError: it is nested more deeply than is stored today, or is no setting.
    """
    text = bytearray(setting)
    try:
        return text, _SENT.decode(text).updatedAt
    except msgspec.DecodeError:
        text = _with_stand_in(setting, _STAND_IN)
        return text, _SENT.decode(text).updatedAt


def check(kind: int, payload: bytes | bytearray) -> Value:
    """Check a value before it is stored.

    Raises:
        Refusal: BAD_JSON or BAD_VALUE, naming the field.
    """
    if not payload.isascii():
        _check_utf8(kind, payload)
    if len(payload) <= _SHALLOW_BYTES:
        value = decode(kind, payload)
    elif kind == Kind.CHECKPOINT and len(payload) <= _LARGE_BYTES:
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
    for field in _IDS[kind]:
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
        raise Refusal(ErrorCode.BAD_JSON, f"the {_NAMES[Kind(kind)]} is nested too deeply")


def _check_utf8(kind: int, payload: bytes | bytearray) -> None:
    """Refuse bytes that are not UTF-8. In slices: decoded text takes up to four times its bytes."""
    start = 0
    while start < len(payload):
        piece = payload[start : start + _SLICE_BYTES]
        try:
            _, used = codecs.utf_8_decode(piece, "strict", start + len(piece) == len(payload))
        except UnicodeDecodeError as error:
            raise Refusal(
                ErrorCode.BAD_JSON, f"the {_NAMES[Kind(kind)]} is not UTF-8: {error.reason}"
            ) from None
        start += used


def check_id(value: str, field: str) -> None:
    """Refuse an id that can't be a path component, or is longer than `ID_BYTES_MAX` bytes."""
    if value in _known_ids:
        return
    _check_name(value, field, ID_BYTES_MAX)
    if field != "id":
        if len(_known_ids) >= _KNOWN_IDS_MAX:
            _known_ids.clear()
        _known_ids.add(value)


def check_type(value: str) -> None:
    """Refuse an event type that can't be part of a file name."""
    _check_name(value, "type", TYPE_BYTES_MAX)
    if "." in value:
        raise Refusal(ErrorCode.BAD_VALUE, "type must not contain a dot", "type")


def _check_name(value: str, field: str, bytes_max: int) -> None:
    if value.isascii():
        length = len(value)
    else:
        try:
            length = len(value.encode())
        except UnicodeEncodeError:
            raise Refusal(ErrorCode.BAD_VALUE, f"{field} holds a lone surrogate", field) from None
    if not 1 <= length <= bytes_max:
        raise Refusal(
            ErrorCode.BAD_VALUE, f"{field} must be 1 to {bytes_max} bytes long, not {length}", field
        )
    if _FORBIDDEN.search(value):
        raise Refusal(
            ErrorCode.BAD_VALUE,
            f"{field} must not contain a slash, backslash, control character or lone surrogate",
            field,
        )
    if value in {".", ".."}:
        raise Refusal(ErrorCode.BAD_VALUE, f'{field} must not be "." or ".."', field)


def _whole(value: float, field: str) -> None:
    if not float(value).is_integer():
        raise Refusal(ErrorCode.BAD_VALUE, f"{field} must be a whole number", field)


def _finite(usage: Usage) -> None:
    for name in Usage.__struct_fields__:
        if not -_FINITE_MAX <= getattr(usage, name) <= _FINITE_MAX:
            raise Refusal(ErrorCode.BAD_VALUE, f"usage.{name}: number out of range", f"usage.{name}")


def _refuse(kind: int, error: msgspec.ValidationError) -> Never:
    """Turn an error of msgspec into a Refusal, which never quotes the value."""
    text = str(error)
    place = _PATH.search(text)
    reason = _PATH.sub("", text)
    missing = re.match(r"Object missing required field `(.*)`", reason)
    parent = place.group(1) if place else ""
    if missing:
        field = f"{parent}.{missing.group(1)}" if parent else missing.group(1)
        raise Refusal(ErrorCode.BAD_VALUE, f"{field} is missing", field) from None
    if not parent:
        raise Refusal(ErrorCode.BAD_JSON, f"the {_NAMES[Kind(kind)]} must be a JSON object") from None
    field = parent.split("[")[0]
    reason = reason[0].lower() + reason[1:].replace("`", "")
    raise Refusal(ErrorCode.BAD_VALUE, f"{field}: {reason}", field) from None


def _second_opinion(kind: int, payload: bytes | bytearray | memoryview) -> Value:
    """Decode a value with lone surrogates, which msgspec refuses and JSON allows.

    A private character replaces each escaped surrogate, alone or one of a pair, and its
    neighbours from U+D000 on. That changes no length and only text: an escaped backslash
    stays one. Where ids may be affected, a second replacement shows which characters were replaced.
    """
    try:
        decoded = _large if len(payload) > _LARGE_BYTES else _small
        value = decoded(kind, _with_stand_in(payload, _STAND_IN))
        names = (*_IDS[kind], "type") if isinstance(value, Event) else _IDS[kind]
        replaced = [name for name in names if _PRIVATE.search(getattr(value, name))]
        if replaced:
            other = decoded(kind, _with_stand_in(payload, _OTHER_STAND_IN))
            for name in replaced:
                setattr(value, name, _as_sent(getattr(value, name), getattr(other, name)))
    except msgspec.ValidationError as error:
        _refuse(kind, error)
    except msgspec.DecodeError as error:
        raise Refusal(ErrorCode.BAD_JSON, f"the {_NAMES[Kind(kind)]} is not JSON: {error}") from None
    except RecursionError:
        return _second_opinion(kind, pruned(payload, _PRUNED_LEVELS))
    return value


def _with_stand_in(payload: bytes | bytearray | memoryview, stand_in: bytes) -> bytearray:
    text = bytearray(payload)
    for escape in _ESCAPES:
        for start in range(0, len(text), _SLICE_BYTES):
            # Reaches into the next slice, so that no escape is cut in two.
            piece = text[start : start + _SLICE_BYTES + len(escape) - 1]
            if escape in piece:
                text[start : start + len(piece)] = piece.replace(escape, stand_in)
    return text


def _as_sent(text: str, other: str) -> str:
    """Reconstruct a string as sent, from its texts with both replacements."""
    if len(text) > ID_BYTES_MAX:
        return text  # refused for its length
    units = [a if a == b else chr(ord(a) - _FROM_STAND_IN) for a, b in zip(text, other, strict=True)]
    # Through UTF-16, where two surrogates in a row are one character.
    return "".join(units).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
