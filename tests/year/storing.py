"""Processes that store while something else goes on."""

import multiprocessing
from typing import Any

from tests.year.workload import latencies

_spawn = multiprocessing.get_context("spawn")


class Storing:
    """Agents, each a process with one event in flight."""

    def __init__(self, endpoint: str, agents: int, seconds: float) -> None:
        """Start them."""
        self._results: Any = _spawn.Queue()
        self._processes = [
            _spawn.Process(target=latencies, args=(endpoint, number, seconds, self._results))
            for number in range(agents)
        ]
        for process in self._processes:
            process.start()

    @property
    def is_going(self) -> bool:
        """Whether the agents still store."""
        return bool(self._results.empty())

    def join(self) -> list[tuple[float, float]]:
        """Wait for them; when each store began, by the monotonic clock, and the ms that it took."""
        found = [one for _ in self._processes for one in self._results.get(timeout=600)]
        for process in self._processes:
            process.join(timeout=120)
            assert process.exitcode == 0
        return found
