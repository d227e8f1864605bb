"""Summaries of jobs and runs: what they say, and that batches don't matter."""

import json
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from perstack_stored.index import event_writer, summaries
from perstack_stored.journal.entry_format import NO_SESSION, Record
from perstack_stored.journal.writer import Append
from perstack_stored.model.kinds import Kind
from perstack_stored.read import summary_queries
from perstack_stored.read.source import Source
from tests.helpers.datadir import USAGE, Base, checkpoint, dumps, event, job, setting
from tests.unit.index.events import MakeEvents, many_events, steady_events, streamed_events

Stored = tuple[Kind, dict[str, Any]]
TABLES = ("run", "run_count", "known_job")


def tables(base: Base) -> list[list[Any]]:
    return [base.database.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for table in TABLES]


def some_records(random: Random, count: int) -> list[Stored]:
    """Records of some jobs and runs, with repeats, late events, many types, and checkpoints that move."""
    records: list[Stored] = []
    at = 1_700_000_000_000
    for i in range(count):
        at += random.choice((0, 1, 7))
        ids = {"jobId": f"j{random.randint(0, 3)}", "runId": f"r{random.randint(0, 3)}"}
        kind = random.random()
        if kind < 0.6:
            late = random.random() < 0.2
            value = event(
                **ids, id=f"e{i}", timestamp=at - 50.5 if late else at, stepNumber=i // 10,
                type=random.choice(["startRun", "completeRun", "stopRunByError", *map(str, range(9))]),
                expertKey=f"expert-{i}",
            )  # fmt: skip
            records.append((Kind.EVENT, value))
        elif kind < 0.8:
            by = random.choice(
                ({}, {"delegatedBy": {"runId": "r0", "checkpointId": "c"}}, {"delegatedBy": 5})
            )
            name = {"key": f"expert-{i}", "name": "n", "version": "1"}
            value = checkpoint(**ids, id=f"c{random.randint(0, 9)}", status=f"s{i}", expert=name, **by)
            records.append((Kind.CHECKPOINT, value))
        elif kind < 0.9:
            records.append((Kind.RUN_SETTING, setting(**ids, expertKey=f"expert-{i}")))
        else:
            records.append(
                (Kind.JOB, job(id=f"j{random.randint(0, 5)}", startedAt=at - random.randint(0, 99)))
            )
        if random.random() < 0.1:
            records.append(random.choice(records))
    return records


@pytest.mark.parametrize("seed", range(4))
def test_summaries_are_the_same_whatever_the_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """In one transaction, one record in each, or some; and with caches that hold little."""
    monkeypatch.setattr(summaries, "TYPES_MAX", 5)
    random = Random(seed)
    records = some_records(random, 250)
    found = []
    for number, most in enumerate((1, 3, 20, 10**6)):
        monkeypatch.setattr(event_writer, "_RUNS_CACHED_MAX", 3 if number % 2 else 4096)
        monkeypatch.setattr(summaries, "_JOBS_CACHED_MAX", 2 if number % 2 else 4096)
        base = Base(tmp_path / f"{number}")
        for kind, value in records:
            base.journal.append([Append(NO_SESSION, 0, [Record(kind, 0, dumps(value))])])
        entries = base.new_entries()
        while entries:
            count = random.randint(1, most)
            base.index.apply(entries[:count])
            entries = entries[count:]
        # The daemon's time of a record is another one in each base; it counts only without any other time.
        found.append([[tuple(v for v in row if not _is_now(v)) for row in rows] for rows in tables(base)])
    assert found[0] == found[1] == found[2] == found[3]


def _is_now(value: object) -> bool:
    return isinstance(value, int) and value > 1_750_000_000_000


def test_a_transaction_that_fails_leaves_summaries_as_they_were(base: Base) -> None:
    base.store((Kind.EVENT, event()), (Kind.CHECKPOINT, checkpoint()))
    before = tables(base)
    base.journal.append([Append(NO_SESSION, 0, [Record(Kind.EVENT, 0, dumps(event(id="e2")))])])
    entries = base.new_entries()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base.index, "_insert_gaps", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            base.index.apply(entries)
    assert tables(base) == before
    base.index.apply(entries)
    assert base.ask("listRuns")[0][0]["records"]["events"] == 2


@pytest.fixture
def base(tmp_path: Path) -> Base:
    return Base(tmp_path / "base")


