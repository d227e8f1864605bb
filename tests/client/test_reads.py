"""The state machine of one read: parts, retries, silence, deadline."""

import json
from typing import Any

import pytest

from perstack_storage._core.frames import Answer
from perstack_storage._core.reads import Read

BUSY = {"code": "BUSY", "message": "m", "retryable": True}
GONE = {"code": "READ_GONE", "message": "m", "retryable": True}
DAMAGED = {"code": "DAMAGED", "message": "m", "retryable": False}
MORE = {"read": "k3", "part": 1}


def answer(body: bytes = b"", **header: Any) -> Answer:
    return Answer({"id": 0, "ok": "error" not in header} | header, body)


def sent(read: Read, request_id: int, now: float) -> tuple[str, Any]:
    """Sends it; returns operation and argument."""
    assert read.ready(now)
    header, _, body = read.frame(request_id, now).partition(b"\n")
    read.sent(request_id, now)
    assert not read.ready(now)
    return json.loads(header)["op"], json.loads(body)


@pytest.mark.parametrize(
    ("steps", "body"),
    [
        # (what is sent, what is answered), in order
        ([("getAllJobs", answer(b"[]", position=1))], b"[]"),
        (
            [("getAllJobs", answer(b"[1", position=1, more=MORE)), ("readPart", answer(b",2]"))],
            b"[1,2]",
        ),
        (
            [
                ("getAllJobs", answer(b"[1", position=1, more=MORE)),
                ("readPart", answer(error=GONE)),
                ("getAllJobs", answer(b"[3]", position=2)),
            ],
            b"[3]",
        ),
        (
            [
                ("getAllJobs", answer(b"[1", position=1, more=MORE)),
                ("readPart", answer(error=BUSY)),
                ("readPart", answer(b"]")),
            ],
            b"[1]",
        ),
        ([("getAllJobs", answer(error=BUSY)), ("getAllJobs", answer(b"[]"))], b"[]"),
    ],
)
def test_parts_are_joined_and_retryable_errors_try_again(
    steps: list[tuple[str, Answer]], body: bytes
) -> None:
    read = Read("getAllJobs", b"{}", 100.0)
    now = 0.0
    for request_id, (op, reply) in enumerate(steps):
        assert not read.done
        assert sent(read, request_id, now) == (op, MORE if op == "readPart" else {})
        assert read.answered(request_id, reply, now)
        now += 1
    assert read.done
    assert read.error is None
    assert read.body == body


def test_position_and_next_are_kept_whichever_part_brings_them() -> None:
    read = Read("getAllJobs", b"{}", 100.0)
    sent(read, 1, 0)
    read.answered(1, answer(b"[", position=5, next="n", more=MORE), 0)
    sent(read, 2, 0)
    read.answered(2, answer(b"]"), 0)
    assert (read.position, read.next) == (5, "n")


def test_an_error_that_is_not_retryable_ends_it() -> None:
    read = Read("getAllJobs", b"{}", 100.0)
    sent(read, 1, 0)
    read.answered(1, answer(error=DAMAGED), 0)
    assert read.done
    assert read.error == DAMAGED


def test_an_answer_to_another_try_is_ignored() -> None:
    read = Read("getAllJobs", b"{}", 100.0)
    sent(read, 1, 0)
    read.disconnected()
    sent(read, 2, 1)
    assert not read.answered(1, answer(b"[1]"), 1)
    assert read.answered(2, answer(b"[2]"), 1)
    assert read.body == b"[2]"


def test_silence_is_noticed_after_a_second_then_two_then_four() -> None:
    read = Read("getAllJobs", b"{}", 100.0)
    now = 0.0
    for request_id, wait in enumerate((1, 2, 4, 8, 16, 16)):
        sent(read, request_id, now)
        assert not read.silent(now + wait - 0.01)
        now += wait
        assert read.silent(now)
        read.disconnected()


def test_the_time_left_goes_along() -> None:
    read = Read("getAllJobs", b"{}", 100.0)
    assert b'"timeoutMs":30000}' in read.frame(1, 70.0)
    assert b'"timeoutMs":1}' in read.frame(2, 101.0)
    assert b"timeoutMs" not in Read("ping", b"", 100.0).frame(3, 0)
