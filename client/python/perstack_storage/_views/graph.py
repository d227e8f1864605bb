"""The runs of a job and how they hang together: who delegated to whom, and who goes on for whom. No I/O.

A run that delegates stops. Its delegates run side by side, and say in `delegatedBy` for which tool call. Then
a new run of the same expert goes on with their results. It does not say for which run: that is inferred.
Usage is cumulative within a run, and a run that goes on begins with the sum of those before it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from perstack_storage._views.wording import error_text, object_of, objects_of, text_in

USAGE_FIELDS = ("inputTokens", "outputTokens", "reasoningTokens", "cachedInputTokens", "totalTokens")
STOPPED = "stoppedByDelegate"
STATUS_OF_TYPE = {
    "completeRun": "completed",
    "stopRunByDelegate": STOPPED,
    "stopRunByInteractiveTool": "stoppedByInteractiveTool",
    "stopRunByExceededMaxSteps": "stoppedByExceededMaxSteps",
    "stopRunByError": "stoppedByError",
}
Usage = dict[str, float]


def usage_of(value: Any) -> Usage:
    """The numbers of a usage; what is not there, or no number, counts as 0."""
    found = object_of(value)
    numbers = {name: found.get(name) for name in USAGE_FIELDS}
    return {name: n if isinstance(n, int | float) else 0 for name, n in numbers.items()}


def added(usages: Iterable[Usage]) -> Usage:
    """The sum of usages."""
    total: Usage = dict.fromkeys(USAGE_FIELDS, 0)
    for usage in usages:
        for name in USAGE_FIELDS:
            total[name] += usage[name]
    return total


@dataclass
class Run:
    """What is known of a run; times in milliseconds since 1970.

    Attributes:
        begun_with: usage at its start; None where that is not known.
        reached: usage of its last checkpoint; None where there is none.
        calls: ids of the tool calls that it delegated.
        results: ids of the tool calls with whose results it began.
    """

    id: str
    expert: str = ""
    model: str = ""
    status: str = ""
    first_step: int | None = None
    last_step: int | None = None
    started: float | None = None
    ended: float | None = None
    events: int = 0
    delegated_by: str | None = None
    delegated_call: str = ""
    continues: str | None = None
    begun_with: Usage | None = None
    reached: Usage | None = None
    error: str = ""
    calls: frozenset[str] = frozenset()
    results: frozenset[str] = frozenset()
    children: list["Run"] = field(default_factory=list)

    def take_event(self, event: Any) -> None:
        """Learn from its first event."""
        self.expert = self.expert or event["expertKey"]
        if event["type"] != "startRun":
            return
        first = object_of(event, "initialCheckpoint")
        self._take_delegation(first)
        self.begun_with = usage_of(first.get("usage"))
        self.results = _call_ids(first, "partialToolResults", "id")

    def take_checkpoint(self, checkpoint: Any) -> None:
        """Learn from a checkpoint; those of later steps come later."""
        self.expert = text_in(object_of(checkpoint, "expert"), "key") or self.expert
        self._take_delegation(checkpoint)
        self.status = checkpoint["status"]
        self.reached = usage_of(checkpoint["usage"])
        self.error = error_text(object_of(checkpoint, "error"))
        self.calls |= _call_ids(checkpoint, "delegateTo", "toolCallId")
        self._take_step(checkpoint["stepNumber"])

    def take_meta(self, meta: Any) -> None:
        """Learn from time, step and type of an event."""
        self.events += 1
        at = meta["timestamp"]
        self.started = at if self.started is None else min(self.started, at)
        self.ended = at if self.ended is None else max(self.ended, at)
        self._take_step(meta["stepNumber"])
        if meta["type"] in STATUS_OF_TYPE and self.reached is None:
            self.status = STATUS_OF_TYPE[meta["type"]]

    def _take_step(self, step: int) -> None:
        self.first_step = step if self.first_step is None else min(self.first_step, step)
        self.last_step = step if self.last_step is None else max(self.last_step, step)

    def _take_delegation(self, checkpoint: Any) -> None:
        by = object_of(checkpoint, "delegatedBy")
        if by and isinstance(by.get("runId"), str):
            self.delegated_by = by["runId"]
            self.delegated_call = text_in(by, "toolCallId")

    @property
    def own(self) -> Usage | None:
        """What it used itself: what it reached without what it began with; None where it is not known."""
        if self.reached is None:
            return None
        start = self.begun_with or {}
        return {name: self.reached[name] - start.get(name, 0) for name in USAGE_FIELDS}


def _call_ids(checkpoint: Any, name: str, key: str) -> frozenset[str]:
    return frozenset(text_in(item, key) for item in objects_of(checkpoint, name))


class Placed(NamedTuple):
    """A run in the tree, and which of the runs above it, and it itself, are the last of their level."""

    run: Run
    last: tuple[bool, ...]


def connect(runs: list[Run]) -> list[Run]:
    """Give each run its children and the run that it continues; returns the runs that none delegated to."""
    known = {run.id: run for run in runs}
    ordered = sorted(runs, key=lambda run: (run.started is None, run.started or 0, run.first_step or 0))
    stopped: dict[tuple[str | None, ...], list[Run]] = {}
    for run in ordered:
        waiting = stopped.setdefault((run.expert, run.delegated_by, run.delegated_call), [])
        before = _continued(run, waiting)
        if before is not None:
            run.continues = before.id
            waiting.remove(before)
        if run.status == STOPPED:
            waiting.append(run)
    roots = []
    for run in ordered:
        parent = known.get(run.delegated_by) if run.delegated_by is not None else None
        if parent is None or parent is run:
            roots.append(run)
        else:
            parent.children.append(run)
    for run in ordered:
        if run.begun_with is None and run.continues is not None:
            before = known[run.continues]
            ends = [one.reached for one in (before, *before.children) if one.reached is not None]
            run.begun_with = added(ends)
    return roots


def _continued(run: Run, waiting: list[Run]) -> Run | None:
    """The run that this one goes on for: one that stopped before, if possible with its tool calls."""
    fitting = [
        before
        for before in waiting
        if (before.last_step or 0) < (run.first_step or 0) and (before.ended or 0) <= (run.started or 0)
    ]
    if not fitting:
        return None
    sure = [before for before in fitting if run.results and run.results <= before.calls]
    return (sure or fitting)[-1]


def walk(roots: list[Run], runs: list[Run]) -> Iterator[Placed]:
    """All runs from the roots down, each once; then those that delegate to each other in a ring."""
    seen: set[str] = set()
    for start in (roots, runs):
        todo = _level([run for run in start if run.id not in seen], ())
        while todo:
            placed = todo.pop()
            if placed.run.id in seen:
                continue
            seen.add(placed.run.id)
            yield placed
            todo += _level(placed.run.children, placed.last)


def _level(runs: list[Run], above: tuple[bool, ...]) -> list[Placed]:
    """The runs of a level, the first one last, as a stack has them."""
    return [Placed(run, (*above, number == 0)) for number, run in enumerate(reversed(runs))]
