"""The work of a contender in one round, and its figures."""

import math
from typing import Any, NamedTuple

PAD = "x" * 850
RESERVOIR = 4_000


class Load(NamedTuple):
    """Work of one round.

    Attributes:
        processes: agents, each a process of its own.
        in_flight: how many events each has under way.
        seconds: how long each works.
        rate: events/s that each agent offers, 0 for as many as it can.
    """

    processes: int
    in_flight: int
    seconds: float
    rate: float = 0.0

    @property
    def name(self) -> str:
        """Its name in tables."""
        paced = f" at {self.rate * self.processes:,.0f}/s" if self.rate else ""
        return f"{self.processes} x {self.in_flight}{paced}"


class Round(NamedTuple):
    """Figures of one contender in one round.

    Attributes:
        stored: events acknowledged.
        rate: the same for each second up to the last answer.
        complete_rate: the same for each second up to the tree's last file.
        latencies_ms: a sample of at most some thousands, of a whole window where many are in flight.
        audited: events that are stored.
    """

    stored: int
    rate: float
    complete_rate: float
    latencies_ms: list[float]
    audited: int

    def latency(self, quantile: float) -> float:
        """Returns a quantile of the latencies; NaN without any."""
        return percentile(self.latencies_ms, quantile)


def event(agent: int, i: int) -> dict[str, Any]:
    """The event that direct_files.mjs writes."""
    return {
        "type": "streamReasoning",
        "id": f"{agent}-{i}",
        "expertKey": "@acme/e@1.0.0",
        "timestamp": 1795406152251 + i,
        "jobId": f"job{agent}",
        "runId": "run1",
        "stepNumber": i // 50,
        "delta": PAD,
    }


def percentile(values: list[float], quantile: float) -> float:
    """Returns a quantile, the value at or above it; NaN of nothing."""
    if not values:
        return math.nan
    return sorted(values)[min(len(values) - 1, math.ceil(len(values) * quantile) - 1 if quantile else 0)]
