"""Checks ids and event types: they become names of files and folders in the tree. No I/O."""

import re

from perstack_storage.protocol import ErrorCode
from perstack_stored.errors import Refusal

ID_BYTES_MAX = 200
TYPE_BYTES_MAX = 100

_FORBIDDEN = re.compile(r"[/\\\x00-\x1f\x7f-\x9f]")
# Ids that passed the check: jobs and runs recur with each event.
_known_ids: set[str] = set()
_KNOWN_IDS_MAX = 4096


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
