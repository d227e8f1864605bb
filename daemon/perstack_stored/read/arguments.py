"""Checks the arguments of reads before the index is queried. No I/O."""

from collections.abc import Callable
from typing import Any

from perstack_storage.protocol import ErrorCode
from perstack_stored.errors import Refusal
from perstack_stored.journal.epochs import Epochs
from perstack_stored.model import names
from perstack_stored.protocol import frames
from perstack_stored.protocol.limits import READ_ALL_RECORDS_MAX

WAIT_MS_MAX = 60_000
TYPES_MAX = 100
OMITTED_MAX = 64
OMITTED_LEVELS_MAX = 16
_INTEGER_MAX = 2**53 - 1


def check_arguments(op: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Check the arguments of a read; unknown ones are ignored.

    Raises:
        Refusal: BAD_REQUEST, naming the argument.
    """
    checked: dict[str, Any] = {}
    for name, (check, required) in ARGUMENTS[op].items():
        value = arguments.get(name)
        if value is None:
            if required:
                raise Refusal(ErrorCode.BAD_REQUEST, f"{name} is missing", name)
            continue
        checked[name] = check(name, value)
    if "runId" in checked and "jobId" not in checked:
        raise Refusal(ErrorCode.BAD_REQUEST, "runId needs jobId beside it", "jobId")
    if op == "readAll" and "last" in checked:
        if "after" in checked:
            raise Refusal(ErrorCode.BAD_REQUEST, "last stands in the place of after", "last")
        checked["last"] = min(checked["last"], READ_ALL_RECORDS_MAX)
    return checked


def at_least(header: frames.RequestHeader) -> int:
    """The position that a daemon must hold before it reads; 0 for any.

    Raises:
        Refusal: BAD_REQUEST.
    """
    return 0 if header.atLeast is None else _position("atLeast", header.atLeast)


def check_history(
    arguments: dict[str, Any], store: str, position: int, epochs: Epochs, field: str = "after"
) -> None:
    """Check that a position to go on from, which `field` of the arguments names, belongs to this history.

    Raises:
        Refusal: POSITION_GONE.
    """
    theirs, after = arguments.get("store", store), arguments.get(field, 0)
    if theirs != store:
        raise Refusal(ErrorCode.POSITION_GONE, f"this is another history: {store}, not {theirs}", "store")
    if after > position:
        raise Refusal(
            ErrorCode.POSITION_GONE,
            f"position {after} is not in this history, which ends at {position}: its end was lost",
            field,
        )
    epoch = arguments.get("epoch")
    if epoch is not None and after and epoch != epochs.at(after):
        raise Refusal(
            ErrorCode.POSITION_GONE,
            f"position {after} was read in another continuation of this history: the base was put back from"
            " a copy, or is one",
            "epoch",
        )


def check_as_of(arguments: dict[str, Any], position: int) -> None:
    """Check that the position of a read as of a position is in this history.

    Raises:
        Refusal: POSITION_GONE.
    """
    as_of = arguments.get("asOf")
    if isinstance(as_of, int) and as_of > position:
        raise Refusal(
            ErrorCode.POSITION_GONE,
            f"position {as_of} is not in this history, which ends at {position}",
            "asOf",
        )


def _id(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise Refusal(ErrorCode.BAD_REQUEST, f"{name} must be a string", name)
    try:
        names.check_id(value, name)
    except Refusal as refusal:
        raise Refusal(ErrorCode.BAD_REQUEST, refusal.message, name) from None
    return value


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refusal(ErrorCode.BAD_REQUEST, f"{name} must be a number", name)
    # SQLite's integers have 64 bits; steps beyond 2^53 don't exist.
    return max(min(value, 2**60), -(2**60))


def _positive(name: str, value: object) -> int:
    if type(value) is not int or not 1 <= value <= _INTEGER_MAX:
        raise Refusal(ErrorCode.BAD_REQUEST, f"{name} must be an integer from 1 on", name)
    return value


def _position(name: str, value: object) -> int:
    if type(value) is not int or not 0 <= value <= _INTEGER_MAX:
        raise Refusal(ErrorCode.BAD_REQUEST, f"{name} must be a position", name)
    return value


def _as_of(name: str, value: object) -> int | dict[str, float]:
    """A position, or an object with a time."""
    if isinstance(value, dict) and "timeMs" in value:
        return {"timeMs": _number(f"{name}.timeMs", value["timeMs"])}
    if type(value) is not int or not 0 <= value <= _INTEGER_MAX:
        raise Refusal(ErrorCode.BAD_REQUEST, f'{name} must be a position, or {{"timeMs"}}', name)
    return value


def _wait_ms(name: str, value: object) -> int:
    if type(value) is not int or not 0 <= value <= _INTEGER_MAX:
        raise Refusal(ErrorCode.BAD_REQUEST, f"{name} must be a number of milliseconds", name)
    return min(value, WAIT_MS_MAX)


def _cursor(name: str, value: object) -> list[Any]:
    if not isinstance(value, list) or not all(map(_is_cursor_part, value)):
        raise Refusal(ErrorCode.BAD_REQUEST, f"{name} must be the `next` of an answer before", name)
    return value


def _is_cursor_part(part: object) -> bool:
    if type(part) is int or type(part) is float:
        return abs(part) <= _INTEGER_MAX  # SQLite's integers have 64 bits
    return type(part) is str


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > names.ID_BYTES_MAX:
        raise Refusal(ErrorCode.BAD_REQUEST, f"{name} must be a short string", name)
    return value


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise Refusal(ErrorCode.BAD_REQUEST, f"{name} must be true or false", name)
    return value


def _types(name: str, value: object) -> list[str]:
    return _strings(name, value, TYPES_MAX, names.TYPE_BYTES_MAX)


def _ops(name: str, value: object) -> list[str]:
    """Operations that store one record."""
    ops = _strings(name, value, len(frames.STORE_KINDS), names.TYPE_BYTES_MAX)
    if any(op not in frames.STORE_KINDS for op in ops):
        raise Refusal(ErrorCode.BAD_REQUEST, f"{name} must be operations that store a record", name)
    return ops


def _fields(name: str, value: object) -> list[str]:
    """Dotted names of fields."""
    fields = _strings(name, value, OMITTED_MAX, names.ID_BYTES_MAX)
    if any(field.count(".") >= OMITTED_LEVELS_MAX for field in fields):
        raise Refusal(
            ErrorCode.BAD_REQUEST, f"a field in {name} has at most {OMITTED_LEVELS_MAX} levels", name
        )
    return fields


def _strings(name: str, value: object, count_max: int, length_max: int) -> list[str]:
    if not (
        isinstance(value, list)
        and len(value) <= count_max
        and all(isinstance(item, str) and len(item) <= length_max for item in value)
    ):
        raise Refusal(
            ErrorCode.BAD_REQUEST,
            f"{name} must be an array of at most {count_max} strings of at most {length_max} characters",
            name,
        )
    return value


_Check = Callable[[str, object], Any]
_PAGING: dict[str, tuple[_Check, bool]] = {"limit": (_positive, False), "after": (_cursor, False)}
_AS_OF: dict[str, tuple[_Check, bool]] = {"asOf": (_as_of, False)}
_SUMMARIES: dict[str, tuple[_Check, bool]] = {
    "status": (_text, False),
    "expertKey": (_text, False),
    "since": (_number, False),
    "until": (_number, False),
    "newestFirst": (_flag, False),
    "jobId": (_id, False),
    "contains": (_text, False),
    **_PAGING,
}
ARGUMENTS: dict[str, dict[str, tuple[_Check, bool]]] = {
    "retrieveJob": {"jobId": (_id, True), **_AS_OF},
    "retrieveCheckpoint": {"jobId": (_id, True), "checkpointId": (_id, True), **_AS_OF},
    "getAllJobs": _PAGING,
    "getCheckpointsByJobId": {"jobId": (_id, True), "omit": (_fields, False), **_AS_OF, **_PAGING},
    "getEventsByRun": {"jobId": (_id, True), "runId": (_id, True), **_AS_OF, **_PAGING},
    "getEventContents": {
        "jobId": (_id, True),
        "runId": (_id, True),
        "types": (_types, False),
        "minStep": (_number, False),
        "maxStep": (_number, False),
        "newestFirst": (_flag, False),
        "omit": (_fields, False),
        **_AS_OF,
        **_PAGING,
    },
    "getAllRuns": _PAGING,
    "readAll": {
        "after": (_position, False),
        "limit": (_positive, False),
        "waitMs": (_wait_ms, False),
        "jobId": (_id, False),
        "runId": (_id, False),
        "ops": (_ops, False),
        "types": (_types, False),
        "omit": (_fields, False),
        "last": (_position, False),
        "name": (_id, False),
        "store": (_text, False),
        "epoch": (_text, False),
    },
    "listJobs": _SUMMARIES,
    "listRuns": _SUMMARIES,
    "getEvent": {"position": (_position, True)},
    "positionAt": {"timeMs": (_number, True)},
    "deletions": {"after": (_position, False), "limit": (_positive, False)},
    "sizeOf": {"jobId": (_id, True), "runId": (_id, False)},
    "setCursor": {
        "name": (_id, True),
        "position": (_position, True),
        "store": (_text, False),
        "epoch": (_text, False),
        "force": (_flag, False),
    },
    "deleteCursor": {"name": (_id, True)},
    "cursors": {"limit": (_positive, False), "after": (_id, False)},
    "readPart": {"read": (_text, True), "part": (_positive, True)},
}
