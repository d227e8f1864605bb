"""Frames of the protocol: opened without trust, made so that any JSON library reads them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perstack_storage._core.errors import RETRYABLE, ErrorCode
from perstack_stored.errors import Refusal
from perstack_stored.model.kinds import Kind
from perstack_stored.protocol import frames
from tests.helpers.datadir import dumps

_PIECES = st.lists(
    st.sampled_from(
        [
            b"{",
            b"}",
            b'"v":1',
            b",",
            b'"id":',
            b"5",
            b"-1",
            b"null",
            b'"op":"ping"',
            b"\n",
            b'"\xff"',
            b"[" * 50,
            b'"x":',
            b'"\\ud800"',
            b"1e400",
            b'"items":[["a",1]]',
            b'"seq":9' + b"9" * 400,
            b" ",
            b"\0",
            b"true",
        ]
    ),
    max_size=12,
).map(b"".join)
_GARBAGE = st.binary(max_size=80) | _PIECES


def header(**fields: Any) -> frames.RequestHeader:
    return frames.decode_header(dumps({"v": 1, "op": "ping", "id": 1} | fields))


@given(_GARBAGE)
def test_garbage_is_refused_or_opened_and_nothing_else_happens(frame: bytes) -> None:
    """Whatever comes, opening a frame ends with a header or a refusal that can be answered."""
    frames.rescue_id(frame)
    try:
        head, body = frames.split(frame)
        assert head + b"\n" + body == frame or (head == frame and not body)
        opened = frames.decode_header(head)
        frames.session_key(opened)
        frames.decode_arguments(body)
    except Refusal as refusal:
        answer = json.loads(frames.error_answer(frames.rescue_id(frame), refusal))
        assert answer["ok"] is False
        assert answer["error"]["code"] in set(ErrorCode)


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536])
def test_a_header_of_the_largest_size_is_taken(size: int) -> None:
    """The line feed may stand behind 65,536 bytes at most, with a body or without."""
    assert frames.split(b"h" * size + b"\nbody\nmore") == (b"h" * size, b"body\nmore")
    assert frames.split(b"h" * size) == (b"h" * size, b"")


@pytest.mark.parametrize("frame", [b"h" * 65_537, b"h" * 65_537 + b"\nbody"])
def test_a_larger_header_is_refused(frame: bytes) -> None:
    """A frame without a line feed in its first 65,536 bytes has no header that is looked at."""
    with pytest.raises(Refusal) as caught:
        frames.split(frame)
    assert caught.value.code == "BAD_FRAME"


@pytest.mark.parametrize(
    ("head", "code", "field"),
    [
        (b"", "BAD_FRAME", None),
        (b"{", "BAD_FRAME", None),
        (b"null", "BAD_FRAME", None),
        (b"[]", "BAD_FRAME", None),
        (b"[" * 60_000, "BAD_FRAME", None),
        (b'{"x":' + b"[" * 60_000, "BAD_FRAME", None),
        (b'{"x":' * 10_000, "BAD_FRAME", None),
        (b'{"v":1,"id":1,"op":"ping"} x', "BAD_FRAME", None),
        (b'{"v":1,"id":1,"op":"\\ud800"}', "BAD_FRAME", None),
        (b'{"id":1,"op":"ping"}', "UNSUPPORTED_VERSION", "v"),
        (b'{"v":2,"id":1,"op":"ping"}', "UNSUPPORTED_VERSION", "v"),
        (b'{"v":2,"id":"a","op":7,"items":{}}', "UNSUPPORTED_VERSION", "v"),
        (b'{"v":"1","id":1,"op":"ping"}', "BAD_REQUEST", "v"),
        (b'{"v":1,"op":"ping"}', "BAD_REQUEST", "id"),
        (b'{"v":1,"id":null,"op":"ping"}', "BAD_REQUEST", "id"),
        (b'{"v":1,"id":-1,"op":"ping"}', "BAD_REQUEST", "id"),
        (b'{"v":1,"id":9007199254740992,"op":"ping"}', "BAD_REQUEST", "id"),
        (b'{"v":1,"id":1.5,"op":"ping"}', "BAD_REQUEST", "id"),
        (b'{"v":1,"id":true,"op":"ping"}', "BAD_REQUEST", "id"),
        (b'{"v":1,"id":"1","op":"ping"}', "BAD_REQUEST", "id"),
        (b'{"v":1,"id":1,"op":5}', "BAD_REQUEST", "op"),
        (b'{"v":1,"id":1,"op":"x","seq":"1"}', "BAD_REQUEST", "seq"),
        (b'{"v":1,"id":1,"op":"x","seq":1e400}', "BAD_REQUEST", "seq"),
        (b'{"v":1,"id":1,"op":"x","session":5}', "BAD_REQUEST", "session"),
        (b'{"v":1,"id":1,"op":"x","items":{}}', "BAD_REQUEST", "items"),
        (b'{"v":1,"id":1,"op":"x","items":[["a"]]}', "BAD_REQUEST", "items"),
        (b'{"v":1,"id":1,"op":"x","items":[["a","b"]]}', "BAD_REQUEST", "items"),
        (b'{"v":1,"id":1,"op":"x","items":[["a",1,2]]}', "BAD_REQUEST", "items"),
        (b'{"v":1,"id":1,"op":"x","timeoutMs":"5"}', "BAD_REQUEST", "timeoutMs"),
        (b'{"v":1,"id":1,"op":"x","atLeast":1.5}', "BAD_REQUEST", "atLeast"),
    ],
)
def test_a_wrong_header_is_refused_by_name(head: bytes, code: str, field: str | None) -> None:
    """The refusal of a header says what is wrong with which field."""
    with pytest.raises(Refusal) as caught:
        frames.decode_header(head)
    assert (caught.value.code, caught.value.field) == (code, field)


def test_unknown_fields_of_a_header_are_ignored() -> None:
    """New header fields come without a new version."""
    assert header(future={"a": [1]}, seq=3).seq == 3


@pytest.mark.parametrize(
    ("head", "id"),
    [
        (b'{"v":2,"id":7}', 7),
        (b'{"v":1,"id":7,"op":5}', 7),
        (b'{"v":1,"id":7}\n{"id":8}', 7),
        (b'{"v":1,"id":"7"}', None),
        (b'{"v":1,"id":-7}', None),
        (b'{"v":1,"id":7.0}', None),
        (b'{"v":1,"id":true}', None),
        (b'{"v":1,"id":9007199254740992}', None),
        (b'{"v":1}', None),
        (b"[7]", None),
        (b'{"v":1,"id":7', None),
        (b"[" * 60_000, None),
    ],
)
def test_the_id_is_rescued_from_a_wrong_header(head: bytes, id: int | None) -> None:
    """Where the id can be read the answer finds its request; where not, it is null."""
    assert frames.rescue_id(head) == id


def test_a_session_is_32_lower_case_hexadecimal_digits() -> None:
    """A session is exactly 16 bytes, written in one way only."""
    assert frames.session_key(header(session="8f" * 16)) == b"\x8f" * 16
    assert frames.session_key(header()) is None
    for text in (
        "",
        "8f",
        "8F" * 16,
        "8f" * 17,
        "0" * 32,
        "8f" * 15 + "8 ",
        " " * 32,
        "é" * 32,
        "\uff18" * 32,
        "8f" * 15 + "\n8",
    ):
        with pytest.raises(Refusal) as caught:
            frames.session_key(header(session=text))
        assert (caught.value.code, caught.value.field) == ("BAD_REQUEST", "session")


@pytest.mark.parametrize(
    "body", [b"[]", b"1", b"null", b"{", b"\xff", b'{"a":"\xff"}', b"[" * 100_000, b'{"a":NaN}', b"\n"]
)
def test_arguments_that_are_no_object_are_refused(body: bytes) -> None:
    """The body of a read is one JSON object, or nothing."""
    with pytest.raises(Refusal) as caught:
        frames.decode_arguments(body)
    assert caught.value.code == "BAD_REQUEST"
    assert frames.decode_arguments(b"") == {}
    assert frames.decode_arguments(b'{"a":1}') == {"a": 1}


def test_answers_are_what_the_protocol_shows() -> None:
    """Each answer parses, has version and id, and the fields of section 2.2."""
    assert json.loads(frames.stored_answer(7, 4711)) == {"v": 1, "id": 7, "ok": True, "position": 4711}
    assert json.loads(frames.batch_answer(8, 4712, 2)) == {
        "v": 1,
        "id": 8,
        "ok": True,
        "position": 4712,
        "count": 2,
    }
    assert json.loads(frames.part_answer(9, 0)) == {"v": 1, "id": 9, "ok": True, "part": 0}
    refusal = Refusal(ErrorCode.BAD_VALUE, 'say "no" \u2013 \u2028', "usage.inputTokens")
    results = frames.results_answer(8, [4712, refusal.as_dict()])
    assert json.loads(results)["results"] == [
        4712,
        {
            "code": "BAD_VALUE",
            "message": 'say "no" \u2013 \u2028',
            "field": "usage.inputTokens",
            "retryable": False,
        },
    ]
    head, _, body = frames.read_answer(12, b'[{"a":\n1}]', position=5, more=None, next=None).partition(b"\n")
    assert json.loads(head) == {"v": 1, "id": 12, "ok": True, "position": 5}
    assert body == b'[{"a":\n1}]'


@pytest.mark.parametrize("code", list(ErrorCode))
def test_each_error_says_whether_to_try_again(code: ErrorCode) -> None:
    """An error answer has its code, a sentence and `retryable`; a wrong version also gets the right ones."""
    error = json.loads(frames.error_answer(None, Refusal(code, "why")))
    assert error["id"] is None
    assert error["ok"] is False
    assert error["error"] == {"code": str(code), "message": "why", "retryable": RETRYABLE[code]} | (
        {"versions": [1]} if code == "UNSUPPORTED_VERSION" else {}
    )


def test_each_kind_has_its_operation() -> None:
    """The stores of the wire are the kinds of the journal but gaps; a deletion has two operations."""
    assert set(frames.STORE_KINDS.values()) == set(Kind) - {Kind.GAP}
    assert set(frames.STORE_OPS) == set(Kind) - {Kind.GAP, Kind.DELETION}
    assert frames.op_of(Kind.DELETION, b'{"jobId":"j"}') == "deleteJob"
    assert frames.op_of(Kind.DELETION, b'{"jobId":"j","runId":"r"}') == "deleteRun"
    assert frames.op_of(Kind.JOB, b"") == "storeJob"
