"""Events in the index: their order, numbers of those that share a file name, and repeats."""

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from crc32c import crc32c

from perstack_stored.index import event_writer, run_state, writer
from perstack_stored.index.value_lookup import read_value
from perstack_stored.journal import entry_format
from perstack_stored.journal.writer import Append
from perstack_stored.model.kinds import Kind
from perstack_stored.read import queries
from perstack_stored.read.source import Source
from tests.helpers.datadir import Base, dumps, event, set_query_limit
from tests.unit.index.events import MakeEvents, many_events, steady_events, streamed_events, twins

RUN = {"jobId": "job-1", "runId": "run-1"}


@pytest.fixture
def base(tmp_path: Path) -> Base:
    return Base(tmp_path / "base")


def kept(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Events without those that repeat an earlier one."""
    found: dict[bytes, dict[str, Any]] = {}
    for e in events:
        found.setdefault(dumps(e), e)
    return list(found.values())


@pytest.fixture(params=[3, 20, 10_000])
def page_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Listings are made of pages with this number of rows."""
    set_query_limit(monkeypatch, "PAGE_ROWS", request.param)
    set_query_limit(monkeypatch, "PLACES_ROWS", request.param)
    return int(request.param)


@pytest.mark.parametrize("seed", [1, 2])
def test_events_come_in_their_order_exactly_once(base: Base, page_rows: int, seed: int) -> None:
    """By step or by timestamp, ties in the order stored; whole, paged or through cursors, it is the same."""
    events = many_events(150, seed)
    for i in range(0, len(events), 7):
        base.store(
            *((Kind.EVENT, e) for e in events[i : i + 7]), (Kind.EVENT, event(runId="other", id=str(i)))
        )
    expected = kept(events)
    contents = sorted(expected, key=lambda e: e["timestamp"])
    metas = [
        {k: e[k] for k in ("timestamp", "stepNumber", "type")}
        for e in sorted(expected, key=lambda e: e["stepNumber"])
    ]
    assert base.ask("getEventContents", **RUN)[0] == contents
    assert base.ask("getEventsByRun", **RUN)[0] == metas
    for limit in (1, 3, 20, len(expected), 1000):
        assert base.walk("getEventContents", limit, **RUN) == contents
        assert base.walk("getEventsByRun", limit, **RUN) == metas
    for step in (-1, 0, 2, 2.5, 4, 10**300):
        below = [e for e in contents if e["stepNumber"] <= step]
        assert base.ask("getEventContents", maxStep=step, **RUN)[0] == below
        assert base.walk("getEventContents", 5, maxStep=step, **RUN) == below


@pytest.mark.parametrize("op", ["getEventsByRun", "getEventContents"])
def test_a_run_that_is_unknown_has_no_events(base: Base, op: str) -> None:
    """An unknown job or run gives an empty array, with and without limit."""
    base.store((Kind.EVENT, event()))
    for arguments in ({"jobId": "x", "runId": "run-1"}, {"jobId": "job-1", "runId": "x"}):
        assert base.ask(op, **arguments)[0] == []
        assert base.ask(op, limit=1, **arguments) == ([], {"next": None})


def test_an_event_stored_while_a_listing_is_pulled_is_not_in_it(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All pages of an answer are of one moment."""
    set_query_limit(monkeypatch, "PAGE_ROWS", 2)
    set_query_limit(monkeypatch, "PLACES_ROWS", 2)
    base.store(*((Kind.EVENT, event(id=str(i), stepNumber=i, timestamp=i)) for i in range(7)))
    source = Source(base.database, base.reader)
    answers = [queries.OPERATIONS[op](source, RUN) for op in ("getEventsByRun", "getEventContents")]
    base.store((Kind.EVENT, event(id="new", stepNumber=6, timestamp=6)))
    assert [len(json.loads(b"".join(answer.pieces))) for answer in answers] == [7, 7]
    assert len(base.ask("getEventContents", **RUN)[0]) == 8


def test_events_that_would_share_a_file_are_numbered(base: Base) -> None:
    """Different events of one name are 2, 3, … by position; repeats are 0 and are listed once."""
    base.store(
        (Kind.EVENT, event(id="a")),  # 1
        (Kind.EVENT, event(id="b")),  # 2
        (Kind.EVENT, event(id="a")),  # 3 repeats 1
        (Kind.EVENT, event(id="b")),  # 4 repeats 2
        (Kind.EVENT, event(id="a", extra=1)),  # 5: the same id with other bytes is another event
        (Kind.EVENT, event(id="a", runId="run-2")),  # 6
        (Kind.EVENT, event(id="a", type="other")),  # 7
        (Kind.EVENT, event(id="c", timestamp=1700000000000.5)),  # 8: the same whole part
    )
    base.store((Kind.EVENT, event(id="c", timestamp=1700000000000.5)), (Kind.EVENT, event(id="d")))  # 9, 10
    base.store((Kind.EVENT, dumps(event(id="a")) + b" "))  # 11
    assert twins(base) == {2: 2, 3: 0, 4: 0, 5: 3, 8: 4, 9: 0, 10: 5, 11: 6}
    found, _ = base.ask("getEventContents", **RUN)
    assert [e["id"] for e in found] == ["a", "b", "a", "a", "d", "a", "c"]


def test_events_that_share_one_name_cost_no_more_the_more_there_are(base: Base) -> None:
    """The work of the database for the next events of a name does not grow with those that are there.

    The first ones cost less: they stand in blocks.
    """
    steps = [0]

    def count() -> int:
        steps[0] += 1
        return 0

    base.index._database.set_progress_handler(count, 100)
    costs = []
    for round_ in range(12):
        before = steps[0]
        base.store(*((Kind.EVENT, event(id=f"{round_}-{i}")) for i in range(100)))
        costs.append(steps[0] - before)
    assert costs[-1] < 2 * costs[4], costs


@pytest.mark.parametrize("make", [many_events, streamed_events, steady_events])
@pytest.mark.parametrize("cached", [1, 2, 4096])
@pytest.mark.parametrize("slice_", [1, 3, 10_000])
def test_events_are_numbered_alike_in_slices_of_any_size(
    base: Base, monkeypatch: pytest.MonkeyPatch, cached: int, slice_: int, make: MakeEvents
) -> None:
    """Many runs, in one transaction or many, with a small memory of runs: only the journal's order counts."""
    random = Random(cached * 100 + slice_)
    events = [e | {"runId": f"run-{random.randrange(4)}"} for e in make(200, 9)]
    monkeypatch.setattr(run_state, "_SAME_TIME_MAX", 20)
    monkeypatch.setattr(run_state, "N_MAX", 5)
    monkeypatch.setattr(event_writer, "_NAMES_MAX", 30)
    expected: dict[int, int] = {}
    kept_before: dict[tuple[Any, ...], list[bytes]] = {}
    for position, e in enumerate(events, 1):
        same = kept_before.setdefault((e["runId"], int(e["timestamp"]), e["stepNumber"], e["type"]), [])
        if dumps(e) in same:
            expected[position] = 0
            continue
        same.append(dumps(e))
        if len(same) > 1:
            expected[position] = len(same)
    monkeypatch.setattr(event_writer, "_RUNS_CACHED_MAX", cached)
    for e in events:
        base.journal.append(
            [Append(entry_format.NO_SESSION, 0, [entry_format.Record(Kind.EVENT, 0, dumps(e))])]
        )
    while entries := base.new_entries()[:slice_]:
        base.index.apply(entries)
    assert twins(base) == expected
    for run in range(4):
        of_run = sorted(kept([e for e in events if e["runId"] == f"run-{run}"]), key=lambda e: e["timestamp"])
        assert base.ask("getEventContents", jobId="job-1", runId=f"run-{run}")[0] == of_run


def test_the_names_of_a_millisecond_are_bounded_over_all_runs(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many types a client makes up, in however many runs."""
    monkeypatch.setattr(event_writer, "_NAMES_MAX", 20)
    for i in range(120):
        base.store((Kind.EVENT, event(id=f"e{i}", runId=f"run-{i % 3}", type=f"t{i}")))
        runs = base.index._events._runs.values()
        assert sum(len(run.names or ()) for run in runs) <= 25
    assert twins(base) == {}


def test_a_repeat_is_recognized_by_its_bytes_not_by_its_checksum(base: Base) -> None:
    """Two events with the same crc32c and length and different bytes are both kept."""
    one = dumps(event(id="AAAAAAAAAAAAAAAA"))
    at = one.index(b"AAAAAAAAAAAAAAAA")
    two = _same_crc(one, at)
    assert crc32c(one) == crc32c(two)
    assert one != two
    assert len(one) == len(two)
    base.store((Kind.EVENT, one), (Kind.EVENT, two), (Kind.EVENT, two))
    assert twins(base) == {2: 2, 3: 0}


def test_many_events_of_one_checksum_are_not_compared_with_each_other(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is looked at some times at most, however many there are; and a repeat is still found."""
    one = dumps(event(pad="A" * 240))
    at = one.index(b"A" * 240)
    pairs = [(one[: at + i], _same_crc(one, at + i)) for i in range(0, 240, 30)]
    changes = [(len(start), two[len(start) : len(start) + 10]) for start, two in pairs]
    events = []
    for chosen in range(1 << len(changes)):
        text = bytearray(one)
        for n, (first, piece) in enumerate(changes):
            if chosen >> n & 1:
                text[first : first + len(piece)] = piece
        events.append(bytes(text))
    assert len(set(events)) == 256
    assert len({crc32c(text) for text in events}) == 1
    looks = 0

    def counted(*arguments: Any) -> bytes:
        nonlocal looks
        looks += 1
        return read_value(*arguments)

    monkeypatch.setattr(writer, "read_value", counted)
    base.store(*((Kind.EVENT, text) for text in events))
    base.store(*((Kind.EVENT, text) for text in reversed(events)))
    assert looks < len(events)
    found = twins(base)
    assert sorted(n for n in found.values() if n) == list(range(2, 257))
    assert [found[position] for position in range(257, 513)] == [0] * 256


def _same_crc(payload: bytes, at: int) -> bytes:
    """Another payload with the same checksum, which is linear: of 33 single-bit changes some cancel out."""
    base_crc = crc32c(payload)
    rows: list[tuple[int, int]] = []  # reduced difference, set of changes
    for bit in range(40):
        changed = bytearray(payload)
        changed[at + bit // 4] ^= 1 << bit % 4  # the low bits of A stay printable, but for the 4th
        vector, changes = crc32c(bytes(changed)) ^ base_crc, 1 << bit
        for other, other_changes in rows:
            if vector ^ other < vector:
                vector, changes = vector ^ other, changes ^ other_changes
        if not vector:
            result = bytearray(payload)
            for i in range(40):
                if changes >> i & 1:
                    result[at + i // 4] ^= 1 << i % 4
            return bytes(result)
        rows.append((vector, changes))
        rows.sort(reverse=True)
    raise AssertionError("no dependent set")