def test_a_run_is_known_by_any_record(base: Base) -> None:
    base.store((Kind.EVENT, event(runId="by-event", type="completeRun", timestamp=5.5)))
    base.store((Kind.CHECKPOINT, checkpoint(runId="by-checkpoint", status="proceeding")))
    base.store((Kind.RUN_SETTING, setting(runId="by-setting", expertKey="@me/set@1")))
    runs = {run["runId"]: run for run in base.ask("listRuns")[0]}
    assert set(runs) == {"by-event", "by-checkpoint", "by-setting"}
    by_event = runs["by-event"]
    assert by_event == {
        "jobId": "job-1", "runId": "by-event", "startedAt": 5, "lastEventAt": 5,
        "firstPosition": 1, "lastPosition": 1, "expertKey": "me", "status": None, "end": "completeRun",
        "usage": None, "parent": None, "records": {"runSettings": 0, "checkpoints": 0, "events": 1},
        "eventTypes": {"completeRun": 1},
    }  # fmt: skip
    by_checkpoint = runs["by-checkpoint"]
    assert (by_checkpoint["status"], by_checkpoint["usage"]) == ("proceeding", USAGE)
    assert (by_checkpoint["expertKey"], by_checkpoint["lastEventAt"]) == ("me@1.0.0", None)
    assert by_checkpoint["startedAt"] > 1_750_000_000_000
    assert runs["by-setting"]["records"] == {"runSettings": 1, "checkpoints": 0, "events": 0}
    assert runs["by-setting"]["expertKey"] == "@me/set@1"
    (found,) = base.ask("listJobs")[0]
    assert (found["runs"], found["records"]) == (
        3, {"jobs": 0, "runSettings": 1, "checkpoints": 1, "events": 1},
    )  # fmt: skip


@pytest.mark.parametrize("make", [many_events, streamed_events, steady_events])
@pytest.mark.parametrize("most", [1, 7, 300])
def test_each_event_is_counted_once(base: Base, make: MakeEvents, most: int) -> None:
    """Whether it goes into a block with others, shares a millisecond, or comes late or again."""
    events = make(600, 5)
    random = Random(most)
    left = events[:]
    while left:
        count = random.randint(1, most)
        base.store(*((Kind.EVENT, one) for one in left[:count]))
        left = left[count:]
    (run,) = base.ask("listRuns")[0]
    kept = {dumps(one): one["type"] for one in events}
    assert run["records"]["events"] == len(kept) < len(events)
    assert run["eventTypes"] == Counter(kept.values())


def test_repeats_and_lost_events_are_not_counted(base: Base) -> None:
    base.store((Kind.EVENT, event()), (Kind.EVENT, event()), (Kind.GAP, b""), (Kind.EVENT, event(id="e2")))
    base.store((Kind.CHECKPOINT, checkpoint()), (Kind.CHECKPOINT, checkpoint(status="completed")))
    (run,) = base.ask("listRuns")[0]
    assert (run["records"], run["eventTypes"]) == (
        {"runSettings": 0, "checkpoints": 1, "events": 2}, {"startRun": 2},
    )  # fmt: skip
    assert (run["status"], run["lastPosition"]) == ("completed", 6)


def test_a_delegated_run_has_its_parent_and_a_job_is_as_its_own_runs_say(base: Base) -> None:
    """Usage is never added up: a continuation begins with the sum of what it delegated."""
    child = {"runId": "child", "delegatedBy": {"runId": "run-1", "checkpointId": "cp-1", "expert": {}}}
    large = USAGE | {"totalTokens": 100}
    base.store(
        (Kind.EVENT, event()), (Kind.CHECKPOINT, checkpoint(status="stoppedByDelegate", usage=large)),
        (Kind.EVENT, event(id="d", type="stopRunByDelegate", timestamp=1700000000001)),
        (Kind.CHECKPOINT, checkpoint(id="cp-2", status="completed", **child)),
        (Kind.EVENT, event(id="c", runId="child", type="completeRun", timestamp=1700000000002)),
    )  # fmt: skip
    runs = {run["runId"]: run for run in base.ask("listRuns")[0]}
    assert runs["child"]["parent"] == {"jobId": "job-1", "runId": "run-1", "checkpointId": "cp-1"}
    assert runs["run-1"]["parent"] is None
    (found,) = base.ask("listJobs")[0]
    assert (found["status"], found["usage"], found["end"]) == (
        "stoppedByDelegate",
        large,
        "stopRunByDelegate",
    )
    base.store((Kind.EVENT, event(id="on", runId="run-2", timestamp=1700000000003)))
    assert base.ask("listJobs")[0][0]["end"] is None
    base.store((Kind.JOB, job(status="running")))
    (found,) = base.ask("listJobs")[0]
    assert (found["status"], found["usage"], found["expertKey"]) == ("running", USAGE, "@me/expert@1.0.0")


