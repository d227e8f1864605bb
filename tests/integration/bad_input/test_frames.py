"""Frames and headers that must be refused are, with a code and a sentence."""

import json
from typing import Any

import pytest
import zmq

from tests.helpers.daemon import RunningDaemon
from tests.helpers.raw_client import Raw, event
from tests.integration.bad_input.refusals import FRAME_BYTES_MAX, refused


@pytest.mark.parametrize(
    "frames",
    [
        (b"",),
        (b"\n",),
        (b"", b""),
        (b"\n{}",),
        (b"ping",),
        (b"{\n}",),
        (b"\xff\xfe\n{}",),
        (b'{"v":1,"op":"ping","id":1',),
        (b'{"v":1,"op":"ping","id":1} x\n',),
        (b"null\n",),
        (b'{"v":1,"op":"ping","id":NaN}',),
        (b'{"v":1,"op":"\xff"}',),
        (b" " * 65537 + b"\n{}",),
        (b'{"v":1,"op":"ping","id":1,"x":"' + b"a" * 65536 + b'"}\n{}',),
        (b"[" * 100_000,),
        (b'{"x":' + b"[" * 60_000,),
        (b'{"v":1,"op":"ping","id":1}', b"{}"),
        (b"", b'{"v":1,"op":"ping","id":1}', b"{}"),
        (b'{"v":1,"op":"ping","id":1}', b""),
        (b"", b"", b'{"v":1,"op":"ping","id":1}'),
        tuple(b"x" for _ in range(500)),
        tuple(b"" for _ in range(500)),
    ],
    ids=lambda frames: repr(frames[0][:20]) + f"x{len(frames)}",
)
def test_a_message_without_one_readable_frame_is_refused(raw: Raw, frames: tuple[bytes, ...]) -> None:
    """BAD_FRAME, without an id, as none could be read."""
    raw.socket.send_multipart(frames)
    received = raw.socket.recv_multipart()
    delimited = len(frames) > 1 and not frames[0]
    assert (received[0] == b"" and len(received) == 2) is delimited
    answer = json.loads(received[-1])
    assert answer["id"] is None
    assert answer["error"]["code"] == "BAD_FRAME"
    assert answer["error"]["retryable"] is False


@pytest.mark.parametrize(
    "head",
    [
        b'{"v":1,"id":1,"op":"\xfe"}',
        b'{"v":"\xfe","op":"ping","id":1}',
        b'{"v":1,"op":"ping","id":1,"seq":"x","session":"\xfe"}',
        b'{"v":1,"op":5,"id":"\xfe"}',
    ],
)
def test_bytes_that_are_no_utf_8_in_a_header_end_nothing(raw: Raw, head: bytes) -> None:
    """Wherever they stand, whatever else is wrong with it."""
    assert raw.frames(head + b"\n{}").code in {"BAD_FRAME", "BAD_REQUEST"}
    assert raw.ask("ping").header["ok"]


@pytest.mark.parametrize("head", [b"[]", b"1", b'"x"', b"null", b"true", b"[1,2,3]"])
def test_a_header_that_is_no_object_is_refused(raw: Raw, head: bytes) -> None:
    """JSON, but not an object."""
    answer = raw.frames(head + b"\n{}")
    assert answer.header["id"] is None
    assert answer.code == "BAD_FRAME"


