"""Reads as of a position: what a store shows that was fed up to there."""

import random
from pathlib import Path
from typing import Any

import pytest

from perstack_stored.errors import Refusal
from perstack_stored.index.connection import connect
from perstack_stored.index.writer import IndexWriter
from perstack_stored.model.kinds import Kind
from perstack_stored.read.arguments import check_as_of
from perstack_stored.read.as_of import CHECKPOINTS_AS_OF
from tests.helpers.datadir import Base, checkpoint, event, job

JOBS, RUNS, CHECKPOINTS = ("job-1", "job-2"), ("run-1", "run-2"), ("run-1-a", "run-1-b", "run-2-a", "run-2-b")
Stored = tuple[Kind, dict[str, Any]]


@pytest.fixture
def base(tmp_path: Path) -> Base:
    return Base(tmp_path / "base")


def views(base: Base, **as_of: Any) -> dict[str, Any]:
    """All that can be read as of a position."""
    found: dict[str, Any] = {}

    def ask(op: str, **arguments: Any) -> None:
        try:
            value, fields = base.ask(op, **arguments, **as_of)
        except Refusal as refusal:
            value, fields = refusal.code, as_of
        assert fields.get("asOf") == as_of.get("asOf")
        found[f"{op} {arguments}"] = value

    for name in JOBS:
        ask("retrieveJob", jobId=name)
        ask("getCheckpointsByJobId", jobId=name)
        found[f"pages of {name}"] = base.walk("getCheckpointsByJobId", 2, jobId=name, **as_of)
        for id in CHECKPOINTS:
            ask("retrieveCheckpoint", jobId=name, checkpointId=id)
        for run in RUNS:
            of_run: dict[str, Any] = {"jobId": name, "runId": run}
            ask("getEventsByRun", **of_run)
            ask("getEventContents", **of_run)
            ask("getEventContents", **of_run, newestFirst=True, types=["callTools"])
            found[f"pages of {name}, {run}"] = base.walk("getEventsByRun", 3, **of_run, **as_of)
    return found


def history(seed: int, length: int) -> list[Stored]:
    """Jobs and checkpoints that are stored again and again, events in and out of order, deletions."""
    draw = random.Random(seed)
    made: list[Stored] = []
    for i in range(length):
        name, run = draw.choice(JOBS), draw.choice(RUNS)
        of_run: dict[str, Any] = {"jobId": name, "runId": run, "stepNumber": draw.randrange(4)}
        kind = draw.choices(("job", "checkpoint", "event", "repeat", "delete"), (3, 6, 8, 2, 1))[0]
        if kind == "job":
            made.append((Kind.JOB, job(id=name, totalSteps=i)))
        elif kind == "checkpoint":
            id = f"{run}-{draw.choice('ab')}"
            made.append((Kind.CHECKPOINT, checkpoint(id=id, status=f"s{i}", **of_run)))
        elif kind == "event":
            type = draw.choice(("callTools", "startRun"))
            more = {"timestamp": draw.randrange(1000, 1004), "type": type}
            made.append((Kind.EVENT, event(id=f"e{i}", **more, **of_run)))
        elif kind == "delete":
            made.append((Kind.DELETION, {"jobId": name} | draw.choice(({}, {"runId": run}))))
        elif made:
            made.append(draw.choice([one for one in made if one[0] != Kind.DELETION] or [made[0]]))
    return made


def is_removed(one: Stored, position: int, deletions: list[tuple[int, dict[str, Any]]]) -> bool:
    """Whether a later deletion removes a record."""
    kind, value = one
    name = value["id"] if kind == Kind.JOB else value["jobId"]
    return kind != Kind.DELETION and any(
        later > position and what["jobId"] == name and what.get("runId") in {None, value.get("runId", "")}
        for later, what in deletions
    )


OLDER = "SELECT job, kind, id, position, until, step, length, crc FROM older ORDER BY position"