def test_a_job_of_many_runs_is_added_up_in_steps(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between them other clients have their turn."""
    monkeypatch.setattr(summary_queries, "_RUNS_PER_STEP", 2)
    for i in range(7):
        base.store((Kind.EVENT, event(runId=f"r{i}", id=f"e{i}", timestamp=i // 2)))
        base.store((Kind.EVENT, event(jobId="other", runId=f"r{i}", id=f"e{i}", timestamp=100)))
    source = Source(base.database, base.reader)
    pieces = list(summary_queries.list_jobs(source, {}).pieces)
    assert pieces.count(b"") >= 3
    other, found = json.loads(b"".join(pieces))
    for one in (other, found):
        assert (one["runs"], one["records"]["events"], one["eventTypes"]) == (7, 7, {"startRun": 7})
    assert (found["startedAt"], found["lastEventAt"], found["lastPosition"]) == (0, 3, 13)


def test_odd_values_harm_nothing(base: Base) -> None:
    """Types without end, strings without end, numbers beyond a double, and what only looks like a parent."""
    base.store(*((Kind.EVENT, event(id=f"e{i}", type=f"t{i}")) for i in range(100)))
    usage = dumps(USAGE).replace(b'"totalTokens":6', b'"totalTokens":123456789012345678901234567890')
    text = dumps(checkpoint(status="s" * 5000, expert={"key": "k" * 5000, "name": "", "version": ""}))
    base.store((Kind.CHECKPOINT, text.replace(dumps(USAGE), usage)))
    odd: list[Any] = [None, 5, [], {}, {"runId": 7}, {"runId": "r" * 999}]
    for by in odd:
        base.store((Kind.CHECKPOINT, checkpoint(runId="other", delegatedBy=by)))
    runs = {run["runId"]: run for run in base.ask("listRuns")[0]}
    run = runs["run-1"]
    assert (run["records"]["events"], len(run["eventTypes"])) == (100, 64)
    assert (run["status"], run["expertKey"]) == ("s" * 200, "k" * 200)
    assert run["usage"]["totalTokens"] == 123456789012345678901234567890
    assert runs["other"]["parent"] is None


def contains(found: Any, text: str) -> bool:
    names = (found["jobId"], found.get("runId", ""), found["expertKey"])
    return any(text.lower() in name.lower() for name in names)


@pytest.mark.parametrize("searched", [3, 50_000])
def test_filters_and_pages(base: Base, monkeypatch: pytest.MonkeyPatch, searched: int) -> None:
    """Also where a page looks at a few only, and so holds few, or none."""
    monkeypatch.setattr(summary_queries, "SEARCHED_MAX", searched)
    random = Random(7)
    for i in range(120):
        base.store(
            (Kind.EVENT, event(jobId=f"j{i:03}", runId="a", timestamp=1000 + i // 3)),
            (Kind.CHECKPOINT, checkpoint(
                jobId=f"j{i:03}", runId="a", status=random.choice("xyz"),
                expert={"key": random.choice("pq"), "name": "", "version": ""},
            )),
            (Kind.EVENT, event(jobId=f"j{i % 5:03}", runId=f"b{i}", timestamp=2000 - i)),
        )  # fmt: skip
    for op in ("listJobs", "listRuns"):
        everything = base.ask(op, limit=1000)[0]
        key = ("startedAt", "jobId", "runId")
        assert [one["startedAt"] for one in everything] == sorted(
            (one["startedAt"] for one in everything), reverse=True
        )
        oldest_first = base.ask(op, limit=1000, newestFirst=False)[0]
        assert sorted(map(json.dumps, oldest_first)) == sorted(map(json.dumps, everything))
        for _ in range(20):
            given: dict[str, Any] = {}
            wanted = everything
            if random.random() < 0.5:
                given["status"] = random.choice("xyz")
                wanted = [one for one in wanted if one["status"] == given["status"]]
            if random.random() < 0.5:
                given["expertKey"] = random.choice(["p", "me"])
                wanted = [one for one in wanted if one["expertKey"] == given["expertKey"]]
            if random.random() < 0.5:
                given["since"], given["until"] = 1010, random.choice((1020, 1990.5))
                wanted = [one for one in wanted if 1010 <= one["startedAt"] < given["until"]]
            if random.random() < 0.5:
                given["jobId"] = "j003"
                wanted = [one for one in wanted if one["jobId"] == "j003"]
            if random.random() < 0.5:
                given["contains"] = random.choice(["J0", "J00", "b1", "p", "%", "_", "\0"])
                wanted = [one for one in wanted if contains(one, given["contains"])]
            assert base.walk(op, random.choice((1, 7, 100)), **given) == wanted, given
            given["newestFirst"] = False
            found = base.walk(op, 7, **given)
            assert [[one.get(k) for k in key] for one in found] == [
                [one.get(k) for k in key] for one in oldest_first if one in wanted
            ]
        assert len(base.ask(op)[0]) == 100