@pytest.mark.parametrize(
    ("code", "field", "changes"),
    [
        ("UNSUPPORTED_VERSION", "v", {"v": 0}),
        ("UNSUPPORTED_VERSION", "v", {"v": 2}),
        ("UNSUPPORTED_VERSION", "v", {"v": 2, "session": 5}),
        ("UNSUPPORTED_VERSION", "v", {"v": 10**40}),
        ("BAD_REQUEST", "v", {"v": "1"}),
        ("BAD_REQUEST", "v", {"v": True}),
        ("BAD_REQUEST", "v", {"v": None}),
        ("BAD_REQUEST", "timeoutMs", {"timeoutMs": "soon"}),
        ("BAD_REQUEST", "timeoutMs", {"timeoutMs": 1.5}),
        ("BAD_REQUEST", "session", {"session": 5}),
        ("BAD_REQUEST", "seq", {"seq": "1"}),
        ("BAD_REQUEST", "seq", {"seq": True}),
        ("BAD_REQUEST", "settled", {"settled": None}),
        ("BAD_REQUEST", "items", {"items": {}}),
        ("BAD_REQUEST", "part", {"part": "0"}),
        ("BAD_REQUEST", "bytes", {"bytes": [1]}),
    ],
)
def test_a_header_field_that_is_wrong_is_named(
    raw: Raw, code: str, field: str, changes: dict[str, Any]
) -> None:
    """The id comes back all the same, so that the answer finds its request."""
    refused(raw, code, field, "storeEvent", event(), **changes)


def test_an_answer_to_an_unknown_version_names_those_that_are_spoken(raw: Raw) -> None:
    """UNSUPPORTED_VERSION lists the versions."""
    assert raw.ask("ping", v=2).error["versions"] == [1]


@pytest.mark.parametrize("id", [-1, 2**53, 10**30, 1.5, "7", True, [1], {}])
def test_an_id_that_is_no_safe_integer_is_refused(raw: Raw, id: Any) -> None:
    """It can't come back unharmed, so the answer has none."""
    raw.send("ping", id=id) if isinstance(id, int) else raw.socket.send(
        json.dumps({"v": 1, "op": "ping", "id": id}).encode()
    )
    answer = raw.receive()
    assert answer.header["id"] is None
    assert (answer.code, answer.error["field"]) == ("BAD_REQUEST", "id")


def test_a_request_without_an_id_or_version_is_refused(raw: Raw) -> None:
    """Both are required."""
    assert raw.frames(b'{"v":1,"op":"ping"}').error["field"] == "id"
    assert raw.frames(b'{"op":"ping","id":1}').code == "UNSUPPORTED_VERSION"
    assert raw.frames(b'{"v":1,"id":1}').code == "UNKNOWN_OPERATION"
    for op in (b"7", b"null", b"{}"):
        assert raw.frames(b'{"v":1,"id":1,"op":' + op + b"}").error["field"] == "op"


@pytest.mark.parametrize("op", ["", "storeevent", "storeX", "__init__", "get\u0000", "é" * 1000])
def test_an_unknown_operation_is_refused(raw: Raw, op: str) -> None:
    """UNKNOWN_OPERATION names the field op."""
    error = raw.ask(op, event()).error
    assert (error["code"], error["field"]) == ("UNKNOWN_OPERATION", "op")


def test_a_frame_over_the_limit_is_answered_and_one_over_the_wall_cuts_the_connection(
    raw: Raw, daemon: RunningDaemon
) -> None:
    """One byte over limits.frameBytes is TOO_LARGE; beyond libzmq's wall only that connection suffers."""
    assert raw.ask("hello").value["limits"]["frameBytes"] == FRAME_BYTES_MAX
    head = b'{"v":1,"op":"storeEvent","id":99}\n'
    answer = raw.frames(head + b" " * (FRAME_BYTES_MAX + 1 - len(head)))
    assert answer.header["id"] == 99
    assert answer.code == "TOO_LARGE"
    assert "limits.frameBytes" in answer.error["message"]
    assert str(FRAME_BYTES_MAX) in answer.error["message"]
    assert raw.frames(head + b" " * (FRAME_BYTES_MAX - len(head))).code == "BAD_JSON"
    with Raw(daemon.endpoint) as other:
        cut = other.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        other.socket.send(head + b" " * (2 * FRAME_BYTES_MAX + 1))
        assert cut.poll(5000), "the connection was not cut"
        assert not other.socket.poll(0)
        other.socket.disable_monitor()
    with Raw(daemon.endpoint, zmq.REQ) as other:
        assert other.frames(head + b" " * FRAME_BYTES_MAX).code == "TOO_LARGE"
