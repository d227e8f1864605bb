"""Events in blocks and in rows come in one order, page by page, while more are stored."""

from random import Random
from typing import Any

import pytest

from perstack_stored.index import event_blocks, event_reader, last_blocks
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
    monkeypatch.setattr(last_blocks, "_BLOCKS_CACHED_MAX", 1)
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


@pytest.mark.parametrize("late", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_filters_and_the_other_direction(base: Base, seed: int, late: float) -> None:
    """Whole and in pages, whatever the filters leave."""
    random = Random(seed)
    events = some_events(random, 90, late)
    events[40] = events[40] | {"type": "rare"}
    for start in range(0, len(events), 11):
        base.store(*((Kind.EVENT, one) for one in events[start : start + 11]))
    by_time = sorted(kept(events), key=lambda one: one["timestamp"])
    for _ in range(30):
        first, last = random.randint(-1, 14), random.randint(-1, 20)
        types = random.choice((None, [], ["a"], ["rare"], ["a", "b", "none"]))
        backward = random.random() < 0.6
        wanted = [
            one
            for one in by_time
            if first <= one["stepNumber"] <= last and (types is None or one["type"] in types)
        ]
        arguments = {**RUN, "types": types, "minStep": first, "maxStep": last, "newestFirst": backward}
        expected = wanted[::-1] if backward else wanted
        assert base.ask("getEventContents", **arguments)[0] == expected
        limit = random.choice((1, 2, 5, 7, 100))
        assert base.walk("getEventContents", limit, **arguments) == expected


def test_the_last_events_cost_what_they_are(base: Base) -> None:
    """Few blocks are decoded for a page at the end."""
    for i in range(100):
        base.store(*((Kind.EVENT, event(id=f"e{i}-{j}", timestamp=10 * i + j)) for j in range(4)))
    decoded: list[object] = []
    decode = event_reader.decode_block

    def counting(data: object) -> event_blocks.EventBlock:
        decoded.append(data)
        return decode(data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_reader, "decode_block", counting)
        page, _ = base.ask("getEventContents", **RUN, newestFirst=True, limit=2)
    assert [one["id"] for one in page] == ["e99-3", "e99-2"]
    assert len(decoded) <= 4


def test_a_page_costs_itself_however_many_events_share_a_timestamp(base: Base) -> None:
    """Wherever in the run it begins."""
    count = 1500
    base.store(*((Kind.EVENT, event(id=f"e{i}", timestamp=7, type=f"t{i % 50}")) for i in range(count)))
    steps = [0]

    def step() -> int:
        steps[0] += 1
        return 0

    base.database.set_progress_handler(step, 100)
    for position in (700, 1400):
        steps[0] = 0
        found, fields = base.ask("getEventContents", **RUN, limit=5, after=[7, position])
        assert [one["id"] for one in found] == [f"e{i}" for i in range(position, position + 5)]
        assert fields == {"next": [7, position + 5]}
        assert steps[0] < 20
