"""Deletions as stores, and late stores to what was deleted: through restarts, rotation and a full disk."""

import errno
from pathlib import Path
from typing import Any

import pytest

from perstack_stored.errors import Refusal
from perstack_stored.journal.deletion_guards import DeletionGuards, Guard
from perstack_stored.model import deletions
from perstack_stored.model.kinds import Kind
from perstack_stored.store.requests import StoreRequest
from tests.helpers.datadir import (
    SESSION_A,
    SESSION_B,
    FailingFiles,
    JournalFolder,
    checkpoint,
    dumps,
    event,
    job,
    setting,
)
from tests.unit.store.committing import PEER, Daemon, e, error, request

SESSION_C = bytes([7]) * 16
_OTHER = dumps({"jobId": "j", "runId": "r", "setting": setting()})


def deletion(
    job_id: str = "job-1", run: str | None = None, *, key: bytes | None = SESSION_A, seq: int = 0, id: int = 9
) -> StoreRequest:
    """A store of a deletion."""
    value = dumps({"jobId": job_id} | ({} if run is None else {"runId": run}))
    op = "deleteJob" if run is None else "deleteRun"
    return StoreRequest(PEER, id, key, seq, seq - 1, [(Kind.DELETION, value)], False, len(value), op)


def store(daemon: Daemon, key: bytes | None, seq: int, value: dict[str, Any], kind: Kind = Kind.EVENT) -> Any:
    """The position of a store, or the code of its refusal."""
    (answer,) = daemon.send(request(dumps(value), key=key, seq=seq, settled=max(0, seq - 1), kind=kind))
    return answer["position"] if answer["ok"] else error(answer)


def test_a_deletion_is_stored_once(daemon: Daemon) -> None:
    """Sent again it gets its first position, as every store of a session."""
    assert daemon.send(deletion(seq=1))[0]["position"] == 1
    assert daemon.send(deletion(seq=1))[0]["position"] == 1
    assert daemon.stored() == [b'{"jobId":"job-1"}']
    assert daemon.stores.stored == {Kind.DELETION: 1}


def test_an_old_session_does_not_bring_a_job_back(daemon: Daemon) -> None:
    """With no kind of value, and by no retry; its number is taken, and it goes on with other jobs."""
    assert store(daemon, SESSION_B, 1, event()) == 1
    assert daemon.send(deletion(seq=1))[0]["ok"]
    assert store(daemon, SESSION_B, 1, event()) == 1, "it was stored, before the deletion"
    values = [
        (Kind.JOB, job()),
        (Kind.EVENT, event()),
        (Kind.CHECKPOINT, checkpoint()),
        (Kind.RUN_SETTING, setting()),
    ]
    for seq, (kind, value) in enumerate(values, 2):
        assert store(daemon, SESSION_B, seq, value, kind) == "DELETED"
        assert store(daemon, SESSION_B, seq, value, kind) == "DELETED"
    assert store(daemon, SESSION_B, 6, event(jobId="job-2")) == 3
    assert store(daemon, SESSION_A, 2, event()) == "DELETED"


def test_a_later_session_begins_a_new_job_under_the_id(daemon: Daemon) -> None:
    """And a store without a session, which begins now."""
    daemon.send(deletion(seq=1))
    assert store(daemon, SESSION_B, 1, event()) == 2
    assert store(daemon, None, 0, event(id="x")) == 3
    daemon.send(deletion(seq=2))
    assert store(daemon, SESSION_B, 2, event()) == "DELETED"
    assert store(daemon, SESSION_C, 1, event()) == 5


def test_a_session_that_is_not_known_and_goes_on_is_an_old_one(daemon: Daemon) -> None:
    """It may have given way to others, or been forgotten: it must not undo the deletion."""
    daemon.send(deletion(seq=1))
    assert store(daemon, SESSION_B, 7, event()) == "DELETED"
    assert store(daemon, SESSION_B, 8, event(jobId="job-2")) == 2


