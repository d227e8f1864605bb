"""The index and what is read through it."""

import json
import os
import sqlite3
from pathlib import Path
from random import Random
from typing import Any

import pytest

from perstack_stored.datadir.layout import INDEX_NAME
from perstack_stored.errors import IndexUnusableError, Refusal
from perstack_stored.index import writer as index
from perstack_stored.index.connection import connect, remove
from perstack_stored.index.writer import IndexWriter
from perstack_stored.journal import entry_format
from perstack_stored.journal.writer import Append
from perstack_stored.model.kinds import Kind
from perstack_stored.read import queries
from perstack_stored.read.listing_cache import ListingCache
from perstack_stored.read.source import Source
from tests.helpers.datadir import Base, checkpoint, dumps, event, job, setting
from tests.helpers.index import count_events
from tests.unit.index.events import many_events, twins

RUN = {"jobId": "job-1", "runId": "run-1"}


@pytest.fixture
def base(tmp_path: Path) -> Base:
    return Base(tmp_path / "base")


def refused(base: Base, op: str, **arguments: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        base.ask(op, **arguments)
    return caught.value


# --- jobs, checkpoints -----------------------------------------------------------------------------


def test_of_a_job_the_last_one_stored_counts(base: Base) -> None:
    """A job is answered byte for byte as it was stored last; one that is unknown is null."""
    base.store((Kind.JOB, job(status="running")), (Kind.JOB, job(id="job-2")))
    last = b' {"x":1e400, ' + dumps(job(status="completed", finishedAt=1))[1:]
    base.store((Kind.JOB, last))
    answer = queries.retrieve_job(Source(base.database, base.reader), {"jobId": "job-1"})
    assert b"".join(answer.pieces) == last
    assert base.ask("retrieveJob", jobId="nobody") == (None, {})
    assert [j["status"] for j in base.ask("getAllJobs")[0]] == ["completed", "running"]


def test_jobs_come_newest_first_with_ties_by_id(base: Base) -> None:
    """The order is by start, descending, then by id; page by page every job comes exactly once."""
    random = Random(1)
    times = [
        5,
        5.5,
        5.25,
        1700000000000,
        1700000000000.123,
        1700000000000.1235,
        1700000000000.126,
        0,
        9007199254740991,
    ]
    jobs = [job(id=f"job-{i:03}", startedAt=random.choice(times)) for i in range(80)]
    random.shuffle(jobs)
    base.store(*((Kind.JOB, j) for j in jobs))
    expected = sorted(jobs, key=lambda j: (-j["startedAt"], j["id"]))
    assert base.ask("getAllJobs") == (expected, {"next": None})
    for limit in (1, 7, 79, 80, 81):
        assert base.walk("getAllJobs", limit) == expected


def test_a_job_known_by_its_events_only_is_not_listed(base: Base) -> None:
    """Events and checkpoints don't make a job."""
    base.store((Kind.EVENT, event()), (Kind.CHECKPOINT, checkpoint()), (Kind.RUN_SETTING, setting()))
    assert base.ask("getAllJobs")[0] == []


def test_of_a_checkpoint_the_last_one_stored_counts(base: Base) -> None:
    """Checkpoints belong to their job; one that is not there is an error with the reference's words."""
    base.store((Kind.CHECKPOINT, checkpoint(status="init")), (Kind.CHECKPOINT, checkpoint(jobId="other")))
    base.store((Kind.CHECKPOINT, checkpoint(status="done")))
    assert base.ask("retrieveCheckpoint", jobId="job-1", checkpointId="cp-1")[0]["status"] == "done"
    for arguments in ({"jobId": "job-1", "checkpointId": "no"}, {"jobId": "no", "checkpointId": "cp-1"}):
        refusal = refused(base, "retrieveCheckpoint", **arguments)
        assert (refusal.code, refusal.message) == (
            "NOT_FOUND",
            f"checkpoint not found: {arguments['checkpointId']}",
        )


def test_checkpoints_come_by_step_with_ties_in_the_order_stored(base: Base) -> None:
    """A checkpoint that is stored again takes the place of its last store among those of its step."""
    random = Random(2)
    stored = [
        checkpoint(id=f"cp-{random.randint(0, 30)}", stepNumber=random.randint(0, 5), n=i) for i in range(80)
    ]
    base.store(*((Kind.CHECKPOINT, c) for c in stored), (Kind.CHECKPOINT, checkpoint(jobId="other")))
    last = {c["id"]: c for c in stored}
    expected = sorted(last.values(), key=lambda c: (c["stepNumber"], c["n"]))
    assert base.ask("getCheckpointsByJobId", jobId="job-1")[0] == expected
    for limit in (1, 4, len(expected)):
        assert base.walk("getCheckpointsByJobId", limit, jobId="job-1") == expected
    assert base.ask("getCheckpointsByJobId", jobId="nobody") == ([], {"next": None})


# --- settings --------------------------------------------------------------------------------------


def test_of_a_setting_the_first_counts_with_the_time_of_the_last_store(base: Base) -> None:
    """A second store changes `updatedAt` to the daemon's time and nothing else, wherever the field stands."""
    first = b'{"in":{"updatedAt":1},"x":1e400 , "updatedAt" : 5,' + dumps(setting(input={"updatedAt": 7}))[1:]
    base.store((Kind.RUN_SETTING, first))
    answer = queries.get_all_runs(Source(base.database, base.reader), {})
    assert b"".join(answer.pieces) == b"[" + first + b"]"
    before = base.journal.clock.now_ms()
    base.store((Kind.RUN_SETTING, setting(model="other")))
    (found,), _ = base.ask("getAllRuns")
    assert before <= found["updatedAt"] <= base.journal.clock.now_ms()
    assert found == json.loads(first) | {"updatedAt": found["updatedAt"]}


def test_what_a_setting_lacks_gets_its_default(base: Base) -> None:
    """A reasoningBudget "low" and maxSteps 100 are put in when read, only where they are missing."""
    full = setting()
    lacking = {k: v for k, v in full.items() if k not in {"reasoningBudget", "maxSteps"}}
    base.store(
        (Kind.RUN_SETTING, dumps(lacking | {"runId": "1"})[:-1] + b" \n } \n"),
        (Kind.RUN_SETTING, lacking | {"runId": "2", "maxSteps": None}),
        (Kind.RUN_SETTING, lacking | {"runId": "3", "reasoningBudget": "high"}),
        (Kind.RUN_SETTING, full | {"runId": "4"}),
        (Kind.RUN_SETTING, lacking | {"runId": "5", "input": {"maxSteps": 1, "reasoningBudget": "x"}}),
    )
    found = {s["runId"]: (s["reasoningBudget"], s["maxSteps"]) for s in base.ask("getAllRuns")[0]}
    assert found == {
        "1": ("low", 100),
        "2": ("low", None),
        "3": ("high", 100),
        "4": ("high", 7),
        "5": ("low", 100),
    }


def test_settings_come_newest_first_with_ties_by_job_and_run(base: Base) -> None:
    """The order is by `updatedAt`, descending; page by page every setting comes exactly once."""
    random = Random(3)
    times = [5, 5.5, 1700000000000, 1700000000000.123, 1700000000000.1235, 1700000000000.126]
    stored = [setting(jobId=f"j{i % 7}", runId=f"r{i}", updatedAt=random.choice(times)) for i in range(60)]
    base.store(*((Kind.RUN_SETTING, s) for s in stored))
    expected = sorted(stored, key=lambda s: (-s["updatedAt"], s["jobId"], s["runId"]))
    assert base.ask("getAllRuns")[0] == expected
    for limit in (1, 7, 60):
        assert base.walk("getAllRuns", limit) == expected
    base.store((Kind.RUN_SETTING, expected[-1]))
    first = base.ask("getAllRuns", limit=1)[0][0]
    assert (first["jobId"], first["runId"]) == (expected[-1]["jobId"], expected[-1]["runId"])


def test_an_imported_setting_counts_as_it_is(base: Base) -> None:
    """What is taken over from an existing tree replaces, and keeps its own time."""
    base.store((Kind.RUN_SETTING, setting(model="old")))
    base.store((Kind.RUN_SETTING, setting(model="imported", updatedAt=12)), flags=entry_format.FLAG_IMPORTED)
    assert base.ask("getAllRuns")[0] == [setting(model="imported", updatedAt=12)]


# --- the journal by position -----------------------------------------------------------------------


def test_read_all_gives_every_record_once_by_position(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records come in order with time and operation, without repeats, and `next` goes on from anywhere."""
    monkeypatch.setattr(index, "_PLACE_EVERY_BYTES", 500)
    expected = []
    for i in range(60):
        values: list[tuple[Kind, dict[str, Any]]] = [
            (Kind.EVENT, event(id=str(i), timestamp=i)), (Kind.JOB, job(n=i)), (Kind.EVENT, event(id="again"))
        ]  # fmt: skip
        first = base.store(*values)
        expected += [(first, "storeEvent", values[0][1]), (first + 1, "storeJob", values[1][1])]
        if not i:
            expected.append((first + 2, "storeEvent", values[2][1]))
    found, fields = base.ask("readAll")
    assert [(r["position"], r["op"], r["value"]) for r in found] == expected
    assert fields == {"next": 180}
    assert all(r["time"] > 1_600_000_000_000 for r in found)
    for limit in (1, 2, 7, 179):
        items, after = [], 0
        while after < 180:
            page, fields = base.ask("readAll", after=after, limit=limit)
            assert fields["next"] == min(after + limit, 180)
            items += page
            after = int(str(fields["next"]))
        assert items == found
    assert base.ask("readAll", after=180) == ([], {"next": 180})
    assert base.ask("readAll", after=10_000) == ([], {"next": 10_000})


# --- faults ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "arguments"),
    [
        ("retrieveJob", {"jobId": "job-1"}),
        ("getAllJobs", {}),
        ("retrieveCheckpoint", {"jobId": "job-1", "checkpointId": "cp-1"}),
        ("getCheckpointsByJobId", {"jobId": "job-1"}),
        ("getEventContents", RUN),
        ("getAllRuns", {}),
        ("readAll", {}),
    ],
)
def test_a_damaged_value_is_reported_not_answered(base: Base, op: str, arguments: dict[str, Any]) -> None:
    """A flipped bit in the journal, or a cut segment, gives DAMAGED with the place, never a wrong value."""
    values = [
        (Kind.JOB, job()),
        (Kind.CHECKPOINT, checkpoint()),
        (Kind.EVENT, event()),
        (Kind.RUN_SETTING, setting()),
    ]
    base.store(*values)
    path = base.folder.segments()[0]
    good = path.read_bytes()
    for _, value in values:
        at = good.index(dumps(value)) + 10
        with path.open("r+b") as file:
            file.seek(at)
            file.write(bytes([good[at] ^ 1]))
    refusal = refused(base, op, **arguments)
    assert refusal.code == "DAMAGED"
    assert path.name in refusal.message
    os.truncate(path, 100)
    assert refused(base, op, **arguments).code == "DAMAGED"


def test_a_failed_transaction_leaves_nothing_behind(base: Base) -> None:
    """When the disk is full nothing of the entries is taken up, and they can be applied again."""
    base.store((Kind.EVENT, event()))
    before = base.index.place
    database = base.index._database
    (pages,) = database.execute("PRAGMA page_count").fetchone()
    database.execute(f"PRAGMA max_page_count = {pages}")
    for i in range(300):
        values = (
            (Kind.EVENT, event(runId=f"run {i}", id=str(i))),
            (Kind.EVENT, event(runId=f"run {i}", id=f"b{i}")),
        )
        base.journal.append(
            [
                Append(
                    entry_format.NO_SESSION, 0, [entry_format.Record(kind, 0, dumps(v)) for kind, v in values]
                )
            ]
        )
    with pytest.raises(sqlite3.OperationalError, match="full"):
        base.follow()
    assert base.index.place == before
    assert count_events(base.database) == 1
    # A part goes first, so that a number given to a run in the failed transaction is another's now.
    database.execute("PRAGMA max_page_count = 1000000")
    entries = base.new_entries()
    base.index.apply(entries[200:201])
    assert base.ask("getEventContents", jobId="job-1", runId="run 200")[0][0]["runId"] == "run 200"
    base.index.apply(entries[:200] + entries[201:])
    for i in range(300):
        found, _ = base.ask("getEventContents", jobId="job-1", runId=f"run {i}")
        assert [e["id"] for e in found] == [str(i), f"b{i}"]
    assert len(base.ask("readAll")[0]) == 601


def test_the_index_goes_on_from_its_cursor(base: Base) -> None:
    """Opened again the index knows its place; what came meanwhile is taken up once."""
    base.store((Kind.EVENT, event(id="a")), (Kind.EVENT, event(id="b")))
    base.index.close()
    base.index = IndexWriter(base.index_path, base.folder.reader(), base.journal.store)
    assert base.index.place == base.journal.mark
    base.store((Kind.EVENT, event(id="b")), (Kind.EVENT, event(id="c")))
    assert [e["id"] for e in base.ask("getEventContents", **RUN)[0]] == ["a", "b", "c"]
    assert twins(base) == {2: 2, 3: 0, 4: 3}


def test_an_index_that_can_not_be_used_is_refused(base: Base, tmp_path: Path) -> None:
    """Of another journal, of another version, or no database: each is reported, so that it is rebuilt."""
    with pytest.raises(IndexUnusableError, match="another journal"):
        IndexWriter(base.index_path, base.folder.reader(), bytes(16))
    base.index._database.execute("PRAGMA user_version = 99")
    with pytest.raises(IndexUnusableError, match="version 99"):
        IndexWriter(base.index_path, base.folder.reader(), base.journal.store)
    garbage = tmp_path / "garbage.sqlite"
    garbage.write_bytes(b"no database" * 1000)
    with pytest.raises(IndexUnusableError):
        IndexWriter(str(garbage), base.folder.reader(), base.journal.store)


def test_an_index_that_was_rebuilt_answers_the_same(base: Base) -> None:
    """The index can be deleted: a new one gives the same answers to everything."""
    events = many_events(60, 5)
    base.store(*((Kind.EVENT, e) for e in events), (Kind.JOB, job()), (Kind.CHECKPOINT, checkpoint()))
    base.store((Kind.RUN_SETTING, setting()), (Kind.JOB, job(n=2)), (Kind.RUN_SETTING, setting()))

    def answers() -> list[Any]:
        return [
            base.ask("getEventContents", **RUN), base.ask("getEventsByRun", **RUN), base.ask("getAllJobs"),
            base.ask("getAllRuns"), base.ask("getCheckpointsByJobId", jobId="job-1"), base.ask("readAll"),
            twins(base),
        ]  # fmt: skip

    before = answers()
    base.index.close()
    base.database.close()
    remove(base.index_path)
    remove(base.index_path)
    assert not list(base.path.glob(".stored/index*"))
    base.index = IndexWriter(base.index_path, base.folder.reader(), base.journal.store)
    base.follow()
    base.database = connect(base.index_path, read_only=True)
    base.listings = ListingCache(1 << 20)
    assert answers() == before


@pytest.mark.parametrize("name", ["what?", "a#b", "50%", "a%41", "sp ace", "ü"])
def test_an_index_may_stand_in_any_folder(tmp_path: Path, name: str) -> None:
    """Characters that mean something in an SQLite URI are only characters of a path."""
    base = Base(tmp_path / name)
    base.store((Kind.JOB, job()))
    assert base.ask("retrieveJob", jobId="job-1")[0] == job()
    assert (base.path / ".stored" / INDEX_NAME).exists()


@pytest.mark.parametrize(
    ("op", "after"),
    [
        ("getAllJobs", []), ("getAllJobs", ["x", 1]), ("getAllJobs", [1]), ("getAllJobs", [1, 2]),
        ("getAllJobs", [1, "a", 2]),
        ("getAllRuns", [1, "a"]), ("getAllRuns", [1, 2, 3]), ("getAllRuns", [1, "a", "b", "c"]),
        ("getCheckpointsByJobId", [1, "a"]), ("getCheckpointsByJobId", [1.5, 2]),
        ("getEventsByRun", ["a", "b"]), ("getEventContents", [1]), ("getEventContents", [1.5, 2]),
    ],
)  # fmt: skip
def test_a_cursor_of_another_shape_is_refused(base: Base, op: str, after: list[Any]) -> None:
    """A cursor that can't be the `next` of this listing is a bad request."""
    base.store((Kind.EVENT, event()), (Kind.JOB, job()))
    arguments = {"getAllJobs": {}, "getAllRuns": {}, "getCheckpointsByJobId": {"jobId": "job-1"}}.get(op, RUN)
    refusal = refused(base, op, after=after, **arguments)
    assert (refusal.code, refusal.field) == ("BAD_REQUEST", "after")


@pytest.mark.parametrize("op", sorted(queries.OPERATIONS))
def test_huge_cursors_and_limits_are_only_numbers(base: Base, op: str) -> None:
    """The largest numbers that an argument may have reach the database without harm."""
    base.store(
        (Kind.EVENT, event()),
        (Kind.JOB, job()),
        (Kind.CHECKPOINT, checkpoint()),
        (Kind.RUN_SETTING, setting()),
    )
    huge = 2**53 - 1
    afters: dict[str, Any] = {
        "getAllJobs": [huge, "x"], "getAllRuns": [-huge, "a", "b"], "getCheckpointsByJobId": [huge, huge],
        "getEventsByRun": [huge, huge], "getEventContents": [huge, huge], "readAll": huge,
    }  # fmt: skip
    if op in afters:
        arguments: dict[str, Any] = {"jobId": "job-1", "runId": "run-1", "limit": huge}
        base.ask(op, **arguments)
        base.ask(op, after=afters[op], **arguments)
