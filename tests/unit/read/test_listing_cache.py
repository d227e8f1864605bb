"""Listings of events that are kept: what comes of them is what the index alone would give."""

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import pytest

from perstack_stored.model.kinds import Kind
from perstack_stored.read import event_queries
from perstack_stored.read import listing_cache as listings
from perstack_stored.read.event_queries import get_events_by_run
from perstack_stored.read.listing_cache import Cursor, ListingCache
from perstack_stored.read.source import Source
from tests.helpers.datadir import Base, event, set_query_limit
from tests.unit.index.test_gaps import gap_of

RUN = {"jobId": "job-1", "runId": "run-1"}
Metas = list[dict[str, Any]]


@pytest.fixture
def base(tmp_path: Path) -> Base:
    return Base(tmp_path / "base")


def store(base: Base, *steps: int, run: str = "run-1", start: int = 0) -> Metas:
    """Store an event of each step; what a listing says of them."""
    events = [
        event(id=f"e{start + i}", timestamp=start + i, stepNumber=step, runId=run)
        for i, step in enumerate(steps)
    ]
    base.store(*((Kind.EVENT, e) for e in events))
    return [{name: e[name] for name in ("timestamp", "stepNumber", "type")} for e in events]


def listing(base: Base, run: str = "run-1") -> Metas:
    return list(base.ask("getEventsByRun", jobId="job-1", runId=run)[0])


def begun(base: Base) -> Iterator[bytes]:
    source = Source(base.database, base.reader, base.listings)
    return map(bytes, get_events_by_run(source, RUN).pieces)


def pages_made(base: Base, run: str = "run-1") -> list[Cursor]:
    """The cursors of the pages that a listing makes of events."""
    with patch.object(event_queries, "_meta_page", wraps=event_queries._meta_page) as made:
        listing(base, run)
    return [call.args[2] for call in made.call_args_list]


@pytest.mark.parametrize("page_rows", [1, 2, 5, 1000])
@pytest.mark.parametrize("join_bytes", [0, 150, 1 << 18])
def test_a_growing_listing_equals_that_of_the_index(
    base: Base, monkeypatch: pytest.MonkeyPatch, page_rows: int, join_bytes: int
) -> None:
    """Read after each few events, of later steps mostly and at times of earlier ones, nothing is missing."""
    set_query_limit(monkeypatch, "PAGE_ROWS", page_rows)
    monkeypatch.setattr(listings, "_JOIN_BYTES_MAX", join_bytes)
    random = Random(page_rows)
    stored: Metas = []
    step = 0
    for _ in range(30):
        step += random.randint(0, 1)
        count = random.choice((0, 1, 3, 7))
        steps = [max(0, step - (random.random() < 0.05) * random.randint(0, 9)) for _ in range(count)]
        if steps:
            stored += store(base, *steps, start=len(stored))
        store(base, 0, run="other", start=len(stored) * 100)
        assert listing(base) == sorted(stored, key=lambda meta: meta["stepNumber"])


def test_a_listing_is_made_once(base: Base) -> None:
    """Read again it takes no row; when events have come, only those are made text of."""
    first = store(base, 0, 0, 1)
    assert len(pages_made(base)) == 1
    assert pages_made(base) == []
    store(base, 0, run="other")
    assert pages_made(base) == []
    second = store(base, 1, 2, start=3)
    assert pages_made(base) == [(1, 3)]
    assert pages_made(base) == []
    assert listing(base) == first + second


