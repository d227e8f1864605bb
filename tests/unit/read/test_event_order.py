"""Events in blocks and in rows come in one order, page by page, while more are stored."""

from random import Random
from typing import Any

import pytest

from perstack_stored.index import event_blocks, event_reader, event_writer
from perstack_stored.model.kinds import Kind
from tests.helpers.datadir import Base, event

RUN = {"jobId": "job-1", "runId": "run-1"}
Events = list[dict[str, Any]]


@pytest.fixture
def base(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Base:
    """A base with blocks and portions so small that a short run has many."""
    monkeypatch.setattr(event_blocks, "EVENTS_MAX", 4)
    monkeypatch.setattr(event_reader, "EVENTS_MAX", 4)
    monkeypatch.setattr(event_reader, "PORTION", 6)
    monkeypatch.setattr(event_writer, "_BLOCKS_CACHED_MAX", 1)
    return Base(tmp_path / "base")


def some_events(random: Random, count: int, late: float) -> Events:
    """Events of a run, mostly one after the other, some late, repeated, or with a fraction."""
    events: Events = []
    timestamp, step = 1_700_000_000_000, 0
    for i in range(count):
        timestamp += random.choice((0, 0, 1, 5))
        step += random.random() < 0.2
        at: float = timestamp
        number = step
        if random.random() < late:
            at = timestamp - random.randint(0, 30) + random.choice((0, 0.5))
            number = max(0, step - random.randint(0, 2))
        events.append(event(id=f"e{i}", timestamp=at, stepNumber=number, type=random.choice("ab")))
        if random.random() < late:
            events.append(random.choice(events))
    return events


def kept(events: Events) -> Events:
    """Events without those that repeat an earlier one."""
    return [one for i, one in enumerate(events) if one not in events[:i]]


@pytest.mark.parametrize("late", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_every_page_continues_the_one_before(base: Base, seed: int, late: float) -> None:
    """By step and by time, for each size of a page, and as of each moment."""
    random = Random(seed)
    events = some_events(random, 60, late)
    stored = 0
    while stored < len(events):
        count = random.randint(1, 12)
        base.store(*((Kind.EVENT, one) for one in events[stored : stored + count]))
        stored += count
        expected = kept(events[:stored])
        by_step = sorted(expected, key=lambda one: one["stepNumber"])
        by_time = sorted(expected, key=lambda one: one["timestamp"])
        metas = [{name: one[name] for name in ("timestamp", "stepNumber", "type")} for one in by_step]
        assert base.ask("getEventsByRun", **RUN)[0] == metas
        assert base.ask("getEventContents", **RUN)[0] == by_time
        limit = random.choice((1, 3, 5, 7, 100))
        assert base.walk("getEventsByRun", limit, **RUN) == metas
        assert base.walk("getEventContents", limit, **RUN) == by_time
        step = random.randint(0, 12)
        upto = [one for one in by_time if one["stepNumber"] <= step]
        assert base.ask("getEventContents", **RUN, maxStep=step)[0] == upto
        assert base.walk("getEventContents", limit, **RUN, maxStep=step) == upto
