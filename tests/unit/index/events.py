"""Events with ties and repeats, and how the index numbers them."""

from collections.abc import Callable
from random import Random
from typing import Any

from tests.helpers.datadir import Base, event

MakeEvents = Callable[[int, int], list[dict[str, Any]]]


def many_events(count: int, seed: int) -> list[dict[str, Any]]:
    """Events with many ties, fractions and repeats."""
    random = Random(seed)
    times = [
        7,
        7.0,
        7.5,
        7.25,
        8,
        1700000000000.123,
        1700000000000.1235,
        1700000000000,
        1700000000000.9998,
        0.00001,
        0,
    ]
    events: list[dict[str, Any]] = []
    for i in range(count):
        if events and random.random() < 0.1:
            events.append(random.choice(events))
            continue
        step, type_ = random.randint(0, 4), random.choice(["a", "b-c", 'q"uote', "é"])
        events.append(event(id=f"e{i}", timestamp=random.choice(times), stepNumber=step, type=type_))
    return events


def streamed_events(count: int, seed: int) -> list[dict[str, Any]]:
    """Events as a model streams them: many in a millisecond, some late, some of an earlier step."""
    random = Random(seed)
    events: list[dict[str, Any]] = []
    timestamp, step = 1_700_000_000_000, 0
    for i in range(count):
        timestamp += random.random() < 0.15
        step += random.random() < 0.05
        if events and random.random() < 0.1:
            events.append(random.choice(events[-20:]))
            continue
        at = timestamp - random.choice((0,) * 9 + (3,))
        number = max(0, step - random.choice((0,) * 9 + (1,)))
        type_ = random.choice(["streamReasoning", "streamText"])
        events.append(event(id=f"e{i}", timestamp=at, stepNumber=number, type=type_))
    return events


def steady_events(count: int, seed: int) -> list[dict[str, Any]]:
    """Events that mostly have a millisecond of their own, and now and then share one, come late or again."""
    random = Random(seed)
    events: list[dict[str, Any]] = []
    for i in range(count):
        at, step = 1_700_000_000_000 + i, i // 20
        match random.randrange(40):
            case 0:
                at -= random.randrange(5)
            case 1:
                step = max(0, step - 1)
            case 2 if events:
                events.append(random.choice(events[-5:]))
                continue
            case 3:
                events.append(event(id=f"e{i}", timestamp=at + 0.5, stepNumber=step, type="streamText"))
                continue
            case 4:
                events.append(event(id=f"e{i}", timestamp=float(at), stepNumber=step, type="streamText"))
                continue
        events.append(event(id=f"e{i}", timestamp=at, stepNumber=step, type="streamText"))
    return events


def twins(base: Base) -> dict[int, int]:
    """Positions of events without their plain file name."""
    return dict(base.database.execute("SELECT position, n FROM twin").fetchall())
