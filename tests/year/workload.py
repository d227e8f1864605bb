"""What the figures of this folder store: captured runs whose text is each job's own, of 15 agents in turn."""

import sys
import time
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain, zip_longest
from random import Random
from typing import Any

from perstack_storage import Client
from tests.bench.load import event
from tests.helpers.replay import METHODS, Call, calls_of

RUNS = "abbcabbabcababbcabbc"
"""Of 20 jobs: 3 MB and 600 records each, on average."""
AGENTS = 15
EVENT_TYPES = (
    "startRun", "startGeneration", "retry", "callTools", "callInteractiveTool", "callDelegate",
    "resolveToolResults", "attemptCompletion", "finishToolCall", "resumeToolCalls", "finishAllToolCalls",
    "continueToNextStep", "stopRunByInteractiveTool", "stopRunByDelegate", "stopRunByExceededMaxSteps",
    "stopRunByError", "completeRun", "startStreamingReasoning", "streamReasoning",
    "completeStreamingReasoning", "startStreamingRunResult", "streamRunResult", "completeStreamingRunResult",
)  # fmt: skip
_LONG_CHARS = 40


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def jobs(count: int) -> Iterator[Call]:
    """The calls of some jobs: 15 agents store in turn, each one job after the other."""
    for first in range(0, count, AGENTS):
        some = [_job(number) for number in range(first, min(count, first + AGENTS))]
        yield from (call for call in chain.from_iterable(zip_longest(*some)) if call is not None)


def _job(number: int) -> Iterator[Call]:
    name = f"job-{number}"
    for op, value in calls_of(RUNS[number % len(RUNS)], name):
        yield op, _own(value, name)


def _own(value: Any, job: str) -> Any:
    """The same with other text: else the jobs were copies of each other, and would be packed too well."""
    if isinstance(value, dict):
        return {key: _own(one, job) for key, one in value.items()}
    if isinstance(value, list):
        return [_own(one, job) for one in value]
    return _shuffled(value, job) if isinstance(value, str) and len(value) > _LONG_CHARS else value


@lru_cache(4096)
def _shuffled(text: str, job: str) -> str:
    separator = " " if " " in text else ""
    pieces = text.split() if separator else [text[i : i + 4] for i in range(0, len(text), 4)]
    Random(f"{job} {text}").shuffle(pieces)
    return separator.join(pieces)


def store_jobs(client: Client, count: int) -> None:
    """Store some jobs."""
    with client.pipeline() as pipeline:
        for op, value in jobs(count):
            getattr(pipeline, METHODS[op])(value)


def latencies(endpoint: str, agent: int, seconds: float, results: Any) -> None:
    """Store events one after the other, and put the ms that each took; for a process of its own."""
    found = []
    with Client(endpoint, timeout_s=120) as client:
        client.ping()
        until, number = time.monotonic() + seconds, time.time_ns() % 10**9
        while (before := time.monotonic()) < until:
            client.store_event(event(agent, number))
            found.append((before, (time.monotonic() - before) * 1000))
            number += 1
    results.put(found)
