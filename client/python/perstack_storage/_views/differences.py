"""What differs between two checkpoints: fields, usage, messages. No I/O."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from perstack_storage._core.jsonio import dumps
from perstack_storage._views.graph import Usage, usage_of

_APART = frozenset({"messages", "usage"})
FLAT_LEVELS_MAX = 100
"""What is nested more deeply is shown as JSON: names that grow with each level take too much."""


class Change(NamedTuple):
    """A value before and after; None where it is not there."""

    before: Any
    after: Any


class Messages(NamedTuple):
    """How the messages differ. `moved`: those that both have stand in another order."""

    before: int
    after: int
    unchanged: int
    added: list[Any]
    removed: list[Any]
    changed: list[Change]
    moved: bool


class Difference(NamedTuple):
    """How a checkpoint differs from another: by name of the field, nested ones joined by dots."""

    fields: dict[str, Change]
    usage: dict[str, Change]
    messages: Messages


def between(before: Any, after: Any) -> Difference:
    """The difference between two checkpoints."""
    return Difference(
        dict(_fields(before, after)),
        dict(_usage(usage_of(before.get("usage")), usage_of(after.get("usage")))),
        _messages(_list(before), _list(after)),
    )


def _list(checkpoint: Any) -> list[Any]:
    messages = checkpoint.get("messages")
    return messages if isinstance(messages, list) else []


def _fields(before: Any, after: Any) -> Iterator[tuple[str, Change]]:
    old, new = (
        dict(flat({key: value for key, value in one.items() if key not in _APART})) for one in (before, after)
    )
    for name in dict.fromkeys([*old, *new]):
        if old.get(name) != new.get(name):
            yield name, Change(old.get(name), new.get(name))


def _usage(before: Usage, after: Usage) -> Iterator[tuple[str, Change]]:
    for name, number in after.items():
        if number != before[name]:
            yield name, Change(before[name], number)


def _messages(before: list[Any], after: list[Any]) -> Messages:
    old, new = dict(_keyed(before)), dict(_keyed(after))
    both = [key for key in new if key in old]
    changed = [Change(old[key], new[key]) for key in both if old[key] != new[key]]
    return Messages(
        before=len(before),
        after=len(after),
        unchanged=len(both) - len(changed),
        added=[message for key, message in new.items() if key not in old],
        removed=[message for key, message in old.items() if key not in new],
        changed=changed,
        moved=both != [key for key in old if key in new],
    )


def _keyed(messages: list[Any]) -> Iterator[tuple[tuple[str, int], Any]]:
    """Each message under its id, or its JSON where it has none; the same ones are counted."""
    seen: dict[str, int] = {}
    for message in messages:
        id = message.get("id") if isinstance(message, dict) else None
        key = f"id {id}" if isinstance(id, str) else dumps(message).decode()
        seen[key] = seen.get(key, 0) + 1
        yield (key, seen[key]), message


def flat(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    """Names and values in nested objects, with the names joined by dots."""
    todo: list[tuple[str, object]] = [(name, value)]
    while todo:
        name, value = todo.pop()
        if isinstance(value, dict) and value and name.count(".") < FLAT_LEVELS_MAX:
            inner = [(f"{name}.{key}" if name else str(key), item) for key, item in value.items()]
            todo.extend(reversed(inner))
        else:
            yield name, value


def as_json(before: Any, after: Any, found: Difference) -> dict[str, Any]:
    """A difference and what it is of, as JSON has it."""
    messages = found.messages
    return {
        "from": {"job": before["jobId"], "checkpoint": before["id"]},
        "to": {"job": after["jobId"], "checkpoint": after["id"]},
        "fields": {name: _change_as_json(change) for name, change in found.fields.items()},
        "usage": {name: _change_as_json(change) for name, change in found.usage.items()},
        "messages": {
            "from": messages.before,
            "to": messages.after,
            "unchanged": messages.unchanged,
            "added": messages.added,
            "removed": messages.removed,
            "changed": [_change_as_json(change) for change in messages.changed],
            "moved": messages.moved,
        },
    }


def _change_as_json(change: Change) -> dict[str, Any]:
    return {"from": change.before, "to": change.after}
