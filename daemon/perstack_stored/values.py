# ruff: noqa: N815 - fields are named as in the values
"""What a value must be to be stored, as wire.md, section 6, says. No I/O; the bytes are never changed.

msgspec checks the fields that are required and skips the rest. It refuses some legal JSON (lone surrogate
escapes) and takes
some bytes that are no UTF-8, so there is a UTF-8 test before it and a second opinion behind it.
"""

import re
import sys
from typing import Annotated, Never

import msgspec
from msgspec import Meta

from perstack_storage._errors import ErrorCode

from .errors import Refusal
from .record import Kind

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
    """Who made a checkpoint."""

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


Value = Job | Checkpoint | Event | RunSetting

_TYPES: dict[int, type[Value]] = {
    Kind.JOB: Job,
    Kind.CHECKPOINT: Checkpoint,
    Kind.EVENT: Event,
    Kind.RUN_SETTING: RunSetting,
}
_DECODERS: dict[int, msgspec.json.Decoder[Value]] = {k: msgspec.json.Decoder(t) for k, t in _TYPES.items()}
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
# Ids that were found right: jobs and runs come again with each event.
_known_ids: set[str] = set()
_KNOWN_IDS_MAX = 4096

_HIGH, _LOW = rb"\\u[dD][89abAB][0-9a-fA-F]{2}", rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_LONE_SURROGATE = re.compile(rb"%b(?!%b)|(?<!%b)%b" % (_HIGH, _LOW, _HIGH, _LOW))
_STAND_IN = rb"\\u0001"  # an id that holds it is refused


def decode(kind: int, payload: bytes | bytearray | memoryview) -> Value:
    """The required fields of a value that was checked when it was stored, or of one to be checked.

    Raises:
        Refusal: BAD_JSON or BAD_VALUE.
    """
    try:
        return _DECODERS[kind].decode(payload)
    except msgspec.ValidationError as error:
        _refuse(kind, error)
    except (msgspec.DecodeError, RecursionError):
        return _second_opinion(kind, bytes(payload))


def check(kind: int, payload: bytes | bytearray) -> Value:
    """Check a value that is to be stored.

    Raises:
        Refusal: BAD_JSON or BAD_VALUE, naming the field.
    """
    if not payload.isascii():
        try:
            payload.decode()
        except UnicodeDecodeError as error:
            raise Refusal(
                ErrorCode.BAD_JSON, f"the {_NAMES[Kind(kind)]} is not UTF-8: {error.reason}"
            ) from None
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


def check_id(value: str, field: str) -> None:
    """Refuse what can't be a path component, or is longer than `ID_BYTES_MAX` bytes."""
    if value in _known_ids:
        return
    _check_name(value, field, ID_BYTES_MAX)
    if field != "id":
        if len(_known_ids) >= _KNOWN_IDS_MAX:
            _known_ids.clear()
        _known_ids.add(value)


def check_type(value: str) -> None:
    """Refuse an event type that the name of its file can't carry."""
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
    """Turn msgspec's complaint into ours; it never quotes the value."""
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


def _second_opinion(kind: int, payload: bytes) -> Value:
    """Decode a value without its lone surrogates, which msgspec refuses and JSON allows."""
    name = _NAMES[Kind(kind)]
    # First the escaped backslashes, so that each one left begins an escape.
    text = _LONE_SURROGATE.sub(_STAND_IN, payload.replace(rb"\\", rb"\u005c"))
    try:
        return _DECODERS[kind].decode(text)
    except msgspec.ValidationError as error:
        _refuse(kind, error)
    except RecursionError:
        raise Refusal(ErrorCode.BAD_JSON, f"the {name} is nested too deeply") from None
    except msgspec.DecodeError as error:
        raise Refusal(ErrorCode.BAD_JSON, f"the {name} is not JSON: {error}") from None