@pytest.mark.parametrize("seed", range(3))
def test_it_equals_a_store_that_was_fed_up_to_there(seed: int, tmp_path: Path) -> None:
    """At each position, without what a deletion has removed since; and the same after a rebuild."""
    stored = history(seed, 60)
    base, second = Base(tmp_path / "base"), Base(tmp_path / "second")
    assert [base.store(one) for one in stored] == list(range(1, len(stored) + 1))
    deletions = [(p, value) for p, (kind, value) in enumerate(stored, 1) if kind == Kind.DELETION]
    found = [views(base, asOf=position) for position in range(len(stored) + 1)]
    assert found[-1] == views(base)
    for position, one in enumerate(stored, 1):
        assert found[position - 1] == views(second), f"as of {position - 1}"
        second.store((Kind.DELETION, {"jobId": "none"}) if is_removed(one, position, deletions) else one)
    # As after a rebuild of which the erased records are no part.
    assert base.database.execute(OLDER).fetchall() == second.database.execute(OLDER).fetchall()
    rebuild(base, tmp_path)
    assert [views(base, asOf=position) for position in range(len(stored) + 1)] == found


def rebuild(base: Base, folder: Path) -> None:
    """Go on with a fresh index."""
    path = str(folder / "again.sqlite")
    again = IndexWriter(path, base.folder.reader(), base.journal.store)
    again.apply(list(base.reader.entries(again.place, base.journal.mark)))
    again.close()
    base.database.close()
    base.database = connect(path, read_only=True)


def versions(base: Base, count: int) -> list[int]:
    """Store a checkpoint so often, and the job after each."""
    return [
        base.store((Kind.CHECKPOINT, checkpoint(status=f"s{n}", stepNumber=n)), (Kind.JOB, job(totalSteps=n)))
        for n in range(count)
    ]


def test_a_time_stands_for_its_position(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer names the position; before the first record nothing is there."""
    now = [1_700_000_000_000]
    monkeypatch.setattr(base.journal.clock, "now_ms", lambda: now[0])
    for _ in range(3):
        versions(base, 1)
        now[0] += 1000
    found, fields = base.ask("retrieveJob", jobId="job-1", asOf={"timeMs": 1_700_000_001_500})
    assert (found["totalSteps"], fields) == (0, {"asOf": 4})
    assert base.ask("retrieveJob", jobId="job-1", asOf={"timeMs": 0}) == (None, {"asOf": 0})


@pytest.mark.parametrize("wrong", [-1, True, 1.5, "1", [1], {}, {"time": 1}, {"timeMs": "1"}, 2**53])
def test_what_is_no_position_is_refused(base: Base, wrong: object) -> None:
    """With the field's name."""
    with pytest.raises(Refusal) as caught:
        base.ask("retrieveJob", jobId="job-1", asOf=wrong)
    assert caught.value.code == "BAD_REQUEST"
    assert (caught.value.field or "").startswith("asOf")


def test_a_position_ahead_of_the_end_is_refused() -> None:
    """It is of another history."""
    check_as_of({"asOf": 5}, 5)
    check_as_of({"asOf": {"timeMs": 6}}, 5)
    with pytest.raises(Refusal) as caught:
        check_as_of({"asOf": 6}, 5)
    assert (caught.value.code, caught.value.field) == ("POSITION_GONE", "asOf")


def test_only_places_are_kept_and_a_deletion_clears_them(base: Base) -> None:
    """One row for a version that was replaced; none of a deleted job or run."""
    count = "SELECT count(*), sum(length(job) + length(id)) FROM older"
    versions(base, 5)
    assert base.database.execute(count).fetchone() == (8, 56)
    base.store((Kind.DELETION, {"jobId": "job-1", "runId": "run-1"}))
    assert base.database.execute(count).fetchone() == (4, 20)
    base.store((Kind.DELETION, {"jobId": "job-1"}))
    assert base.database.execute(count).fetchone() == (0, None)


def test_a_page_enters_both_tables_where_it_begins(base: Base) -> None:
    """No sort, and no row that stands before the page, however many there are."""
    for query in (CHECKPOINTS_AS_OF.first, CHECKPOINTS_AS_OF.following):
        bound = {"job": "j", "as_of": 5, "a": 1, "b": 2, "limit": 10}
        plan = [row[3] for row in base.database.execute(f"EXPLAIN QUERY PLAN {query}", bound)]
        assert not [step for step in plan if "TEMP B-TREE" in step or step.startswith("SCAN older")], plan
        assert [step for step in plan if "older_order" in step or "checkpoint_order" in step]