def test_the_end_of_a_listing_is_kept_where_it_fills_its_pages(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That nothing comes after the last full page is not asked again."""
    set_query_limit(monkeypatch, "PAGE_ROWS", 3)
    monkeypatch.setattr(listings, "_JOIN_BYTES_MAX", 0)
    stored = store(base, *([1] * 6))
    assert len(pages_made(base)) == 3
    assert pages_made(base) == []
    assert listing(base) == stored


def test_an_event_of_an_earlier_step_takes_its_place(base: Base) -> None:
    """One of the same step comes after those that were stored before it."""
    store(base, 1, 2, 2)
    assert [meta["stepNumber"] for meta in listing(base)] == [1, 2, 2]
    store(base, 0, 1, start=3)
    assert [meta["timestamp"] for meta in listing(base)] == [3, 0, 4, 1, 2]


def test_a_lost_event_that_is_stored_again_is_in_the_next_listing(base: Base) -> None:
    """Its place is by its new position, and it was in none before."""
    lost = event(id="lost", timestamp=0, stepNumber=1)
    base.store((Kind.GAP, gap_of(lost, 1)))
    store(base, 1, 2, start=1)
    assert [meta["timestamp"] for meta in listing(base)] == [1, 2]
    base.store((Kind.EVENT, lost))
    assert [meta["timestamp"] for meta in listing(base)] == [1, 0, 2]


@pytest.mark.parametrize("step", [0, 9])
@pytest.mark.parametrize("room", [1 << 20, 0])
def test_readers_beside_each_other_get_what_was_there_when_they_began(
    base: Base, monkeypatch: pytest.MonkeyPatch, step: int, room: int
) -> None:
    """Listings are kept, continued, made again or dropped while a client pulls one."""
    set_query_limit(monkeypatch, "PAGE_ROWS", 2)
    monkeypatch.setattr(listings, "_JOIN_BYTES_MAX", 100)
    base.listings = ListingCache(room)
    stored: Metas = []
    readers: list[tuple[int, list[bytes], Iterator[bytes]]] = []
    random = Random(step)
    for _ in range(12):
        stored += store(base, *([9] * 3), step, start=len(stored))
        readers.append((len(stored), [], begun(base)))
        for _, pieces, rest in readers:
            pieces += [next(rest, b"") for _ in range(random.randint(0, 4))]
        if random.random() < 0.3:
            listing(base)
    for count, pieces, rest in readers:
        found = json.loads(b"".join([*pieces, *rest]))
        assert found == sorted(stored[:count], key=lambda meta: meta["stepNumber"])


def test_what_is_kept_is_bounded(base: Base) -> None:
    """Of many runs, those without events too, the ones that were read last stay."""
    base.listings = ListingCache(40_000)
    stored = {f"r{i}": store(base, *([1] * 20), run=f"r{i}") for i in range(40)}
    for run, metas in stored.items():
        assert listing(base, run) == metas
        assert listing(base, f"no {run}") == []
        assert run == "r0" or pages_made(base, "r0") == []
        assert base.listings.size <= 40_000
    assert pages_made(base, "r39") == []
    assert len(pages_made(base, "r1")) == 1
    assert listing(base, "r1") == stored["r1"]


def test_readers_of_listings_that_are_gone_take_no_room(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they make is theirs; in the end there is room for the listing as before."""
    set_query_limit(monkeypatch, "PAGE_ROWS", 2)
    base.listings = ListingCache(80_000)
    for i in range(120, 0, -2):
        store(base, i, 200, 200, start=10 * i)
        reader = begun(base)
        assert len([next(reader) for _ in range(3)]) == 3
        store(base, i - 1, start=10 * i - 1)
        listing(base)
        list(reader)
    assert pages_made(base) == []


def test_of_a_long_listing_the_beginning_is_kept(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of the room is one listing's at most; the rest is made for each read."""
    set_query_limit(monkeypatch, "PAGE_ROWS", 10)
    base.listings = ListingCache(20_000)
    stored = store(base, *([1] * 100))
    store(base, *([1] * 10), run="small")
    assert len(listing(base, "small")) == 10
    for _ in range(3):
        assert listing(base) == stored
        assert base.listings.size <= 20_000 // 2
    assert 0 < len(pages_made(base)) < 10
    assert pages_made(base, "small") == []
