"""What an answer to `readAll` may hold, without any code of the daemon."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tests.simulation.clients import Violation
from tests.simulation.expected import DELETION, EVENT, GAP, JOB, Stored
from tests.simulation.promises import removes
from tests.simulation.workload import op_of


class Asked(NamedTuple):
    """A read: its arguments, and the position of the last record that it must know of."""

    arguments: Mapping[str, Any]
    least: int


def check_answer(
    asked: Asked, following: int, items: Sequence[Mapping[str, Any]], records: list[Stored]
) -> None:
    """Of each job it shows what there was at one moment, at which all that had to be known was known.

    Args:
        asked: the read.
        following: `next` of the answer.
        items: its records.
        records: the records that the index has, or had, from the first one on.

    Raises:
        Violation: a job is shown in part, or something that was deleted before, or is wrong.
    """
    after = asked.arguments.get("after", 0)
    positions = [item["position"] for item in items]
    if positions != sorted(set(positions)) or (positions and not after < positions[0] <= following):
        raise Violation(f"readAll after {after} up to {following} shows {positions}")
    if following <= after:
        return
    least = max(asked.least, following)
    if least > len(records):
        raise Violation(f"a read was answered before the index knew of position {least}")
    _check_values(asked, items, records)
    moments = [readable(records[:until]) for until in _moments(records, least)]
    for job in {_job_of(stored) for stored in records[:following]}:
        shown = {position for position in positions if _job_of(records[position - 1]) == job}
        possible = [
            {
                stored.position
                for stored in moment
                if after < stored.position <= following
                and _job_of(stored) == job
                and _is_wanted(stored, asked.arguments)
            }
            for moment in moments
        ]
        if shown not in possible:
            raise Violation(
                f"readAll {dict(asked.arguments)} up to {following} shows of {job} {sorted(shown)}, which is"
                f" not as of {least} or later: {sorted(possible[0])}"
            )


def readable(records: Sequence[Stored]) -> list[Stored]:
    """The records that are left of some: nothing that was deleted, and no repeat of an event."""
    left: list[Stored] = []
    names: dict[str, set[bytes]] = {}
    for stored in records:
        value = json.loads(stored.payload)
        if stored.kind == DELETION:
            left = [one for one in left if not removes(value, one)]
            if "setting" not in value:
                folder = f"{value['jobId']}/" + (f"{value['runId']}/" if "runId" in value else "")
                names = {name: known for name, known in names.items() if not name.startswith(folder)}
        if stored.kind == EVENT:
            name = f"{value['jobId']}/{value['runId']}/"
            name += f"{int(value['timestamp'])}-{value['stepNumber']}-{value['type']}"
            known = names.setdefault(name, set())
            if stored.payload in known:
                continue
            known.add(stored.payload)
        if stored.kind != GAP:
            left.append(stored)
    return left


def _moments(records: list[Stored], least: int) -> Iterator[int]:
    """Positions of the index, from a least one on, between which deletions lie."""
    yield least
    yield from (stored.position for stored in records if stored.kind == DELETION and stored.position > least)


def _check_values(asked: Asked, items: Sequence[Mapping[str, Any]], records: list[Stored]) -> None:
    for item in items:
        stored = records[item["position"] - 1]
        value = json.loads(stored.payload)
        for name in asked.arguments.get("omit", ()):
            value.pop(name, None)
        if (item["op"], item["value"]) != (op_of(stored.kind, stored.payload), value):
            raise Violation(f"position {stored.position} is shown with another value")


def _job_of(stored: Stored) -> str:
    value = json.loads(stored.payload)
    return str(value["id"] if stored.kind == JOB else value["jobId"])


def _is_wanted(stored: Stored, arguments: Mapping[str, Any]) -> bool:
    value = json.loads(stored.payload)
    if arguments.get("jobId", _job_of(stored)) != _job_of(stored):
        return False
    # A deletion of the whole job concerns each of its runs.
    if "runId" in arguments and value.get("runId") != arguments["runId"]:
        return stored.kind == DELETION and "runId" not in value
    ops = arguments.get("ops")
    if ops is not None and op_of(stored.kind, stored.payload) not in ops:
        return False
    types = arguments.get("types")
    if types is None:
        return True
    return value["type"] in types if stored.kind == EVENT else ops is not None
