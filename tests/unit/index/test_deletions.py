"""Deletions in the index: after them no read shows what they removed, and all else is as before."""

from pathlib import Path
from typing import Any

import pytest

from perstack_stored.errors import Refusal
from perstack_stored.index.connection import connect
from perstack_stored.index.deletions import Removals
from perstack_stored.index.writer import IndexWriter
from perstack_stored.journal.entry_format import NO_SESSION, Record
from perstack_stored.journal.writer import Append
from perstack_stored.model.kinds import Kind
from perstack_stored.read import queries
from perstack_stored.read.source import Source
from tests.helpers.datadir import Base, checkpoint, event, job, setting

LARGE = "x" * (2 << 20)


@pytest.fixture
def base(tmp_path: Path) -> Base:
    return Base(tmp_path / "base")


def delete(base: Base, job_id: str = "job-1", run: str | None = None) -> int:
    return base.store((Kind.DELETION, {"jobId": job_id} | ({} if run is None else {"runId": run})))


def fill(base: Base, job_id: str = "job-1", *runs: str) -> None:
    """A job with events that share names, a repeat, a lost step, checkpoints and settings."""
    base.store((Kind.JOB, job(id=job_id)))
    for run in runs or ("run-1", "run-2"):
        named: dict[str, Any] = {"jobId": job_id, "runId": run}
        base.store(
            (Kind.RUN_SETTING, setting(**named)),
            (Kind.EVENT, event(id="a", **named)),
            (Kind.EVENT, event(id="b", **named)),
            (Kind.EVENT, event(id="a", **named)),
            (Kind.EVENT, event(id="late", timestamp=1, stepNumber=0, **named)),
            (Kind.CHECKPOINT, checkpoint(id=f"{run}-cp", **named)),
        )


