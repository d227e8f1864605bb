"""The judge is tried on histories and stores in which one thing is wrong: it names that and nothing else."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash.case import Case, text
from tests.crash.observed import Record, digest
from tests.crash.recorder import Log, look
from tests.helpers.raw_client import event, job


def nothing(_case: Case) -> None:
    """All is well."""


def unanswered_and_not_stored(case: Case) -> None:
    """The last store was on its way when everything ended."""
    case.drop(8)
    del case.records[7]
    case.last = 7


def unanswered_and_stored(case: Case) -> None:
    """Its answer was lost."""
    case.drop(8)


def given_up_and_not_stored(case: Case) -> None:
    """A hole that nobody waits for."""
    case.outcome(3, do="gave_up")
    case.records[2] = Record(3, 1003, "storeEvent", text(event("e2")).encode())
    del case.records[2]
    for n in range(3, 8):
        case.put(n, position=n)
        case.outcome(n + 1, positions=[n])
    case.last = 7


def refused(case: Case) -> None:
    """A store that was refused, and is not there."""
    case.sent(9, "storeEvent", event("e9"), t=9)
    case.lines.append({"do": "refused", "t": 9.5, "session": "s1", "seq": 9})


def event_sent_twice(case: Case) -> None:
    """The client itself stored the same event twice: it has a position of its own, and is shown once."""
    case.sent(9, "storeEvent", event("e3", stepNumber=2), t=9)
    case.stored(9, 9, t=9.5)
    case.last = 9


def without_session_twice(case: Case) -> None:
    """Without a session a store may stand more than once."""
    for n in (1, 2):
        case.sent(n, "storeJob", job("j9"), t=10 + n, session=None)
    case.stored(2, 10, t=20, session=None)
    value = text(job("j9")).encode()
    case.records += [Record(9, 1009, "storeJob", value), Record(10, 1010, "storeJob", value)]
    case.last = 10


def job_deleted(case: Case) -> None:
    """All that was acknowledged of it is gone."""
    case.delete(jobId="j1")


def run_deleted(case: Case) -> None:
    """The job stays; and of the run what came later."""
    case.delete(jobId="j1", runId="r1")
    case.sent(10, "storeEvent", event("e1"), t=10)
    case.stored(10, 10, t=10.5)
    case.records.append(Record(10, 1010, "storeEvent", text(event("e1")).encode()))
    case.last = 10


def given_up_and_deleted(case: Case) -> None:
    """Nobody knows whether it stood at the position that is empty."""
    case.outcome(3, do="gave_up")
    case.delete(jobId="j1", runId="r1")


@pytest.mark.parametrize(
    "arrange",
    [
        nothing,
        unanswered_and_not_stored,
        unanswered_and_stored,
        given_up_and_not_stored,
        refused,
        event_sent_twice,
        without_session_twice,
        job_deleted,
        run_deleted,
        given_up_and_deleted,
    ],
    ids=lambda arrange: str(arrange.__name__),
)
def test_what_is_right_is_not_blamed(tmp_path: Path, arrange: Callable[[Case], None]) -> None:
    """What the protocol allows is no finding."""
    case = Case(tmp_path)
    arrange(case)
    assert not case.verdict().kinds, str(case.verdict())


def lost_at_the_end(case: Case) -> None:
    del case.records[7]
    case.last = 7


def lost_in_the_middle(case: Case) -> None:
    del case.records[3]
    case.last = 8


def other_record_in_its_place(case: Case) -> None:
    case.put(4, value=text(job("j1", totalSteps=3)).encode(), op="storeJob")


def seen_and_gone(case: Case) -> None:
    case.drop(8)
    seen = digest(case.records.pop())
    case.lines.append({"do": "saw", "t": 8.2, "seq": 0, "position": 8, "digest": seen})
    case.last = 7


def doubled_job(case: Case) -> None:
    case.records.append(case.records[6]._replace(position=9, time=1009))
    case.last = 9


def doubled_event(case: Case) -> None:
    case.last = 9  # readAll leaves out an event that repeats one: its position stays empty


def doubled_where_the_answer_was_lost(case: Case) -> None:
    case.drop(7)
    case.records.append(case.records[6]._replace(position=9, time=1009))
    case.last = 9


def swapped(case: Case) -> None:
    for seq, at in ((2, 3), (3, 2)):
        case.outcome(seq, positions=[at])
    case.put(2, value=text(event("e2")).encode())
    case.put(3, value=text(event("e1")).encode())


def one_left_out(case: Case) -> None:
    case.drop(2)
    del case.records[1]
    for n in range(2, 8):
        case.put(n, position=n)
        case.outcome(n + 1, positions=[n])
    case.last = 7


def after_what_was_acknowledged_before(case: Case) -> None:
    case.sent(1, "storeJob", job("j7"), t=0.1, session="other")
    case.stored(1, 9, t=0.2, session="other")
    case.records.append(Record(9, 1009, "storeJob", text(job("j7")).encode()))
    case.last = 9


def positions_back(case: Case) -> None:
    case.records[4], case.records[5] = case.records[5], case.records[4]


def torn_record(case: Case) -> None:
    case.drop(8)
    whole = case.records[7].value
    case.put(8, value=whole[:50] + bytes(len(whole) - 50))


def torn_file_seen(case: Case) -> None:
    case.lines.append({"do": "torn", "t": 8.2, "seq": 0, "path": "jobs/j1/job.json", "why": "empty"})


def invented(case: Case) -> None:
    case.records.append(Record(9, 1009, "storeJob", b'{"nobody":"sent this"}'))
    case.last = 9


def refused_and_stored(case: Case) -> None:
    case.lines[-1] = {"do": "refused", "t": 8.5, "session": "s1", "seq": 8}


def deletion_lost(case: Case) -> None:
    records = list(case.records)
    case.delete(jobId="j1")
    case.records = records


def deleted_and_still_there(case: Case) -> None:
    left = case.records[1]
    case.delete(jobId="j1")
    case.records.insert(0, left)


def deleted_too_much(case: Case) -> None:
    case.delete(jobId="j1", runId="r1")
    del case.records[0]


def later_one_deleted_too(case: Case) -> None:
    run_deleted(case)
    del case.records[-1]


def deleted_and_shown_later(case: Case) -> None:
    seen = digest(case.records[2])
    case.delete(jobId="j1")
    case.lines.append({"do": "saw", "t": 9.9, "seq": 0, "position": 3, "digest": seen, "asked": 9.6})


@pytest.mark.parametrize(
    ("plant", "kinds"),
    [
        (lost_at_the_end, {"lost"}),
        (lost_in_the_middle, {"lost"}),
        (other_record_in_its_place, {"lost", "doubled"}),
        (seen_and_gone, {"lost"}),
        (doubled_job, {"doubled"}),
        (doubled_event, {"doubled"}),
        (doubled_where_the_answer_was_lost, {"doubled"}),
        (swapped, {"reordered"}),
        (one_left_out, {"reordered"}),
        (after_what_was_acknowledged_before, {"reordered"}),
        (positions_back, {"reordered"}),
        (torn_record, {"torn"}),
        (torn_file_seen, {"torn"}),
        (invented, {"invented"}),
        (refused_and_stored, {"invented"}),
        (deletion_lost, {"lost"}),
        (deleted_and_still_there, {"invented"}),
        (deleted_too_much, {"lost"}),
        (later_one_deleted_too, {"lost"}),
        (deleted_and_shown_later, {"invented"}),
    ],
    ids=lambda plant: str(getattr(plant, "__name__", "")),
)
def test_what_is_wrong_is_named(tmp_path: Path, plant: Callable[[Case], None], kinds: set[str]) -> None:
    """One planted fault: its kind is named, and no other."""
    case = Case(tmp_path)
    plant(case)
    assert case.verdict().kinds == kinds, str(case.verdict())


@pytest.mark.parametrize(("job", "torn"), [("s1-4-deleting-j2", []), ("s1-3-large", ["torn"])])
def test_only_a_deletion_may_take_a_file_from_a_watcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str, torn: list[str]
) -> None:
    """It was listed, and is gone when it is opened."""
    folder = tmp_path / "jobs" / job
    folder.mkdir(parents=True)
    (folder / "job.json").write_bytes(b"{}")

    def gone(path: Path) -> bytes:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_bytes", gone)
    history = tmp_path / "history"
    look(tmp_path, Log(history), random.Random(1))
    assert [json.loads(line)["do"] for line in history.open()] == torn
