"""Following the store: the state machine by itself."""

import json
from typing import Any

import pytest

from perstack_storage import Client, PositionGone, Refused
from perstack_storage._core.follow import WAIT_MAX_S, Commits, Follow, Start
from perstack_storage._core.frames import Answer
from perstack_storage._core.reads import Read


def follow_of(**arguments: Any) -> Follow:
    given: dict[str, Any] = {"idle_s": None, "timeout_s": 30.0} | arguments
    start = Start(given.pop("after", 0), given.pop("store", "s"), given.pop("epoch", None))
    filters = {"jobId": given.pop("job_id", None), "runId": given.pop("run_id", None)}
    return Follow(start, filters, **given)


def answered(follow: Follow, now: float, records: list[int], upto: int, position: int) -> dict[str, Any]:
    """One request, answered with records at these positions; returns its arguments."""
    op, arguments, wait_s = follow.request(now)
    read = Read(op, arguments, now + 30, wait_s=wait_s)
    read.sent(1, now)
    body = json.dumps([{"position": n} for n in records]).encode()
    read.answered(1, Answer({"id": 1, "ok": True, "position": position, "next": upto}, body), now)
    assert [record["position"] for record in follow.take(read)] == records
    asked: dict[str, Any] = json.loads(arguments)
    return asked


def test_it_asks_for_the_history_first_and_names_it_then() -> None:
    follow = follow_of(store=None, after=7, job_id="j")
    op, arguments, wait_s = follow.request(0.0)
    assert (op, arguments, wait_s) == ("hello", b"", 0.0)
    read = Read(op, arguments, 30.0)
    read.sent(1, 0.0)
    read.answered(1, Answer({"id": 1, "ok": True}, b'{"store":"abc"}'), 0.0)
    assert follow.take(read) == []
    op, arguments, wait_s = follow.request(0.0)
    assert (op, wait_s) == ("readAll", WAIT_MAX_S)
    assert json.loads(arguments) == {"after": 7, "waitMs": 2000, "store": "abc", "jobId": "j"}


def test_it_goes_on_from_next_and_never_ends_without_idle() -> None:
    follow = follow_of()
    assert answered(follow, 0.0, [1, 2], 2, 9)["after"] == 0
    assert answered(follow, 0.0, [], 9, 9)["after"] == 2
    assert answered(follow, 1e6, [], 9, 9)["after"] == 9
    assert not follow.done


def test_idle_counts_from_when_the_caller_asks_again_and_ends_with_a_look_that_does_not_wait() -> None:
    follow = follow_of(idle_s=3.0)
    assert answered(follow, 0.0, [1], 1, 1)["waitMs"] == 2000
    # The caller took 100 s over the record: that is no silence.
    assert answered(follow, 100.0, [], 1, 1)["waitMs"] == 2000
    assert answered(follow, 102.0, [], 1, 1)["waitMs"] == 1000
    assert not follow.done
    assert answered(follow, 103.0, [], 4, 8)["waitMs"] == 0
    assert not follow.done  # what was looked at ends before what is stored
    assert answered(follow, 103.0, [], 8, 8)["waitMs"] == 0
    assert follow.done


def test_with_a_short_timeout_it_waits_for_a_part_of_it_only() -> None:
    assert json.loads(follow_of(timeout_s=1.0).request(0.0)[1])["waitMs"] == 250


@pytest.mark.parametrize(("code", "kind"), [("POSITION_GONE", PositionGone), ("DAMAGED", Refused)])
def test_a_refusal_is_raised_by_its_name(code: str, kind: type[Refused]) -> None:
    follow = follow_of()
    op, arguments, _ = follow.request(0.0)
    read = Read(op, arguments, 30.0)
    read.sent(1, 0.0)
    read.answered(1, Answer({"id": 1, "ok": False, "error": {"code": code, "message": "m"}}, b""), 0.0)
    with pytest.raises(Refused) as caught:
        follow.take(read)
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    "arguments", [{"run_id": "r"}, {"idle_s": -1.0}, {"idle_s": float("nan")}, {"last": 1, "after": 1}]
)
def test_arguments_that_make_no_sense_are_refused_at_once(client: Client, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must|needs|place"):
        client.follow(**arguments)


def test_a_cursor_is_set_by_itself_as_often_as_asked_for() -> None:
    """To the record that the caller has asked beyond, and at the end to what was passed over as well."""
    follow = follow_of()
    follow.name = "c"
    commits = Commits(follow, 10.0)
    assert commits.due(0.0) is None
    answered(follow, 0.0, [1, 2], 5, 9)
    commits.note_record({"position": 1, "time": 0, "op": "storeJob", "value": {}})
    assert commits.due(11.0) == {"name": "c", "position": 1, "store": "s", "epoch": None}
    commits.note_all()
    assert commits.due(12.0) is None
    assert (commits.due(22.0) or {})["position"] == 5
    commits.note_all()
    assert commits.due(99.0) is None
    with pytest.raises(ValueError, match="name"):
        Commits(follow_of(), 1.0)
