"""The judge is tried on histories and stores in which one thing is wrong: it names that and nothing else."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.crash.judge import Verdict, judge, judge_records, judge_tree, read_history
from tests.crash.load import load
from tests.crash.observed import Record, digest
from tests.crash.projection import Projection
from tests.helpers.daemon import eventually, running_daemon
from tests.helpers.raw_client import checkpoint, event, job, setting

Line = dict[str, Any]
VALUES = [
    ("storeJob", job("j1")),
    ("storeEvent", event("e1")),
    ("storeEvent", event("e2")),
    ("storeCheckpoint", checkpoint("c1")),
    ("storeRunSetting", setting("r1")),
    ("storeRunSetting", setting("r1", model="n")),
    ("storeJob", job("j1", totalSteps=3)),
    ("storeEvent", event("e3", stepNumber=2)),
]


def _text(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


class Case:
    """A client that stored eight values one after the other, and the store that holds them."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "client.jsonl"
        self.lines: list[Line] = []
        for n, (op, value) in enumerate(VALUES, 1):
            self.sent(n, op, value, t=n)
            self.stored(n, n, t=n + 0.5)
        self.records = [
            Record(n, 1000 + n, op, _text(value).encode()) for n, (op, value) in enumerate(VALUES, 1)
        ]
        self.last = len(VALUES)

    def sent(self, seq: int, op: str, value: object, *, t: float, session: str | None = "s1") -> None:
        """A store goes out."""
        stores = [[op, _text(value)]]
        self.lines.append({"do": "sent", "t": t, "session": session, "seq": seq, "stores": stores})

    def stored(self, seq: int, position: int, *, t: float, session: str | None = "s1") -> None:
        """It is acknowledged."""
        self.lines.append({"do": "stored", "t": t, "session": session, "seq": seq, "positions": [position]})

    def outcome(self, seq: int, **changes: Any) -> None:
        """Change what is said about the outcome of a store."""
        (line,) = [line for line in self.lines if line["seq"] == seq and line["do"] != "sent"]
        line.update(changes)

    def drop(self, seq: int) -> None:
        """It was never answered."""
        self.lines = [line for line in self.lines if line["seq"] != seq or line["do"] == "sent"]

    def put(self, at: int, **changes: Any) -> None:
        """Change the record at a position."""
        self.records[at - 1] = self.records[at - 1]._replace(**changes)

    def delete(self, **named: str) -> None:
        """A job or run is deleted, and the store shows its deletion only; readers were shown it before."""
        seen = digest(self.records[1])
        self.lines.append({"do": "saw", "t": 8.6, "seq": 0, "position": 2, "digest": seen, "asked": 8.1})
        op = "deleteRun" if "runId" in named else "deleteJob"
        self.sent(9, op, named, t=9)
        self.stored(9, 9, t=9.5)
        kept = [record for record in self.records if record.op == "storeJob" and op == "deleteRun"]
        self.records = [*kept, Record(9, 1009, op, _text(named).encode())]
        self.last = 9

    def verdict(self) -> Verdict:
        """What the judge says."""
        self._path.write_text("".join(json.dumps(line) + "\n" for line in self.lines))
        return judge_records(read_history([self._path]), self.records, self.last)


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
    case.records[2] = Record(3, 1003, "storeEvent", _text(event("e2")).encode())
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
    value = _text(job("j9")).encode()
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
    case.records.append(Record(10, 1010, "storeEvent", _text(event("e1")).encode()))
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
    case.put(4, value=_text(job("j1", totalSteps=3)).encode(), op="storeJob")


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
    case.put(2, value=_text(event("e2")).encode())
    case.put(3, value=_text(event("e1")).encode())


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
    case.records.append(Record(9, 1009, "storeJob", _text(job("j7")).encode()))
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


def test_the_projection_names_the_files_of_the_tree(tmp_path: Path) -> None:
    """Last job, first setting with the time of the last one, events that share a name numbered."""
    files = Projection(Case(tmp_path).records).files()
    assert json.loads(files["jobs/j1/job.json"])["totalSteps"] == 3
    assert b'\n  "id": "j1"' in files["jobs/j1/job.json"]
    run = "jobs/j1/runs/r1"
    assert json.loads(files[f"{run}/event-1717171717200-0-startRun.json"])["id"] == "e1"
    assert json.loads(files[f"{run}/event-1717171717200-0-startRun.n0002.json"])["id"] == "e2"
    found = json.loads(files[f"{run}/run-setting.json"])
    assert (found["model"], found["updatedAt"]) == ("m", 1717171717200)
    assert len(files) == 6


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda files: files.pop("jobs/j1/job.json"), "lost"),
        (lambda files: files.update({"jobs/j1/job.json": b'{"id'}), "torn"),
        (lambda files: files.update({"jobs/j2/job.json": b"{}"}), "invented"),
    ],
    ids=["missing", "half", "nobody's"],
)
def test_a_tree_that_is_not_the_projection_is_named(
    tmp_path: Path, change: Callable[[dict[str, bytes]], object], kind: str
) -> None:
    """A file that is missing, half or nobody's."""
    expected = Projection(Case(tmp_path).records).files()
    found = dict(expected)
    judge_tree(found, expected, verdict := Verdict())
    assert not verdict.kinds
    change(found)
    judge_tree(found, expected, verdict)
    assert verdict.kinds == {kind}


@pytest.mark.long
def test_a_real_store_is_judged_whole_until_something_is_changed(tmp_path: Path) -> None:
    """Recording clients, a daemon, a tree; then an acknowledgement nobody gave, and changed files."""
    with running_daemon(tmp_path / "base") as daemon:
        with load(daemon.endpoint, tmp_path / "history", 1, look=daemon.base) as clients:
            awaiting = tmp_path / "history" / "s1-0-awaiting.jsonl"
            eventually(lambda: awaiting.exists() and awaiting.stat().st_size > 100_000, "stores", 60)
            clients.join()
        verdict = judge(clients.histories, daemon.endpoint, daemon.base)
        assert not verdict.kinds, str(verdict)
        assert verdict.acknowledged > 100
        assert verdict.records > 100
        assert verdict.files > 50

        answer = [
            line for line in map(json.loads, awaiting.read_bytes().splitlines()) if line["do"] == "stored"
        ][-1]
        sent = {"do": "sent", "t": answer["t"], "session": answer["session"], "seq": answer["seq"] + 1}
        with awaiting.open("a") as history:
            history.write(json.dumps({**sent, "stores": [["storeJob", _text(job("lost"))]]}) + "\n")
            history.write(json.dumps({**sent, "do": "stored", "positions": [verdict.records + 1]}) + "\n")
        changed, removed, *_ = sorted((daemon.base / "jobs").rglob("event-*.json"))
        whole = changed.read_bytes()
        changed.unlink()
        changed.write_bytes(whole[:-1])
        removed.unlink()
        (daemon.base / "jobs" / "foreign.json").write_bytes(b"{}")
        command = [sys.executable, "-m", "tests.crash.judge", str(daemon.base), daemon.endpoint]
        judged = subprocess.run(
            [*command, *map(str, clients.histories)],
            capture_output=True,
            text=True,
            check=False,
        )
    assert judged.returncode == 1, judged.stderr
    assert "lost 2, doubled 0, reordered 0, torn 1, invented 1" in judged.stdout, judged.stdout


def test_the_judge_knows_neither_daemon_nor_client() -> None:
    """A judge that shared code with the accused would share its mistakes."""
    program = "import sys, tests.crash.judge; print([n for n in sys.modules if n.startswith('perstack')])"
    found = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert found.stdout.strip() == "[]"
