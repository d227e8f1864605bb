"""Signs of lost events of a run, derived from the remaining ones. No I/O.

They are signs, not proofs: they follow the order in which Perstack's runtime writes events, and a newer one
may have another. The last step of a run is not judged, as it may be in progress.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from perstack_stored.model.event_types import EVENT_TYPES

STREAMS = ("Reasoning", "RunResult")
_STREAMING = {
    f"{verb}{kind}" for kind in STREAMS for verb in ("startStreaming", "completeStreaming", "stream")
}
# Events that end a step when another one follows.
_STEP_ENDS = {"continueToNextStep", "retry"}
_OF_STEPS = frozenset(EVENT_TYPES) - _STREAMING
# Events of the model's answer.
_ANSWERS = {
    "retry", "callTools", "callInteractiveTool", "callDelegate", "attemptCompletion", "completeRun",
    "stopRunByError",
}  # fmt: skip


class Seen(NamedTuple):
    """An event, or the name of a torn one. `size` is the length of its delta or text, None if it has none."""

    timestamp: int
    step: int
    type: str
    size: int | None = None


class Sign(NamedTuple):
    """A sign of lost events.

    Attributes:
        name: of the finding.
        step: where they are missing.
        reason: what is missing in words.
        events: minimum of lost events by this sign.
        types: of events; a tree that leaves out one of them by a setting may have this sign.
    """

    name: str
    step: int
    reason: str
    events: int
    types: frozenset[str]


class _Step:
    """The events of a step."""

    def __init__(self) -> None:
        self.types: Counter[str] = Counter()
        self.sizes: Counter[str] = Counter()
        self.sized: Counter[str] = Counter()

    def add(self, event: Seen) -> None:
        self.types[event.type] += 1
        if event.size is not None:
            self.sizes[event.type] += event.size
            self.sized[event.type] += 1


def signs(events: list[Seen]) -> Iterator[Sign]:
    """The signs in one run, by step."""
    steps: defaultdict[int, _Step] = defaultdict(_Step)
    for event in events:
        steps[event.step].add(event)
    if not steps:
        return
    first, last = min(steps), max(steps)
    if not any("startRun" in step.types for step in steps.values()):
        yield Sign("gap_state", first, "the run has no startRun", 1, frozenset({"startRun"}))
    ended = any(name.startswith(("completeRun", "stopRun")) for name in steps[last].types)
    before = first - 1
    for number in sorted(steps):
        if number > before + 1:
            missing = f"{before + 1}" if number == before + 2 else f"{before + 1} to {number - 1}"
            reason = f"there is no event of step {missing}"
            yield Sign("gap_step", before + 1, reason, number - before - 1, _OF_STEPS)
        yield from _state_signs(number, steps[number], is_first=number == first, is_last=number == last)
        yield from _stream_signs(number, steps[number], is_open=number == last and not ended)
        before = number


def _state_signs(number: int, step: _Step, *, is_first: bool, is_last: bool) -> Iterator[Sign]:
    types = step.types
    missing: list[tuple[str, set[str]]] = []
    if not is_first and not is_last and not types["startGeneration"]:
        missing.append(("startGeneration", {"startGeneration"}))
    if types["startGeneration"] and not is_last and not types.keys() & _ANSWERS:
        missing.append(("callTools or another answer of the model", _ANSWERS))
    if not is_last and not types.keys() & _STEP_ENDS:
        missing.append(("continueToNextStep", _STEP_ENDS))
    for what, those in missing:
        yield Sign("gap_state", number, f"it has no {what}", 1, frozenset(those))


def _stream_signs(number: int, step: _Step, *, is_open: bool) -> Iterator[Sign]:
    for kind in STREAMS:
        start, complete, delta = f"startStreaming{kind}", f"completeStreaming{kind}", f"stream{kind}"
        starts, completes = step.types[start], step.types[complete]
        ends, pieces = frozenset({start, complete}), frozenset({delta, complete})
        if starts < completes:
            reason = f"{completes} {complete}, but {starts} {start}"
            yield Sign("gap_stream", number, reason, completes - starts, ends)
        elif starts - completes > is_open:
            reason = f"{starts} {start}, but {completes} {complete}"
            yield Sign("gap_stream", number, reason, starts - completes, ends)
        if step.types[delta] and not starts and not completes:
            reason = f"{delta} without {start} and {complete}"
            yield Sign("gap_stream", number, reason, 2 - is_open, ends)
        # A completing event holds the whole text: missing characters were in lost deltas.
        lacking = step.sizes[complete] - step.sizes[delta]
        if lacking > 0 and completes and step.sized[complete] == completes:
            deltas = step.sized[delta]
            events = max(1, round(lacking * deltas / step.sizes[delta])) if step.sizes[delta] else 1
            of = f"of {step.sizes[complete]} characters of text {lacking}"
            yield Sign("gap_deltas", number, f"{of} are in no {delta}: about {events} events", events, pieces)


class Crowding(NamedTuple):
    """How close together events stand whose file names differ only in the timestamp."""

    neighbours: int  # pairs in consecutive milliseconds
    numbered: int  # stored under a numbered name, as this daemon does
    expected_lost: float


def crowding(events: list[Seen]) -> Crowding:
    """Estimate the events that were overwritten by another one of the same millisecond.

    With k of T milliseconds occupied, randomly placed events number -T ln(1 - k/T). Real ones come
    in bursts, so more than that were lost.
    """
    groups: defaultdict[tuple[int, str], Counter[int]] = defaultdict(Counter)
    for event in events:
        groups[event.step, event.type][event.timestamp] += 1
    neighbours = numbered = 0
    expected = 0.0
    for times in groups.values():
        neighbours += sum(time + 1 in times for time in times)
        numbered += times.total() - len(times)
        occupied, span = len(times), max(times) - min(times) + 1
        if occupied >= 3 and occupied < span:  # noqa: PLR2004 - two say nothing of a rate
            expected += max(0.0, -span * math.log(1 - occupied / span) - times.total())
    return Crowding(neighbours, numbered, expected)
