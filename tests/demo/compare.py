"""Compares what was sent and what was found byte for byte: both are named sections of items in order."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from tests.demo.workload import Call


class Item(NamedTuple):
    """A stored value: its id and its bytes."""

    name: str
    data: bytes


Sections = dict[str, list[Item]]


class Difference(NamedTuple):
    """An item that differs from what was sent."""

    kind: str
    section: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.name} ({self.section})"


def compare(sent: Sections, found: Sections) -> list[Difference]:
    """All differences, in all sections of both sides."""
    sections = sent if sent.keys() == found.keys() else {**sent, **found}
    return [each for name in sections for each in _differences(name, sent.get(name, []), found.get(name, []))]


def _differences(section: str, sent: Sequence[Item], found: Sequence[Item]) -> list[Difference]:
    if sent == found:
        return []
    places = {item.name: place for place, item in enumerate(sent)}
    if len(places) != len(sent):
        raise ValueError(f"{section}: the same id was sent twice, so that items can't be told apart")
    differences = []
    first_places: dict[str, int] = {}
    for name, data in found:
        place = places.get(name)
        if place is None:
            differences.append(Difference("never sent", section, name))
        elif name in first_places:
            differences.append(Difference("doubled", section, name))
        else:
            first_places[name] = place
            if data != sent[place].data:
                differences.append(Difference("altered", section, name))
    moved = _out_of_order(list(first_places.values()))
    differences += [Difference("out of order", section, sent[place].name) for place in moved]
    missing = [name for name in places if name not in first_places]
    return differences + [Difference("missing", section, name) for name in missing]


def _out_of_order(places: list[int]) -> list[int]:
    """The fewest places without which the others ascend."""
    ends: list[int] = []  # of the ascending sequence of each length, the smallest end
    lengths = []
    for place in places:
        length = bisect_left(ends, place)
        ends[length : length + 1] = [place]
        lengths.append(length)
    moved = []
    wanted = len(ends) - 1
    for place, length in zip(reversed(places), reversed(lengths), strict=True):
        if length == wanted:
            wanted -= 1
        else:
            moved.append(place)
    return moved[::-1]


def answers_expected(job: str, calls: list[Call]) -> Sections:
    """What the client must answer of a job: events by time, checkpoints by step, ties as they were called."""
    checkpoints = _checkpoints(calls)
    checkpoints.sort(key=lambda value: value["stepNumber"])
    sections: Sections = {
        f"job {job}": [_last_job(calls)],
        f"checkpoints of {job}": list(map(item_of, checkpoints)),
    }
    events = [call.value for call in calls if call.op == "storeEvent"]
    events.sort(key=lambda event: event["timestamp"])
    for event in events:
        sections.setdefault(events_section(job, event["runId"]), []).append(item_of(event))
    return sections


def tree_expected(job: str, calls: list[Call]) -> Sections:
    """What the tree must hold of a job: events by name of file, those that share it as they were called."""
    last = _last_job(calls)
    indented = orjson.dumps(orjson.loads(last.data), option=orjson.OPT_INDENT_2)
    checkpoints = sorted(map(item_of, _checkpoints(calls)))
    sections: Sections = {f"job {job}": [Item(job, indented)], f"checkpoints of {job}": checkpoints}
    for call in calls:
        if call.op == "storeRunSetting":
            sections[setting_section(job, call.value["runId"])] = [run_item_of(call.value)]
    events = [call.value for call in calls if call.op == "storeEvent"]
    events.sort(key=lambda event: (int(event["timestamp"]), event["stepNumber"], event["type"]))
    for event in events:
        sections.setdefault(events_section(job, event["runId"]), []).append(item_of(event))
    return sections


def listings_expected(jobs: dict[str, list[Call]]) -> Sections:
    """What the listings over all jobs must answer: newest first, ties by id."""
    last = [orjson.loads(_last_job(calls).data) for job, calls in jobs.items()]
    last.sort(key=lambda job: (-job["startedAt"], job["id"]))
    settings = [call.value for calls in jobs.values() for call in calls if call.op == "storeRunSetting"]
    settings.sort(key=lambda setting: (-setting["updatedAt"], setting["jobId"], setting["runId"]))
    return {"all jobs": list(map(item_of, last)), "all runs": list(map(run_item_of, settings))}


def item_of(value: Mapping[str, Any]) -> Item:
    """A job, a checkpoint or an event, with its bytes as they are sent."""
    return Item(value["id"], orjson.dumps(value))


def run_item_of(value: Mapping[str, Any]) -> Item:
    """A run setting."""
    return Item(f"{value['jobId']}/{value['runId']}", orjson.dumps(value))


def events_section(job: str, run: str) -> str:
    """Name of the section for the events of a run."""
    return f"events of {job}/{run}"


def setting_section(job: str, run: str) -> str:
    """Name of the section for the setting of a run."""
    return f"setting of {job}/{run}"


def _last_job(calls: list[Call]) -> Item:
    return item_of([call.value for call in calls if call.op == "storeJob"][-1])


def _checkpoints(calls: list[Call]) -> list[dict[str, Any]]:
    newest = {call.value["id"]: call.value for call in calls if call.op == "storeCheckpoint"}
    return list(newest.values())
