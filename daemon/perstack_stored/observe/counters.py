"""Counters of requests: plain numbers that one thread adds to and another reads.

A reader copies first; a copy is made in one step of the interpreter, so it is consistent.
"""

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

SECONDS_BOUNDS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
COUNT_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
_SAMPLE_SECONDS = 0.1
_SAMPLES_MAX = 4096


class Histogram:
    """Counts values between bounds; `counts` has one more item for those beyond the last."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float, times: int = 1) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times


class RequestCounter:
    """Requests by operation and outcome, and their duration. Each thread has its own."""

    __slots__ = ("outcomes", "seconds")

    def __init__(self) -> None:
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.seconds = Histogram(SECONDS_BOUNDS)

    def note(self, op: str, outcome: str = "ok") -> None:
        """Count an answered request: `outcome` is "ok" or the code of the error."""
        self.outcomes[op, outcome] += 1


class ArrivalTimes:
    """Arrival times of the stores that wait: one entry for all that were drained together."""

    def __init__(self) -> None:
        self._rounds: deque[tuple[float, int]] = deque()

    def came(self, now: float, count: int) -> None:
        """Add `count` stores that arrived at `now`."""
        self._rounds.append((now, count))

    def take(self, count: int) -> list[tuple[float, int]]:
        """Remove the oldest `count` stores; return their arrival times, each with a count."""
        taken = []
        while count:
            since, there = self._rounds.popleft()
            if there > count:
                self._rounds.appendleft((since, there - count))
                there = count
            taken.append((since, there))
            count -= there
        return taken


class PositionHistory:
    """The journal's end over time, as far back as the slowest worker: converts a lag to seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def note(self, now: float, position: int, slowest: int) -> None:
        """Note the end at `position`; entries not above `slowest` are dropped."""
        samples = self._samples
        while samples and samples[0][1] <= slowest:
            samples.popleft()
        newest_time, newest = samples[-1] if samples else (0.0, slowest)
        if position == newest or (now - newest_time < _SAMPLE_SECONDS and samples):
            return
        samples.append((now, position))
        if len(samples) > _SAMPLES_MAX:
            self._samples = deque(list(samples)[::2])

    def lag_seconds(self, now: float, position: int) -> float:
        """Seconds since the first record after a position was stored."""
        for since, end in list(self._samples):
            if end > position:
                return max(0.0, now - since)
        return 0.0


@dataclass
class LoopCounters:
    """Counters of the serving loop."""

    messages: int = 0
    slow_syncs: int = 0
    syncs: Histogram = field(default_factory=lambda: Histogram(SECONDS_BOUNDS))
    commit_records: Histogram = field(default_factory=lambda: Histogram(COUNT_BOUNDS))
    course: PositionHistory = field(default_factory=PositionHistory)
    seen: float = 0.0  # last turn of the loop, on time.monotonic
    tree_is_whole: bool = True  # no file is torn or missing that an unclean stop left so


class ProjectionStatus(Protocol):
    """A worker as metrics see it: its kind, and its process if there is one."""

    @property
    def kind(self) -> str:
        """Which projection: index or tree."""
        ...

    @property
    def pid(self) -> int | None:
        """The process id, while there is a process."""
        ...


class MetricsSource(NamedTuple):
    """Sources of the metrics; they are only read."""

    journal: str  # path of its folder
    store: str
    loop: LoopCounters
    stats: Callable[[], dict[str, Any]]
    requests: list[RequestCounter]  # of the loop, and of reads
    projections: Sequence[ProjectionStatus]
    connections: Callable[[], dict[str, Any]]
    operations: frozenset[str]  # those of the protocol
