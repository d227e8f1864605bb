"""Starts the agents of a round at once, and joins their figures."""

import json
import random
import subprocess
import sys
from pathlib import Path

from tests.bench.load import RESERVOIR, Load

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent


class Worked:
    """What the agents of a round did.

    Attributes:
        count: events acknowledged.
        begin, end: of the work, steady clock.
        latencies_ms: a sample.
    """

    def __init__(self, count: int, begin: float, end: float, latencies_ms: list[float]) -> None:
        self.count = count
        self.begin = begin
        self.end = end
        self.latencies_ms = thinned(latencies_ms)


def python_agents(driver: str, address: str, load: Load, first: int = 0) -> Worked:
    """The agents of agent.py."""
    return gathered([agents_of(driver, address, load, first)])


def agents_of(driver: str, address: str, load: Load, first: int = 0) -> list[str]:
    """The command that runs the agents of agent.py."""
    numbers = (first, load.processes, load.in_flight, load.seconds, load.rate)
    return [sys.executable, "-m", "tests.bench.agent", driver, address, *map(str, numbers)]


def node_agents(script: str, address: str, load: Load, *more: str) -> Worked:
    """Agents in JavaScript, one process each; what they take and print is as in agent.py."""
    return gathered(
        [
            [
                *("node", str(HERE / script), address, str(agent), str(load.in_flight), str(load.seconds)),
                *(str(load.rate), *more),
            ]
            for agent in range(load.processes)
        ]
    )


def gathered(commands: list[list[str]]) -> Worked:
    """Starts all, waits until all are ready, lets them begin, and collects what they print."""
    running = [
        subprocess.Popen(c, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for c in commands
    ]
    try:
        for process, command in zip(running, commands, strict=True):
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise SystemExit(f"an agent did not start: {command}")
        for process in running:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        parts = [json.loads(process.communicate()[0]) for process in running]
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
                process.wait()
    agents = [agent for part in parts for agent in part["agents"]]
    return Worked(
        sum(agent["count"] for agent in agents),
        min(part["begin"] for part in parts),
        max(agent["end"] for agent in agents),
        [latency for agent in agents for latency in agent["latencies"]],
    )


def thinned(values: list[float]) -> list[float]:
    """A sample that is small enough for the report."""
    return values if len(values) <= RESERVOIR else random.sample(values, RESERVOIR)