def rows(base: Base) -> dict[str, list[Any]]:
    """All rows but those that tell of positions passed over, or of deletions."""
    passed = {"cursor", "place", "deletion", "deleted_checkpoint", "job_span"}
    names = [name for (name,) in base.database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {
        name: sorted(base.database.execute(f"SELECT * FROM {name}"), key=repr)
        for name in names
        if name not in passed
    }


def reads(base: Base, job_id: str = "job-1", run: str = "run-1") -> list[Any]:
    """What each read shows of a job and a run."""
    named = {"jobId": job_id, "runId": run}
    return [
        base.ask("retrieveJob", jobId=job_id)[0],
        base.ask("getCheckpointsByJobId", jobId=job_id)[0],
        base.ask("getEventsByRun", **named)[0],
        base.ask("getEventContents", **named)[0],
        [one for one in base.ask("getAllRuns")[0] if one["jobId"] == job_id and one["runId"] == run],
        [one for one in base.ask("getAllJobs")[0] if one["id"] == job_id],
        [one for one in base.ask("listJobs")[0] if one["jobId"] == job_id],
        [one for one in base.ask("listRuns", jobId=job_id)[0] if one["runId"] == run],
        [one for one in base.ask("readAll")[0] if not one["op"].startswith("delete")],
        [one for one in base.ask("readAll", jobId=job_id)[0] if not one["op"].startswith("delete")],
    ]


def test_no_read_shows_a_deleted_job(base: Base) -> None:
    """Nor any of its runs; nothing of it is left in the tables but the positions of repeats."""
    fill(base)
    assert all(reads(base))
    delete(base)
    assert reads(base) == [None, *[[]] * 9]
    left = rows(base)
    assert left.pop("removed_span"), "where its bytes are to be erased"
    assert all(not found for name, found in left.items() if name != "twin")
    assert all(n == 0 for _, n in left["twin"])


def test_other_jobs_are_as_if_the_job_had_never_been(base: Base, tmp_path: Path) -> None:
    """Row by row, but for the numbers of runs and positions."""
    fill(base, "job-2")
    before = reads(base, "job-2")[:8]
    fill(base)
    delete(base)
    assert reads(base, "job-2")[:8] == before


def test_a_deleted_run_leaves_the_other_runs_of_its_job(base: Base) -> None:
    """The Job stays, and its summary is that of what is left."""
    fill(base)
    other = reads(base, run="run-2")
    delete(base, run="run-1")
    assert base.ask("getEventContents", jobId="job-1", runId="run-1")[0] == []
    assert reads(base, run="run-2")[2:5] == other[2:5]
    assert [one["id"] for one in base.ask("getCheckpointsByJobId", jobId="job-1")[0]] == ["run-2-cp"]
    (summary,) = base.ask("listJobs")[0]
    assert (summary["runs"], summary["records"]) == (
        1, {"jobs": 1, "runSettings": 1, "checkpoints": 1, "events": 3}
    )  # fmt: skip
    assert [one["runId"] for one in base.ask("listRuns")[0]] == ["run-2"]


def test_a_job_without_a_job_record_is_summarised_by_its_other_runs(base: Base) -> None:
    """Begin, expert, status and usage; without any run it is not known any more."""
    for run, at in (("run-1", 1000), ("run-2", 2000)):
        base.store(
            (Kind.EVENT, event(runId=run, timestamp=at, expertKey=f"of-{run}")),
            (Kind.CHECKPOINT, checkpoint(runId=run, id=run, status=f"status-{run}")),
        )
    delete(base, run="run-1")
    (summary,) = base.ask("listJobs")[0]
    assert (summary["startedAt"], summary["status"], summary["runs"]) == (2000, "status-run-2", 1)
    delete(base, run="run-2")
    assert base.ask("listJobs")[0] == []


def test_what_is_stored_later_under_the_id_is_new(base: Base) -> None:
    """The same bytes too: they repeat nothing. A deletion does not reach forward."""
    fill(base)
    before = reads(base)
    delete(base)
    fill(base)
    after = reads(base)
    assert after[:6] == before[:6]
    assert len(after[8]) == len(before[8])


def test_one_transaction_may_hold_the_job_its_deletion_and_the_job_again(base: Base) -> None:
    """As when the index lags: the order of the records counts, not that of the transactions."""
    records: list[tuple[Kind, dict[str, Any] | bytes]] = [
        (Kind.EVENT, event(id="old")),
        (Kind.EVENT, event(id="old2")),
        (Kind.DELETION, {"jobId": "job-1"}),
        (Kind.EVENT, event(id="new")),
    ]
    base.store(*records)
    assert [one["id"] for one in base.ask("getEventContents", jobId="job-1", runId="run-1")[0]] == ["new"]
    assert [one["position"] for one in base.ask("readAll")[0]] == [3, 4]


def test_a_run_never_gets_the_number_of_a_deleted_one(base: Base) -> None:
    """Cached listings are kept by the number; it holds over a restart of the worker as well."""
    fill(base, "job-1", "run-1")
    listed = base.ask("getEventsByRun", jobId="job-1", runId="run-1")[0]
    assert len(listed) == 3
    (number,) = base.database.execute("SELECT max(id) FROM run").fetchone()
    delete(base)
    base.index.close()
    base.index = IndexWriter(base.index_path, base.folder.reader(), base.journal.store)
    base.store((Kind.EVENT, event(jobId="job-9", runId="run-9")))
    assert base.database.execute("SELECT id FROM run").fetchone()[0] > number
    assert len(base.ask("getEventsByRun", jobId="job-9", runId="run-9")[0]) == 1


def test_a_rebuilt_index_does_not_bring_it_back(base: Base, tmp_path: Path) -> None:
    """It has the same rows as the one that followed."""
    fill(base)
    delete(base, run="run-1")
    fill(base, "job-2")
    delete(base, "job-2")
    fill(base, "job-1", "run-1")
    again = IndexWriter(str(tmp_path / "again.sqlite"), base.folder.reader(), base.journal.store)
    again.apply(list(base.reader.entries(again.place, base.journal.mark)))
    again.close()
    before = rows(base)
    base.database.close()
    base.database = connect(str(tmp_path / "again.sqlite"), read_only=True)
    assert rows(base) == before


def test_a_large_record_is_removed_too(base: Base) -> None:
    """Its value is never looked into: the index knows its job."""
    base.store((Kind.EVENT, event(id="large", text=LARGE)))
    base.store((Kind.EVENT, event(id="large", jobId="job-2", text=LARGE)))
    delete(base)
    assert [one["position"] for one in base.ask("readAll")[0]] == [2, 3]
    assert [one["position"] for one in base.ask("readAll", after=1, limit=1)[0]] == [2]
    assert base.ask("readAll", jobId="job-1", after=0) == ([], {"next": 1})
    with pytest.raises(Refusal):
        base.ask("getEvent", position=1)
    assert base.ask("getEvent", position=2)[0]["position"] == 2


def test_a_subscriber_hears_of_the_deletion_in_order(base: Base) -> None:
    """Of a job, of a run, and a subscriber of a run of the deletion of its job. Gaps are not named."""
    fill(base)
    deleted = delete(base, run="run-2")
    whole = delete(base)
    found, fields = base.ask("readAll", jobId="job-1", runId="run-1")
    assert [(one["position"], one["op"], one["value"]) for one in found] == [
        (whole, "deleteJob", {"jobId": "job-1"})
    ]
    found, fields = base.ask("readAll")
    assert [(one["position"], one["op"]) for one in found] == [(deleted, "deleteRun"), (whole, "deleteJob")]
    assert "gaps" not in fields
    assert fields["next"] == whole
    with pytest.raises(Refusal):
        base.ask("getEvent", position=1)
    assert base.ask("getEvent", position=deleted)[0]["op"] == "deleteRun"


def test_deletions_are_listed_in_pages(base: Base) -> None:
    """With position, time, job, run and reason."""
    first = delete(base)
    second = base.store((Kind.DELETION, {"jobId": "job-2", "runId": "r", "why": "age"}))
    found, _ = base.ask("deletions")
    assert [(one["position"], one["jobId"], one.get("runId"), one["why"]) for one in found] == [
        (first, "job-1", None, "asked"), (second, "job-2", "r", "age")
    ]  # fmt: skip
    assert all(not one["erased"] and one["time"] > 0 for one in found)
    page, fields = base.ask("deletions", limit=1)
    assert ([one["position"] for one in page], fields["next"]) == ([first], first)
    page, fields = base.ask("deletions", limit=1, after=first)
    assert ([one["position"] for one in page], fields["next"]) == ([second], None)


def test_a_run_that_goes_while_it_is_read_is_no_shorter_run(base: Base) -> None:
    """The reader must read again; it must not take a part for all."""
    base.store(*[(Kind.EVENT, event(id=f"e{n}", stepNumber=n, timestamp=n)) for n in range(3000)])
    for op in ("getEventContents", "getEventsByRun"):
        answer = _open(base, op)
        next(answer)
        delete(base)
        with pytest.raises(Refusal) as caught:
            list(answer)
        assert caught.value.code == "READ_GONE"
        base.store(*[(Kind.EVENT, event(id=f"e{n}", stepNumber=n, timestamp=n)) for n in range(3000)])


def _open(base: Base, op: str) -> Any:
    source = Source(base.database, base.reader, base.listings)
    return queries.OPERATIONS[op](source, {"jobId": "job-1", "runId": "run-1"}).pieces


def test_removals_tell_the_record_before_from_the_one_after(base: Base) -> None:
    """By position, job and run."""
    fill(base)
    position = delete(base, run="run-1")
    removals = Removals(base.database, 0)
    assert removals
    assert removals.has(position - 1, "job-1", "run-1")
    assert not removals.has(position + 1, "job-1", "run-1")
    later = delete(base, "job-2")
    assert Removals(base.database, 0).has(position - 1, "job-1", "run-1")
    assert not Removals(base.database, 0).has(later - 1, "job-1", "run-1")
    assert not removals.has(1, "job-1", "run-2")
    assert not removals.has(1, "job-1", "")
    assert not removals.has(later, "job-2", "run-1")
    assert not Removals(base.database, later)


def test_a_large_job_goes_in_one_transaction(base: Base) -> None:
    """A reader of the index sees all of it, or nothing."""
    base.store(*[(Kind.EVENT, event(id=f"e{n}", timestamp=n, stepNumber=n // 10)) for n in range(3000)])
    base.journal.append([Append(NO_SESSION, 0, [Record(Kind.DELETION, 0, b'{"jobId":"job-1"}')])])
    counts: set[int] = set()
    connection = base.index._database
    select = "SELECT count(*) FROM event_block"

    def look(statement: str) -> None:
        if not statement.startswith("SELECT count"):
            counts.add(base.database.execute(select).fetchone()[0])

    connection.set_trace_callback(look)
    base.follow()
    connection.set_trace_callback(None)
    assert len(counts) == 1
    assert base.database.execute(select).fetchone() == (0,)


# --- redactions ------------------------------------------------------------------------------------


def redact(base: Base, run: str = "run-1", **fields: Any) -> int:
    value = {"jobId": "job-1", "runId": run, "setting": setting(runId=run, **fields)}
    return base.store((Kind.DELETION, value))


def test_a_redacted_setting_takes_the_place_of_all_before(base: Base) -> None:
    """No read shows the old ones; a later one changes the time only; all else stays."""
    fill(base)
    base.store((Kind.RUN_SETTING, setting(env={"KEY": "secret"})))
    events = base.ask("getEventContents", jobId="job-1", runId="run-1")[0]
    position = redact(base, env={"KEY": "***"})
    (found,) = [one for one in base.ask("getAllRuns")[0] if one["runId"] == "run-1"]
    assert found["env"] == {"KEY": "***"}
    assert base.ask("getEventContents", jobId="job-1", runId="run-1")[0] == events
    records = base.ask("readAll", jobId="job-1", runId="run-1")[0]
    assert [one["op"] for one in records if "etting" in one["op"]] == ["redactRunSetting"]
    assert len([one for one in base.ask("readAll")[0] if one["op"] == "storeRunSetting"]) == 1
    base.store((Kind.RUN_SETTING, setting(env={"KEY": "secret"})))
    (found,) = [one for one in base.ask("getAllRuns")[0] if one["runId"] == "run-1"]
    assert found["env"] == {"KEY": "***"}
    (listed,) = base.ask("deletions")[0]
    assert (listed["position"], listed["settingOnly"], "setting" in listed) == (position, True, False)


def test_a_redaction_goes_with_a_later_one_and_with_its_run(base: Base) -> None:
    """It holds a setting, so it is removed as one."""
    fill(base)
    redact(base, env={"KEY": "half"})
    last = redact(base, env={})
    found = [one for one in base.ask("readAll")[0] if one["op"] == "redactRunSetting"]
    assert [one["position"] for one in found] == [last]
    delete(base, run="run-1")
    assert not [one for one in base.ask("readAll")[0] if one["op"] == "redactRunSetting"]
    assert [one["runId"] for one in base.ask("getAllRuns")[0]] == ["run-2"]


def test_secrets_of_a_redaction_are_masked_for_readers(base: Base) -> None:
    """As those of a setting."""
    redact(base, env={"KEY": "secret"}, providerConfig={"apiKey": "secret"})
    source = Source(base.database, base.reader, base.listings)
    for arguments in ({"masked": True}, {"masked": True, "jobId": "job-1"}):
        answer = b"".join(queries.OPERATIONS["readAll"](source, arguments).pieces)
        assert b"secret" not in answer
        assert b"redactRunSetting" in answer