def test_a_deleted_run_leaves_the_job_open(daemon: Daemon) -> None:
    """Only stores of that run are refused."""
    daemon.send(deletion(run="run-1", seq=1))
    assert store(daemon, SESSION_A, 2, event()) == "DELETED"
    assert store(daemon, SESSION_A, 3, event(runId="run-2")) == 2
    assert store(daemon, SESSION_A, 4, job(), Kind.JOB) == 3


@pytest.mark.parametrize("rotations", [0, 3])
def test_the_guard_outlives_restarts(daemon: Daemon, rotations: int) -> None:
    """From the journal, or from the head of its last segment; a session keeps where it began."""
    store(daemon, SESSION_B, 1, event())
    daemon.send(deletion(seq=1))
    assert store(daemon, SESSION_C, 1, event()) == 3
    for n in range(rotations):
        big = dumps(event(id=f"big{n}", jobId="job-2", text="x" * 70_000))
        assert daemon.send(request(big, key=SESSION_A, seq=2 + n, settled=1 + n))[0]["ok"]
    assert (daemon.journal.mark.segment > 1) == bool(rotations)
    for _ in range(2):
        daemon.start()
        assert store(daemon, SESSION_B, 2, event()) == "DELETED"
        assert isinstance(store(daemon, SESSION_C, 2, event(id="again")), int)
        assert len(daemon.stores.guards) == 1


def test_a_batch_holds_a_deletion_and_a_late_store(daemon: Daemon) -> None:
    """The order within the batch counts, though nothing of it is written yet."""
    store(daemon, SESSION_B, 1, event())
    answers = daemon.send(
        request(e(2), id=1, key=SESSION_B, seq=2, settled=1),
        deletion(id=2, seq=1),
        request(e(3), id=3, key=SESSION_B, seq=3, settled=2),
        request(e(4), id=4, key=SESSION_C, seq=1),
    )
    assert [answer.get("position") for answer in answers] == [2, 3, None, 4]
    assert error(answers[2]) == "DELETED"


def test_a_deletion_that_finds_no_room_guards_nothing(tmp_path: Path) -> None:
    """The job is as it was, for everybody."""
    files = FailingFiles()
    daemon = Daemon(JournalFolder(tmp_path / "journal"), files)
    store(daemon, SESSION_B, 1, event())
    files.errors["allocate"] = errno.ENOSPC
    filler = [request(dumps(event(text="x" * 90_000)), id=5, key=SESSION_C, seq=1)]
    answers = daemon.send(deletion(id=1, seq=1), *filler)
    assert {error(answer) for answer in answers} == {"STORAGE_FULL"}
    files.errors.clear()
    assert not daemon.stores.guards
    assert store(daemon, SESSION_B, 2, event(id="x")) == 2


def test_a_redaction_guards_nothing_and_respects_guards(daemon: Daemon) -> None:
    """The run goes on; but a deleted run does not come back by its setting."""
    value = dumps({"jobId": "job-1", "runId": "run-1", "setting": setting()})

    def redact(seq: int) -> dict[str, Any]:
        items: list[tuple[int, bytes | bytearray]] = [(int(Kind.DELETION), value)]
        one = StoreRequest(PEER, 9, SESSION_A, seq, seq - 1, items, False, len(value), "redactRunSetting")
        (answer,) = daemon.send(one)
        return answer

    assert redact(1)["position"] == 1
    assert store(daemon, SESSION_A, 2, event()) == 2
    daemon.start()
    assert store(daemon, SESSION_A, 3, event(id="x")) == 3
    daemon.send(deletion(run="run-1", seq=4))
    assert error(redact(5)) == "DELETED"


def test_guards_end_with_their_time_and_when_there_are_too_many() -> None:
    """The oldest one first, which is counted."""
    guards = DeletionGuards(guard_seconds=10, guards_max=2)
    for n in range(3):
        guards.put((f"j{n}", ""), Guard(n + 1, n * 1000))
    assert (len(guards), guards.ended_early) == (2, 1)
    guards.check("j0", "", 0)
    with pytest.raises(Refusal):
        guards.check("j1", "r", 1)
    guards.check("j1", "r", 2)
    guards.expire(11_000)
    assert [guards.get((f"j{n}", "")) for n in range(3)] == [None, None, Guard(3, 2000)]


