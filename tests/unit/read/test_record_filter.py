"""Filters of `readAll`, reads of one job by the index, and the last records."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perstack_storage.protocol import ErrorCode
from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.errors import Refusal
from perstack_stored.index.schema import SPAN_POSITIONS
from perstack_stored.journal.reader import JournalReader
from perstack_stored.model.kinds import Kind
from perstack_stored.read import window_reader
from perstack_stored.read.arguments import check_arguments
from perstack_stored.read.window import JournalWindow
from tests.helpers.datadir import Base, checkpoint, event, job, setting

Item = dict[str, Any]


@pytest.fixture
def base(tmp_path: Path) -> Base:
    return Base(tmp_path / "base")


def follow(base: Base, **arguments: Any) -> tuple[list[Item], int]:
    """All records of a read that goes on to the end, and the count of its answers."""
    found: list[Item] = []
    after = answers = 0
    while True:
        items, fields = base.ask("readAll", after=after, **arguments)
        answers += 1
        found += items
        following = fields["next"]
        assert isinstance(following, int)
        if following >= base.journal.mark.position:
            return found, answers
        assert following > after, "each answer moves on"
        after = following


def fill(base: Base, jobs: int, rounds: int) -> None:
    """Records of all kinds of some jobs, their runs interleaved; each seventh event is a repeat."""
    for n in range(rounds):
        for j in range(jobs):
            ids = {"jobId": f"j{j}", "runId": f"r{n % 2}"}
            kind = "completeRun" if n % 5 == 0 else "delta"
            of_event = event(**ids, id=f"e{n}", type=kind, timestamp=n, text="x" * 50)
            items: list[tuple[Kind, Item]] = [(Kind.EVENT, of_event)]
            if n % 7 == 0:
                items.append((Kind.EVENT, of_event))
            if n % 3 == 0:
                items += [(Kind.JOB, job(id=f"j{j}", totalSteps=n)), (Kind.CHECKPOINT, checkpoint(**ids))]
                items.append((Kind.RUN_SETTING, setting(**ids)))
            base.store(*items)


def passes(item: Item, arguments: dict[str, Any]) -> bool:
    """What wire.md says of the filters, written once more."""
    value, op = item["value"], item["op"]
    if "jobId" in arguments and arguments["jobId"] != (value["id"] if op == "storeJob" else value["jobId"]):
        return False
    if "runId" in arguments and arguments["runId"] != value.get("runId"):
        return False
    ops = arguments.get("ops", ["storeEvent"] if "types" in arguments else None)
    if ops is not None and op not in ops:
        return False
    return op != "storeEvent" or "types" not in arguments or value["type"] in arguments["types"]


FILTERS: list[dict[str, Any]] = [
    {"types": ["completeRun"]},
    {"types": ["completeRun", "delta"]},
    {"types": []},
    {"types": ["nothing"]},
    {"ops": ["storeJob"]},
    {"ops": ["storeJob", "storeEvent"], "types": ["completeRun"]},
    {"ops": ["storeCheckpoint", "storeRunSetting"], "types": ["completeRun"]},
    {"ops": []},
    {"jobId": "j1"},
    {"jobId": "j1", "runId": "r1"},
    {"jobId": "j1", "types": ["delta"]},
    {"jobId": "j1", "runId": "r0", "ops": ["storeCheckpoint", "storeJob"]},
    {"jobId": "nobody"},
]


@pytest.mark.parametrize("arguments", FILTERS, ids=str)
def test_a_filter_lets_pass_what_it_says_and_nothing_else(
    base: Base, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over many small windows, and with a limit too; the answers move on where nothing passes."""
    fill(base, jobs=3, rounds=40)
    everything, _ = follow(base)
    expected = [item for item in everything if passes(item, arguments)]
    assert follow(base, **arguments)[0] == expected
    monkeypatch.setattr(window_reader, "RECORDS_MAX", 16)
    for more in ({}, {"limit": 3}, {"waitMs": 1}):
        found, answers = follow(base, **arguments, **more)
        assert found == expected
        assert "jobId" in arguments or answers > 3
    if expected:
        count = min(7, len(expected))
        monkeypatch.setattr(window_reader, "RECORDS_MAX", 10_000)
        found, fields = base.ask("readAll", last=count, **arguments)
        assert found == expected[-count:]
        assert fields["next"] == base.journal.mark.position


