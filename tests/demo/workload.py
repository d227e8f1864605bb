"""What the demo's agents store: copies of the captured runs under job ids of their own, in call order."""

from collections import Counter
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any, NamedTuple

from tests.helpers.daemon import captured_run

COPIES = {"a": 3, "b": 3, "c": 1}
"""How many copies of each captured run an agent replays at the same time."""
REFERENCE_LOST = {"a": 77, "b": 224, "c": 157}
"""Events that Perstack's own storage lost of these runs while they were captured."""


class Call(NamedTuple):
    """A store: the operation and its value."""

    op: str
    value: dict[str, Any]


Jobs = dict[str, list[Call]]
"""The calls of each job, in order. One process makes all the calls of a job."""


class Loss(NamedTuple):
    """What writing the same events straight to files loses."""

    names_taken: int
    captured: int


def jobs_of_agents(agents: int, copies: dict[str, int] | None = None) -> list[Jobs]:
    """The jobs of each agent."""
    copies = copies or COPIES
    captured = {name: captured_run(name) for name in copies}
    return [
        {
            f"agent{agent}-{name}{n}": list(_calls(captured[name], f"agent{agent}-{name}{n}"))
            for name, count in copies.items()
            for n in range(1, count + 1)
        }
        for agent in range(1, agents + 1)
    ]


def _calls(captured: list[tuple[str, dict[str, Any]]], job: str) -> Iterator[Call]:
    known: set[str] = set()
    for op, value in captured:
        if op == "storeEvent" and value["runId"] not in known:
            known.add(value["runId"])
            yield Call("storeRunSetting", run_setting(job, value))
        yield Call(op, {**value, "jobId" if "jobId" in value else "id": job})


def run_setting(job: str, first_event: dict[str, Any]) -> dict[str, Any]:
    """A setting as Perstack stores one when a run starts; its API key is a dummy."""
    return {
        "jobId": job,
        "runId": first_event["runId"],
        "model": "claude-sonnet-4-5",
        "providerConfig": {"providerName": "anthropic", "apiKey": "sk-ant-THIS-IS-NOT-A-REAL-KEY"},
        "expertKey": first_event["expertKey"],
        "input": {"text": "Replay a captured run."},
        "experts": {},
        "reasoningBudget": "low",
        "maxSteps": 100,
        "maxRetries": 10,
        "timeout": 60000,
        "startedAt": first_event["timestamp"],
        "updatedAt": first_event["timestamp"],
        "perstackApiBaseUrl": "https://api.perstack.invalid",
        "env": {"DEMO": "1"},
    }


def interleaved(jobs: Jobs) -> list[tuple[str, Call]]:
    """Job and call, in the order of an agent that runs all its jobs at the same time."""
    turns = zip_longest(*([(job, call) for call in calls] for job, calls in jobs.items()))
    return [turn for turns_at_once in turns for turn in turns_at_once if turn is not None]


def count(agents: list[Jobs]) -> Counter[str]:
    """Number of values by operation."""
    return Counter(call.op for jobs in agents for calls in jobs.values() for call in calls)


def loss_of_direct_writing(agents: list[Jobs]) -> Loss:
    """Events that share a file name with another event of their run, and those lost in the capture."""
    taken = 0
    for jobs in agents:
        for calls in jobs.values():
            events = [call.value for call in calls if call.op == "storeEvent"]
            names = {(e["runId"], int(e["timestamp"]), e["stepNumber"], e["type"]) for e in events}
            taken += len(events) - len(names)
    return Loss(taken, len(agents) * sum(COPIES[name] * lost for name, lost in REFERENCE_LOST.items()))
