"""Read your writes across clients and runtimes: 16 Node agents and 16 Python agents in a ring on one daemon.

Every second agent is a Node process; of the Python ones every second runs the asyncio client. An agent
learns that its neighbour has stored something, reads just that, stores the next one, and notifies the agent
before it. All do so at once, with each kind of value in turn.
"""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import pytest

from perstack_storage import Client
from tests.client.behaviour import node
from tests.client.behaviour.values import checkpoint, event, job, setting
from tests.helpers.daemon import eventually, running_daemon

AGENTS = 32
ROUNDS = 16
HERE = Path(__file__).parent
ROOT = HERE.parents[2]


def command(number: int, endpoint: str) -> list[str]:
    """What runs an agent: Node, the synchronous Python client, Node, the asyncio one, and so on."""
    if number % 2 == 0:
        return ["node", str(HERE / "ring_agent.mjs"), str(node.BUILT), endpoint]
    return [
        sys.executable,
        "-m",
        "tests.client.behaviour.ring_agent",
        ("sync", "asyncio")[number // 2 % 2],
        endpoint,
    ]


def pass_on(told: IO[bytes], neighbour: IO[bytes], log: list[int]) -> None:
    """Tells an agent of each store of its neighbour as soon as that is acknowledged."""
    for line in told:
        log.append(int(line))
        if len(log) <= ROUNDS:
            neighbour.write(line)
            neighbour.flush()


def has_ended(agents: "list[subprocess.Popen[bytes]]") -> bool:
    """Whether all agents have ended, or one has failed."""
    ended = [agent.poll() for agent in agents]
    return None not in ended or any(ended)


def test_each_of_32_agents_reads_what_another_has_just_stored(tmp_path: Path) -> None:
    """Of 528 stores each one is seen at once, by a process in the other runtime."""
    if (what := node.missing()) is not None:
        assert "CI" not in os.environ, f"{what} must be there"
        pytest.skip(f"needs {what}: see client/typescript/README.md")
    values = {
        "event": event("", 0),
        "job": job(""),
        "checkpoint": checkpoint("", ""),
        "setting": setting(""),
    }
    with running_daemon(tmp_path / "base") as daemon:
        agents = [
            subprocess.Popen(
                command(n, daemon.endpoint), stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
            )
            for n in range(AGENTS)
        ]
        try:
            logs: list[list[int]] = [[] for _ in agents]
            threads = []
            for number, agent in enumerate(agents):
                assert agent.stdin is not None
                neighbour = (number + 1) % AGENTS
                given = {"me": f"agent-{number}", "neighbour": f"agent-{neighbour}", "rounds": ROUNDS}
                agent.stdin.write(json.dumps({**given, "values": values}).encode() + b"\n")
                agent.stdin.flush()
                told = agents[neighbour].stdout
                assert told is not None
                threads.append(threading.Thread(target=pass_on, args=(told, agent.stdin, logs[neighbour])))
            for thread in threads:
                thread.start()
            eventually(lambda: has_ended(agents), "every agent has seen everything", 100)
            assert not [n for n, agent in enumerate(agents) if agent.poll()], "an agent failed: see above"
            assert [agent.wait() for agent in agents] == [0] * AGENTS
            for thread in threads:
                thread.join()
        finally:
            for agent in agents:
                agent.kill()
        assert logs == [list(range(ROUNDS + 1))] * AGENTS
        with Client(daemon.endpoint) as client:
            assert client.read_all(limit=1).position == AGENTS * (ROUNDS + 1)