def test_the_last_records_are_looked_for_within_bounds(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is passed over on the way back is bounded; what was found until then is answered."""
    base.store((Kind.EVENT, event(type="rare")))
    fill(base, jobs=2, rounds=100)
    end = base.journal.mark.position
    assert base.ask("readAll", last=0) == ([], {"next": end})
    assert base.ask("readAll", last=1, types=["rare"])[0][0]["position"] == 1
    everything, _ = follow(base)
    assert base.ask("readAll", last=10_000)[0] == everything
    monkeypatch.setattr(window_reader, "RECORDS_MAX", 16)
    monkeypatch.setattr(window_reader, "BYTES_MAX", 1)
    seen: list[int] = []
    entries = window_reader.entries

    def counted(*arguments: Any) -> Any:
        for entry in entries(*arguments):
            seen.append(entry.header.count)
            yield entry

    monkeypatch.setattr(window_reader, "entries", counted)
    base.ask("readAll", last=1, types=["nothing"], limit=1)
    assert sum(seen) <= len(everything) + 60


class CountingFiles(FileSystem):
    """Adds up what is read."""

    total = 0

    def read(self, fd: int, length: int, offset: int) -> bytes:
        self.total += length
        return super().read(fd, length, offset)


def test_a_read_of_one_job_passes_over_the_journal_of_others(base: Base) -> None:
    """Three records of a job that stand far apart cost the reading of three places, not of the journal."""
    for n in range(3):
        base.store((Kind.EVENT, event(jobId="mine", id=f"m{n}", timestamp=n)))
        for i in range(24):
            base.store(*((Kind.EVENT, event(id=f"{n}-{i}-{k}", pad="x" * 900)) for k in range(300)))
    assert base.journal.mark.position > 20 * SPAN_POSITIONS
    size = sum(path.stat().st_size for path in base.folder.segments())
    files = CountingFiles()
    base.reader = JournalReader(files, base.folder.fd)
    found, answers = follow(base, jobId="mine")
    assert [item["value"]["id"] for item in found] == ["m0", "m1", "m2"]
    assert follow(base, jobId="nobody") == ([], 1)
    assert (answers, files.total < size / 3) == (1, True)
    assert [item["value"]["id"] for item in base.ask("readAll", last=2, jobId="mine")[0]] == ["m1", "m2"]


def test_an_index_that_is_rolled_back_notes_the_spans_once_more(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction that failed leaves no job without its span."""
    base.store((Kind.JOB, job(id="j")))
    monkeypatch.setattr(base.index, "_insert_gaps", _fail)
    with pytest.raises(OSError, match="here"):
        base.store((Kind.JOB, job(id="k")))
    monkeypatch.undo()
    base.follow()
    assert [item["position"] for item in base.ask("readAll", jobId="k")[0]] == [2]


def _fail() -> None:
    raise OSError("here")


def test_values_are_looked_into_only_where_a_filter_needs_it(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(base, jobs=1, rounds=9)
    looked: list[int] = []
    facts_of: Callable[[JournalWindow, int], Any] = JournalWindow._facts_of

    def counted(self: JournalWindow, number: int) -> Any:
        looked.append(self._records[number][2])
        return facts_of(self, number)

    monkeypatch.setattr(JournalWindow, "_facts_of", counted)
    base.ask("readAll", ops=["storeJob", "storeEvent"])
    assert looked == []
    base.ask("readAll", types=["delta"])
    assert set(looked) == {Kind.EVENT}


def test_a_large_event_is_known_by_its_type(base: Base) -> None:
    """Its value is not read to find the type, and a large checkpoint is no event."""
    base.store((Kind.EVENT, event(id="big", type="big", text="x" * (2 << 20))))
    base.store((Kind.CHECKPOINT, checkpoint(text="x" * (2 << 20))))
    base.store((Kind.EVENT, event(id="small")))
    for arguments, expected in (
        ({"types": ["big"]}, [1]),
        ({"types": ["startRun"]}, [3]),
        ({"ops": ["storeCheckpoint"]}, [2]),
        ({"jobId": "job-1", "types": ["big", "startRun"]}, [1, 3]),
        ({"jobId": "job-1"}, [1, 2, 3]),
    ):
        found, _ = follow(base, **arguments)
        assert [item["position"] for item in found] == expected
        assert base.ask("readAll", last=1, **arguments)[0][-1]["position"] == expected[-1]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"ops": ["getAllJobs"]}, "ops"),
        ({"ops": "storeJob"}, "ops"),
        ({"ops": ["storeJob"] * 99}, "ops"),
        ({"types": "x"}, "types"),
        ({"types": ["x"] * 101}, "types"),
        ({"last": -1}, "last"),
        ({"last": 1, "after": 0}, "last"),
    ],
)
def test_a_wrong_filter_is_refused_by_name(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(Refusal) as caught:
        check_arguments("readAll", arguments)
    assert (caught.value.code, caught.value.field) == (ErrorCode.BAD_REQUEST, field)


def test_what_was_deleted_passes_no_filter_and_the_deletion_does(base: Base) -> None:
    """A read of a job that is gone finds its deletion; one of a run also that of its job."""
    fill(base, jobs=2, rounds=20)
    base.store((Kind.EVENT, event(jobId="j0", type="big", text="x" * (2 << 20))))
    of_run = base.store((Kind.DELETION, {"jobId": "j1", "runId": "r0"}))
    of_job = base.store((Kind.DELETION, {"jobId": "j0"}))
    after = base.store((Kind.EVENT, event(jobId="j0", runId="r1", id="again", type="completeRun")))
    left = [item for item in base.ask("readAll")[0] if item["position"] < of_run]
    assert left
    for arguments, expected in (
        ({"ops": ["deleteJob"]}, [of_job]),
        ({"ops": ["deleteJob", "deleteRun"]}, [of_run, of_job]),
        ({"jobId": "j0"}, [of_job, after]),
        ({"jobId": "j0", "runId": "r1"}, [of_job, after]),
        ({"jobId": "j0", "ops": ["deleteRun"]}, []),
        ({"jobId": "j0", "types": ["big", "completeRun"]}, [after]),
        ({"jobId": "j1", "runId": "r0"}, [of_run]),
        ({"types": ["delta"]}, [item["position"] for item in left if passes(item, {"types": ["delta"]})]),
    ):
        assert [item["position"] for item in follow(base, **arguments)[0]] == expected
        last = base.ask("readAll", last=1, **arguments)[0]
        assert [item["position"] for item in last] == expected[-1:]


def test_a_job_that_is_deleted_while_it_is_read_is_there_whole_or_not_at_all(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its records stand in two spans; the deletion comes while the second one is read."""
    for n in (1, 2):
        base.store((Kind.EVENT, event(jobId="mine", id=f"e{n}", timestamp=n)))
        base.store(*((Kind.EVENT, event(id=f"{n}-{i}")) for i in range(SPAN_POSITIONS)))
    entries, starts = window_reader.entries, list[int]()

    def meanwhile(database: Any, reader: Any, after: int, *more: Any) -> Any:
        starts.append(after)
        if len(starts) == 2:
            base.store((Kind.DELETION, {"jobId": "mine"}))
        return entries(database, reader, after, *more)

    monkeypatch.setattr(window_reader, "entries", meanwhile)
    found, fields = base.ask("readAll", jobId="mine")
    assert len(starts) == 2
    assert (found, fields["next"]) == ([], 2 * SPAN_POSITIONS + 2)
    assert not base.database.in_transaction


def test_a_deletion_that_comes_while_records_are_sent_tears_no_job_in_two(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that has records before and after another deletion."""
    for n in (1, 2):
        base.store((Kind.EVENT, event(jobId="mine", id=f"e{n}", timestamp=n)))
        base.store((Kind.DELETION, {"jobId": f"other-{n}"}))
    base.store((Kind.EVENT, event(jobId="mine", id="e3", timestamp=3)))
    entries = window_reader.entries

    def meanwhile(*arguments: Any) -> Any:
        base.store((Kind.DELETION, {"jobId": "mine"}))
        return entries(*arguments)

    monkeypatch.setattr(window_reader, "entries", meanwhile)
    found, fields = base.ask("readAll")
    assert [item["position"] for item in found if item["op"] == "storeEvent"] in ([], [1, 3, 5])
    assert fields["next"] == 5
