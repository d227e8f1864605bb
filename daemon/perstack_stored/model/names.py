"""Checks ids and event types: they become names of files and folders in the tree. No I/O."""

import re

from perstack_storage.protocol import ErrorCode
from perstack_stored.errors import Refusal

ID_BYTES_MAX = 200
TYPE_BYTES_MAX = 100

_FORBIDDEN = re.compile(r"[/\\\x00-\x1f\x7f-\x9f]")
_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
# Names that passed the check: jobs, runs and types recur with each event.
_known_ids: set[str] = set()
_known_types: set[str] = set()
_KNOWN_MAX = 4096


def check_id(value: str, field: str) -> None:
    """Refuse an id that can't be a path component, or is longer than `ID_BYTES_MAX` bytes."""
    if value in _known_ids:
        return
    _check_name(value, field, ID_BYTES_MAX)
    if field != "id":
        _remember(value, _known_ids)


def check_type(value: str) -> None:
    """Refuse an event type that can't be part of a file name."""
    _check_name(value, "type", TYPE_BYTES_MAX)
    if "." in value:
        raise Refusal(ErrorCode.BAD_VALUE, "type must not contain a dot", "type")
    _remember(value, _known_types)


def are_known(job: str, run: str, type: str, id: str) -> bool:
    """Whether the names of an event need no further check: others with them passed, and the id is plain."""
    return (
        job in _known_ids and run in _known_ids and type in _known_types and _PLAIN.fullmatch(id) is not None
    )


def _remember(name: str, known: set[str]) -> None:
    if len(known) >= _KNOWN_MAX:
        known.clear()
    known.add(name)


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
