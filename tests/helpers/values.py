"""Values with one field changed, and what the check says of them."""

from typing import Any

import pytest

from perstack_stored.errors import Refusal
from perstack_stored.model import value_check, values
from perstack_stored.model.kinds import Kind
from tests.helpers.datadir import dumps


class _Delete:
    def __repr__(self) -> str:
        return "deleted"  # the same in each process that collects these tests


DELETE = _Delete()


def changed(value: dict[str, Any], path: str, new: object) -> dict[str, Any]:
    """A value with one field, at a dotted path, replaced or deleted."""
    head, _, rest = path.partition(".")
    if rest:
        return value | {head: changed(value[head], rest, new)}
    if new is DELETE:
        return {key: item for key, item in value.items() if key != head}
    return value | {head: new}


def refusal(kind: Kind, payload: bytes) -> Refusal:
    with pytest.raises(Refusal) as caught:
        value_check.check(kind, payload)
    return caught.value


def refusal_or_none(kind: Kind, payload: bytes) -> Refusal | None:
    try:
        value_check.check(kind, payload)
    except Refusal as refused:
        return refused
    return None


def raw(value: dict[str, Any], field: str, text: bytes) -> bytes:
    """A value whose field holds a given JSON text."""
    return dumps(value | {field: "@@"}).replace(b'"@@"', text)


SLOW = {"zz": "\ud800"}  # sends a value the second way, through the standard library


def deeper(levels: int, payload: bytes | memoryview) -> values.Value:
    """Decode with some more frames on the stack."""
    return deeper(levels - 1, payload) if levels else values.decode(Kind.EVENT, payload)


def anything(value: dict[str, Any]) -> dict[str, Any]:
    """A value of which a type checker knows nothing: it is no job or event, and is sent all the same."""
    return value