def test_the_head_of_a_segment_holds_no_guard_of_a_deletion_that_is_not_written() -> None:
    """A crash may still lose it, and nothing must be refused for a deletion that never was."""
    guards = DeletionGuards()
    guards.plan(("j", ""), Guard(5, 1000))
    assert guards.snapshot([]) == b""
    with pytest.raises(Refusal):
        guards.check("j", "r", 4)  # it counts for what follows it in its batch
    guards.written()
    assert DeletionGuards().restore(guards.snapshot([])) == {}
    guards.plan(("k", ""), Guard(6, 1000))
    guards.take_back()
    guards.check("k", "r", 4)


def test_a_snapshot_holds_guards_and_the_sessions_that_began_after_them() -> None:
    """Ids in any script; older sessions need no word."""
    guards = DeletionGuards()
    guards.put(("jöb", ""), Guard(5, 1000))
    guards.put(("j", "世界"), Guard(9, 2000))
    data = guards.snapshot([(SESSION_A, 4), (SESSION_B, 5), (SESSION_C, 12)])
    again = DeletionGuards()
    assert again.restore(data) == {SESSION_B: 5, SESSION_C: 12}
    assert (again.get(("jöb", "")), again.get(("j", "世界"))) == (Guard(5, 1000), Guard(9, 2000))
    assert DeletionGuards().snapshot([(SESSION_A, 4)]) == b""


@pytest.mark.parametrize(
    ("op", "value", "code", "field"),
    [
        ("deleteJob", b"", "BAD_JSON", None),
        ("deleteJob", b"[]", "BAD_JSON", None),
        ("deleteJob", b"{}", "BAD_VALUE", "jobId"),
        ("deleteJob", b'{"jobId":1}', "BAD_VALUE", "jobId"),
        ("deleteJob", b'{"jobId":".."}', "BAD_VALUE", "jobId"),
        ("deleteJob", b'{"jobId":"\xff"}', "BAD_JSON", None),
        ("deleteJob", b'{"jobId":"\\ud800"}', "BAD_JSON", None),
        ("deleteJob", b'{"jobId":"j","runId":"r"}', "BAD_VALUE", "runId"),
        ("deleteJob", b'{"jobId":"j","why":"' + b"x" * 201 + b'"}', "BAD_VALUE", "why"),
        ("deleteJob", b'{"jobId":"j","why":null}', "BAD_VALUE", "why"),
        ("deleteRun", b'{"jobId":"j"}', "BAD_VALUE", "runId"),
        ("deleteRun", b'{"jobId":"j","runId":"a/b"}', "BAD_VALUE", "runId"),
        ("deleteRun", b'{"jobId":"j","runId":null}', "BAD_VALUE", "runId"),
        ("deleteRun", b'{"jobId":"j","runId":"r","setting":{}}', "BAD_VALUE", "setting"),
        ("redactRunSetting", b'{"jobId":"j","runId":"r"}', "BAD_VALUE", "setting"),
        ("redactRunSetting", b'{"jobId":"j","setting":{}}', "BAD_VALUE", "runId"),
        ("redactRunSetting", b'{"jobId":"j","runId":"r","setting":{}}', "BAD_VALUE", "jobId"),
        ("redactRunSetting", b'{"jobId":"j","runId":"r","setting":[]}', "BAD_JSON", None),
        ("redactRunSetting", _OTHER, "BAD_VALUE", "setting"),
    ],
)
def test_a_wrong_deletion_is_refused(op: str, value: bytes, code: str, field: str | None) -> None:
    """And never widened: a run that was forgotten does not take its job along."""
    with pytest.raises(Refusal) as caught:
        deletions.check_operation(op, deletions.check(value))
    assert (caught.value.code, caught.value.field) == (code, field)
