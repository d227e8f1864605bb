# ruff: noqa: N815 - fields are named as in the values
"""The values as types, and their decoding. `model/value_check.py` checks a value before it is stored. No I/O.

msgspec decodes the required fields and skips the rest. It refuses some legal JSON (lone surrogate escapes),
so such a value is decoded a second time (`model/lone_surrogates.py`).
"""

import contextlib
import re
from collections.abc import Sequence
from typing import Annotated, Never, cast

import msgspec
from msgspec import Meta

from perstack_storage.protocol import ErrorCode
from perstack_stored.errors import Refusal

from .kinds import Kind
from .lone_surrogates import OTHER_STAND_IN, PRIVATE, STAND_IN, as_sent, with_stand_in
from .nesting import pruned

UNSET = msgspec.UNSET
SAFE_INTEGER_MAX = 2**53 - 1

_Ms = Annotated[int, Meta(ge=0, le=SAFE_INTEGER_MAX)] | Annotated[float, Meta(ge=0, le=SAFE_INTEGER_MAX)]
_Step = _Ms  # JSON has one kind of number: 3.0 is a step as well, 3.5 is refused by value_check
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
    """Required fields of a checkpoint, and the run that delegated its own, which is not checked."""

    id: str
    jobId: str
    runId: str
    status: str
    stepNumber: _Step
    messages: list[msgspec.Raw]
    expert: Expert
    usage: Usage
    delegatedBy: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Event(msgspec.Struct, gc=False):
    """Required fields of an event."""

    id: str
    expertKey: str
    jobId: str
    runId: str
    type: str
    timestamp: _Ms
    stepNumber: _Step


class EventKey(msgspec.Struct, gc=False):
    """What the index needs of an event."""

    jobId: str
    runId: str
    type: str
    timestamp: _Number
    stepNumber: _Number


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
LARGE_BYTES = 1 << 20
_LARGE_DECODERS: dict[int, msgspec.json.Decoder[Value]] = _DECODERS | {
    Kind.CHECKPOINT: msgspec.json.Decoder(_LargeCheckpoint),
    Kind.RUN_SETTING: msgspec.json.Decoder(_LargeRunSetting),
}
EVENT_DECODER = msgspec.json.Decoder(Event)
_EVENT_KEYS = msgspec.json.Decoder(list[EventKey])
_EVENTS_AT_ONCE = 64  # so few stay in the cache: of 2,048 at once, each takes three times as long
_LARGE_FIELDS = {
    Kind.CHECKPOINT: (b"[", "array", ("messages",)),
    Kind.RUN_SETTING: (b"{", "object", ("providerConfig", "input", "experts", "env")),
}
_TYPES_BY_START = {b"{": "object", b"[": "array", b'"': "str", b"t": "bool", b"f": "bool", b"n": "null"}
_SENT = msgspec.json.Decoder(_Sent)
ID_FIELDS: dict[int, tuple[str, ...]] = {
    Kind.JOB: ("id",),
    Kind.CHECKPOINT: ("id", "jobId", "runId"),
    Kind.EVENT: ("id", "jobId", "runId"),
    Kind.RUN_SETTING: ("jobId", "runId"),
}
KIND_NAMES = {
    Kind.JOB: "job",
    Kind.CHECKPOINT: "checkpoint",
    Kind.EVENT: "event",
    Kind.RUN_SETTING: "run setting",
    Kind.DELETION: "deletion",
}

_PATH = re.compile(r" - at `\$\.?(.*?)`$")
_PRUNED_LEVELS = 64  # far below all required fields


def decode(kind: int, payload: bytes | bytearray | memoryview) -> Value:
    """Decode the required fields of a value that was checked when it was stored, or is being checked.

    Raises:
        Refusal: BAD_JSON or BAD_VALUE.
    """
    try:
        return _DECODERS[kind].decode(payload) if len(payload) <= LARGE_BYTES else _large(kind, payload)
    except msgspec.ValidationError as error:
        _refuse(kind, error)
    except msgspec.DecodeError:
        return _second_opinion(kind, payload)
    except RecursionError:  # an older daemon accepted deeper values; the caller's own calls count as well
        return decode(kind, pruned(payload, _PRUNED_LEVELS))


def event_keys(events: Sequence[bytes | memoryview]) -> Sequence[EventKey | Event]:
    """Decode what the index needs of events that were checked when they were stored: many in one call.

    Raises:
        Refusal: BAD_JSON or BAD_VALUE.
    """
    keys: list[EventKey | Event] = []
    for start in range(0, len(events), _EVENTS_AT_ONCE):
        keys += _event_keys(events[start : start + _EVENTS_AT_ONCE])
    return keys


def _event_keys(events: Sequence[bytes | memoryview]) -> Sequence[EventKey | Event]:
    with contextlib.suppress(msgspec.DecodeError, RecursionError):
        keys = _EVENT_KEYS.decode(b"[" + b",".join(events) + b"]")
        if len(keys) == len(events):
            return keys
    # A lone surrogate in one of them, as a rule.
    return [cast("Event", decode(Kind.EVENT, event)) for event in events]


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


def owner_of(value: Value) -> tuple[str, str]:
    """Job and run that a value belongs to; a job belongs to no run."""
    return (value.id, "") if isinstance(value, Job) else (value.jobId, value.runId)


def raw_updated_at(setting: bytes) -> tuple[bytearray, msgspec.Raw]:
    """A copy of a stored setting, and the view of its `updatedAt` in the copy.

    Raises:
        msgspec.DecodeError, RecursionError: it is nested more deeply than is stored today, or is no setting.
    """
    text = bytearray(setting)
    try:
        return text, _SENT.decode(text).updatedAt
    except msgspec.DecodeError:
        text = with_stand_in(setting, STAND_IN)
        return text, _SENT.decode(text).updatedAt


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
        raise Refusal(ErrorCode.BAD_JSON, f"the {KIND_NAMES[Kind(kind)]} must be a JSON object") from None
    field = parent.split("[")[0]
    reason = reason[0].lower() + reason[1:].replace("`", "")
    raise Refusal(ErrorCode.BAD_VALUE, f"{field}: {reason}", field) from None


def _second_opinion(kind: int, payload: bytes | bytearray | memoryview) -> Value:
    """Decode a value with lone surrogates, after replacing them.

    Where ids may be affected, a second replacement shows which characters were replaced.
    """
    try:
        decoded = _large if len(payload) > LARGE_BYTES else _small
        value = decoded(kind, with_stand_in(payload, STAND_IN))
        names = (*ID_FIELDS[kind], "type") if isinstance(value, Event) else ID_FIELDS[kind]
        replaced = [name for name in names if PRIVATE.search(getattr(value, name))]
        if replaced:
            other = decoded(kind, with_stand_in(payload, OTHER_STAND_IN))
            for name in replaced:
                setattr(value, name, as_sent(getattr(value, name), getattr(other, name)))
    except msgspec.ValidationError as error:
        _refuse(kind, error)
    except msgspec.DecodeError as error:
        raise Refusal(ErrorCode.BAD_JSON, f"the {KIND_NAMES[Kind(kind)]} is not JSON: {error}") from None
    except RecursionError:
        return _second_opinion(kind, pruned(payload, _PRUNED_LEVELS))
    return value
