"""Two processes resume one job, over and over, while the daemon and they themselves are killed.

In each round both resume the job and both store for it: exactly one goes on, and its event is there once.
"""

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from perstack_storage import Client
from tests.crash.in_parts import plan_from, play
from tests.crash.progress import Figures, Progress
from tests.crash.resume_agent import JOB, RUN
from tests.helpers.daemon import RunningDaemon, running_daemon

DAEMON_KILLED_EVERY = 40
AGENT_KILLED_EVERY = 25
_DONE = ("stored", "taken")


class Agent:
    """One of the two processes."""

    def __init__(self, endpoint: str, who: str) -> None:
        self._command = [sys.executable, "-m", "tests.crash.resume_agent", endpoint, who]
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def tell(self, line: str) -> None:
        """Give it a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def hear(self) -> str:
        """Wait for its answer, and return the first word."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "a process ended by itself"
        return line.split()[0]

    def kill(self) -> None:
        """Kill it, and start another in its place."""
        self.end()
        self._start()

    def end(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.communicate()


def take_over(rounds: int, seed: int, folder: Path, progress: Progress | None = None) -> Figures:
    """Play rounds.

    Raises:
        AssertionError: both went on in a round, or neither, or an event is there twice or missing.
    """
    chance = random.Random(seed)
    figures: Figures = {"rounds": 0, "killedDaemons": 0, "killedAgents": 0, "lost": 0, "doubled": 0}
    with running_daemon(folder / "base") as daemon:
        agents = [Agent(daemon.endpoint, who) for who in "ab"]
        try:
            for n in range(1, rounds + 1):
                if progress is not None and progress.time_is_up:
                    break
                _play(daemon, agents, n, chance, figures)
                figures["rounds"] = n
                if progress is not None:
                    progress.tell(figures)
                    progress(n)
        finally:
            for agent in agents:
                agent.end()
        _judge(daemon, figures)
    return figures


def _play(
    daemon: RunningDaemon, agents: list[Agent], n: int, chance: random.Random, figures: Figures
) -> None:
    for agent in agents:
        agent.tell("resume")
    assert [agent.hear() for agent in agents] == ["ready"] * 2
    for agent in chance.sample(agents, 2):
        agent.tell(f"store {n}")
    if chance.randrange(DAEMON_KILLED_EVERY) == 0:
        figures["killedDaemons"] += 1
        daemon.kill()
        daemon.start()
    killed = chance.choice(agents) if chance.randrange(AGENT_KILLED_EVERY) == 0 else None
    if killed is not None:
        figures["killedAgents"] += 1
        killed.kill()
    outcomes = [agent.hear() for agent in agents if agent is not killed]
    assert all(outcome in _DONE for outcome in outcomes), outcomes
    if killed is None:
        assert sorted(outcomes) == sorted(_DONE), f"round {n}: {outcomes}"


def _judge(daemon: RunningDaemon, figures: Figures) -> None:
    """Each round has one event: the survivor's, or that of the one that was killed."""
    with Client(daemon.endpoint) as client:
        events: list[Any] = client.get_event_contents(JOB, RUN)
    numbers = [event["n"] for event in events]
    expected = list(range(1, int(figures["rounds"]) + 1))
    figures["doubled"] = len(numbers) - len(set(numbers))
    figures["lost"] = len(set(expected) - set(numbers))
    assert numbers == expected, f"{figures}: the rounds' events are not there once each"


def campaign(rounds: int, seed: int, folder: Path, progress: Progress) -> Figures:
    """The rounds as a campaign of `make soak`."""
    return take_over(rounds, seed, folder, progress)


def main() -> int:
    """Play all rounds in parts; `--results` lets a run go on."""
    return play(plan_from(sys.argv[1:], "takeover", 10_000, 500), take_over)


if __name__ == "__main__":
    sys.exit(main())
