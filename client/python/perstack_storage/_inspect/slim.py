"""Records without what repeats the messages, and with long texts cut: what a timeline is made of. No I/O."""

from collections.abc import Sequence
from typing import Any

from perstack_storage._core.jsonio import dumps
from perstack_storage._core.masking import masked_record
from perstack_storage._inspect import limits

TIMELINE_OMIT = (
    "messages",
    "newMessage",
    "newMessages",
    "step",
    "checkpoint.messages",
    "initialCheckpoint.messages",
    "nextCheckpoint",
)
"""Fields that repeat the messages: most of the bytes of events and checkpoints."""
_DELTAS = frozenset({"streamReasoning", "streamRunResult"})
"""Types of events that have none of these: most events are such, and a look at each costs something."""
_TOP = frozenset(name for name in TIMELINE_OMIT if "." not in name)
_INNER = ("checkpoint", "initialCheckpoint")


def job_of(read: Any) -> str:
    """The job that a record of `readAll` belongs to."""
    job: str = read["value"].get("id" if read["op"] == "storeJob" else "jobId", "")
    return job


def record(read: Any) -> bytes:
    """A record of `readAll` in the form of a timeline; `cut` is true where texts were cut."""
    value = masked_record(read["op"], _without_messages(read["value"]))
    item = {"position": read["position"], "time": read["time"], "op": read["op"], "value": value}
    data = dumps(item)
    if len(data) <= limits.SLIM_BYTES_MAX:
        return data
    return dumps({**item, "value": _Cutter(limits.SLIM_BYTES_MAX).cut(value), "cut": True})


def omitted(types: list[str] | None) -> tuple[str, ...]:
    """The fields that the daemon need not send for `record`, of events of some types, or of all records."""
    return () if types is not None and _DELTAS.issuperset(types) else TIMELINE_OMIT


def omitted_after(page: Sequence[Any]) -> tuple[str, ...]:
    """The fields that the daemon need not send of the records after these.

    None amid deltas: they have no such fields, and to look for them costs the daemon more than it saves.
    """
    deltas = sum(read["op"] == "storeEvent" and read["value"]["type"] in _DELTAS for read in page)
    return () if deltas * 4 >= len(page) * 3 else TIMELINE_OMIT


def whole(read: Any) -> bytes:
    """A record of `readAll` with all its fields; secrets of run settings are masked."""
    value = masked_record(read["op"], read["value"])
    return dumps({"position": read["position"], "time": read["time"], "op": read["op"], "value": value})


def for_file(read: Any) -> bytes:
    """A record in the file of a job: a checkpoint whole if it is not too large, all else as `record`."""
    if read["op"] == "storeCheckpoint":
        data = whole(read)
        if len(data) <= limits.FILE_CHECKPOINT_BYTES_MAX:
            return data
    return record(read)


def _without_messages(value: dict[str, Any]) -> dict[str, Any]:
    if value.get("type") in _DELTAS:
        return value
    kept = {key: item for key, item in value.items() if key not in _TOP}
    for name in _INNER:
        inner = kept.get(name)
        if isinstance(inner, dict):
            kept[name] = {key: item for key, item in inner.items() if key != "messages"}
    return kept


_CUT_ITEMS_MAX, _CUT_LEVELS_MAX = 200, 20


class _Cutter:
    """Cuts texts, lists and levels of a value, and all of it together to a number of characters."""

    def __init__(self, chars: int) -> None:
        self._left = chars

    def cut(self, value: Any, level: int = 0) -> Any:
        """The value with what has room of it."""
        if isinstance(value, str):
            text = value[: min(limits.TEXT_CHARS_MAX, self._left)]
            self._left -= len(text)
            return text
        if level >= _CUT_LEVELS_MAX and isinstance(value, dict | list):
            return "…"
        if isinstance(value, dict):
            return {key: self.cut(item, level + 1) for key, item in self._items(value)}
        if isinstance(value, list):
            return [self.cut(item, level + 1) for item in value[: self._count()]]
        return value

    def _items(self, value: dict[str, Any]) -> list[tuple[str, Any]]:
        items = list(value.items())[: self._count()]
        return [(key, item) for key, item in items if len(key) <= limits.NAME_CHARS_MAX]

    def _count(self) -> int:
        return _CUT_ITEMS_MAX if self._left > 0 else 0
