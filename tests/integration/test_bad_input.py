"""What must be refused is refused with a code and a sentence, and what is legal comes back byte for byte."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

from tests.helpers.daemon import RunningDaemon, files_of, running_daemon
from tests.helpers.raw_client import (
    MIB,
    USAGE,
    VALUES,
    Raw,
    batch,
    checkpoint,
    event,
    job,
    session,
    setting,
    without,
)

FRAME_BYTES_MAX = 256 * 1024
VALUE_BYTES_MAX = MIB
S = "5e" * 16


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """A daemon that is given nothing but what it must refuse."""
    base = tmp_path_factory.mktemp("bad") / "base"
    limits = ("--frame-bytes-max", str(FRAME_BYTES_MAX), "--value-bytes-max", str(VALUE_BYTES_MAX))
    with running_daemon(base, *limits) as running:
        yield running


@pytest.fixture(scope="module")
def raw(daemon: RunningDaemon) -> Iterator[Raw]:
    with Raw(daemon.endpoint) as connected:
        yield connected


@pytest.fixture(autouse=True)
def _nothing_is_stored(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test: the daemon answers, its position is 0, it has no record and no file."""
    yield
    if "raw" in request.fixturenames:
        daemon, raw = request.getfixturevalue("daemon"), request.getfixturevalue("raw")
        pong = raw.ask("ping")
        assert pong.value == {}
        assert pong.header["position"] == 0
        assert raw.read_all() == []
        assert files_of(daemon.base) == {}


def refused(
    raw: Raw, code: str, field: str | None, op: str, body: bytes | object = b"", **header: Any
) -> None:
    """The request is refused with this code and a sentence that names the field."""
    error = raw.ask(op, body, **header).error
    assert (error["code"], error.get("field")) == (code, field)
    assert error["retryable"] is (code == "SEQUENCE_GAP")
    assert len(error["message"]) > 10
    if field is not None:
        assert field in error["message"]


# --- frames and headers ----------------------------------------------------------------------------


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


# --- sessions and batches --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "header"),
    [
        ("session", {"seq": 1}),
        ("session", {"seq": 1, "session": None}),
        ("session", {"seq": 1, "session": ""}),
        ("session", {"seq": 1, "session": "5e" * 15}),
        ("session", {"seq": 1, "session": "5e" * 17}),
        ("session", {"seq": 1, "session": "5E" * 16}),
        ("session", {"seq": 1, "session": "zz" * 16}),
        ("session", {"seq": 1, "session": "5e " * 10 + "5e"}),
        ("session", {"seq": 1, "session": "é" * 16}),
        ("session", {"seq": 1, "session": "٣" * 32}),
        ("session", {"seq": 1, "session": "0" * 32}),
        ("seq", {"session": S}),
        ("seq", {"session": S, "seq": 0}),
        ("seq", {"session": S, "seq": -1}),
        ("seq", {"session": S, "seq": 2**53}),
        ("seq", {"session": S, "seq": 10**30}),
        ("seq", {"session": S, "seq": 1.5}),
        ("settled", {"session": S, "seq": 1, "settled": -1}),
        ("settled", {"session": S, "seq": 1, "settled": 10**30}),
    ],
)
def test_a_session_or_number_that_is_wrong_is_refused(raw: Raw, field: str, header: dict[str, Any]) -> None:
    """BAD_REQUEST names session, seq or settled."""
    refused(raw, "BAD_REQUEST", field, "storeEvent", event(), **header)
    assert raw.ask("hello", session=S).value["session"] == {"last": 0}


@pytest.mark.parametrize(
    ("code", "items", "body"),
    [
        ("BAD_REQUEST", None, b"{}"),
        ("BAD_REQUEST", [], b""),
        ("BAD_REQUEST", [], b"{}"),
        ("BAD_REQUEST", [["storeEvent", 1]], b"{}"),
        ("BAD_REQUEST", [["storeEvent", 3]], b"{}"),
        ("BAD_REQUEST", [["storeEvent", 2], ["storeEvent", 1]], b"{}"),
        ("BAD_REQUEST", [["storeEvent", 2], ["storeEvent", -2]], b""),
        ("BAD_REQUEST", [["storeEvent", -2], ["storeEvent", 4]], b"{}"),
        ("BAD_REQUEST", [["storeEvent", 2**63]], b"{}"),
        ("BAD_REQUEST", [["storeEvent", 10**30]], b"{}"),
        ("BAD_REQUEST", [["storeEvent", 10**4299]] * 12, b"{}"),
        ("BAD_REQUEST", [["storeEvent", 2.5]], b"{}"),
        ("BAD_REQUEST", [["storeEvent", True]], b"{"),
        ("BAD_REQUEST", [["storeEvent"]], b"{}"),
        ("BAD_REQUEST", [["storeEvent", 2, 2]], b"{}"),
        ("BAD_REQUEST", ["storeEvent", 2], b"{}"),
        ("BAD_REQUEST", [[2, "storeEvent"]], b"{}"),
        ("BAD_REQUEST", [["storeX", 2]], b"{}"),
        ("BAD_REQUEST", [["store", 2]], b"{}"),
        ("BAD_REQUEST", [["ping", 2]], b"{}"),
        ("TOO_LARGE", [["storeEvent", 2]] * 1025, b"{}" * 1025),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_batch_that_does_not_fit_is_refused_as_a_whole(
    raw: Raw, code: str, items: object, body: bytes
) -> None:
    """None of its items is stored, and its numbers are not used up."""
    name = session()
    refused(raw, code, "items", "store", body, items=items, session=name, seq=1)
    assert raw.ask("hello", session=name).value["session"] == {"last": 0}


def test_a_batch_of_bad_values_names_each(raw: Raw) -> None:
    """Each item has an error of its own, in the order of the items."""
    items, body = batch([("storeEvent", b"{}"), ("storeJob", b"[]"), ("storeJob", b""), ("storeEvent", b"x")])
    results = raw.ask("store", body, items=items).header["results"]
    assert [result["code"] for result in results] == ["BAD_VALUE", "BAD_JSON", "BAD_JSON", "BAD_JSON"]
    assert all(result["retryable"] is False for result in results)


@pytest.mark.parametrize(
    ("code", "field", "header"),
    [
        ("BAD_REQUEST", "parts", {"part": 0, "parts": 1, "bytes": 10}),
        ("BAD_REQUEST", "parts", {"part": 0, "parts": -1, "bytes": 10}),
        ("BAD_REQUEST", "parts", {"part": 0, "parts": 11, "bytes": 10}),
        ("BAD_REQUEST", "parts", {"part": 0, "parts": 2, "bytes": 0}),
        ("BAD_REQUEST", "parts", {"part": 0, "parts": 2, "bytes": -5}),
        ("BAD_REQUEST", "parts", {"part": 1}),
        ("BAD_REQUEST", "parts", {"part": 0, "parts": 0, "bytes": 6}),
        ("SEQUENCE_GAP", "part", {"part": 1, "parts": 2, "bytes": 10}),
        ("BAD_REQUEST", "part", {"part": -1, "parts": 2, "bytes": 10}),
        ("SEQUENCE_GAP", "part", {"part": 10**30, "parts": 10**31, "bytes": 10}),
        ("BAD_REQUEST", "bytes", {"part": 0, "parts": 2, "bytes": 5}),
        ("TOO_LARGE", "bytes", {"part": 0, "parts": 2, "bytes": VALUE_BYTES_MAX + 1}),
        ("TOO_LARGE", "bytes", {"part": 0, "parts": 2, "bytes": 10**30}),
    ],
)
def test_parts_that_can_not_be_are_refused(raw: Raw, code: str, field: str, header: dict[str, Any]) -> None:
    """A wrong count, order or size; what came of the value is forgotten."""
    error = raw.ask("storeEvent", b"sixsix", **header).error
    assert (error["code"], error["field"]) == (code, field)
    assert raw.ask("stats").value["partsBytes"] == 0


def test_a_batch_in_parts_is_refused(raw: Raw) -> None:
    """Only a single value may come in parts."""
    refused(raw, "BAD_REQUEST", "parts", "store", b"{}", items=[["storeEvent", 4]], parts=2, bytes=4)


def test_parts_that_end_too_early_are_refused(raw: Raw) -> None:
    """The last part came, but not all the bytes."""
    head = {"parts": 2, "bytes": 100}
    assert raw.ask("storeEvent", b"{", part=0, **head).header["part"] == 0
    refused(raw, "BAD_REQUEST", "bytes", "storeEvent", b"}", part=1, **head)


# --- values ----------------------------------------------------------------------------------------

_GOOD_EVENT = json.dumps(event()).encode()


@pytest.mark.parametrize("op", list(VALUES))
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"nothing",
        b"[]",
        b"null",
        b"1",
        b'"text"',
        b"{'id': 1}",
        b'{"x": 1,}',
        b'{"x": 01}',
        b'{"id": "\x01"}',
        b'{"id": "\\x"}',
        b'{"x": NaN}',
        b'{"x": Infinity}',
        b'{"x": "\xff"}',
        b'{"x": "\xed\xa0\x80"}',
        b'{"x": "\xc0\x80"}',
        b"\xef\xbb\xbf{}",
        b"\xff\xfe{\x00}\x00",
        b"\x00",
        b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"x":' * 5000 + b"1" + b"}" * 5000,
    ],
    ids=lambda value: repr(value[:16]) if isinstance(value, bytes) else value,
)
def test_a_body_that_is_not_one_json_object_in_utf_8_is_refused(raw: Raw, op: str, body: bytes) -> None:
    """BAD_JSON, for each kind of value."""
    refused(raw, "BAD_JSON", None, op, body)


@pytest.mark.parametrize(
    "body",
    [_GOOD_EVENT + b"x", b"\xef\xbb\xbf" + _GOOD_EVENT, b"[" + _GOOD_EVENT + b"]", _GOOD_EVENT * 2],
    ids=["text behind", "byte order mark", "array", "two"],
)
def test_a_good_event_in_bad_wrapping_is_refused(raw: Raw, body: bytes) -> None:
    """The value must be the object and nothing else."""
    refused(raw, "BAD_JSON", None, "storeEvent", body)


def test_bytes_that_are_not_utf_8_are_refused_in_skipped_fields(raw: Raw) -> None:
    """The typed decoder skips such a field unread, so a check of its own stands before it."""
    refused(raw, "BAD_JSON", None, "storeEvent", _GOOD_EVENT[:-1] + b', "x": ["\xff"]}')


_BAD_IDS = [
    "", ".", "..", "a/b", "../../x", "/", "a\\b", "a\u0000b", "a\nb", "a\u007fb", "a\u0085b", "a" * 201,
    "a" * 300, "é" * 101, "\ud800",
]  # fmt: skip
_BAD_TYPES = [5, None, True, ["a"], {"a": 1}]
_ID_FIELDS = [
    ("storeJob", "id"),
    ("storeCheckpoint", "id"),
    ("storeCheckpoint", "jobId"),
    ("storeCheckpoint", "runId"),
    ("storeEvent", "id"),
    ("storeEvent", "jobId"),
    ("storeEvent", "runId"),
    ("storeRunSetting", "jobId"),
    ("storeRunSetting", "runId"),
]


@pytest.mark.parametrize(("op", "field"), _ID_FIELDS)
@pytest.mark.parametrize("id", [*_BAD_IDS, *_BAD_TYPES], ids=lambda value: ascii(value)[:24])
def test_an_id_that_can_not_name_a_file_is_refused(raw: Raw, op: str, field: str, id: object) -> None:
    """Empty, dots, separators, control characters, more than 200 bytes, a lone surrogate, no string."""
    refused(raw, "BAD_VALUE", field, op, {**VALUES[op](), field: id})


@pytest.mark.parametrize("type", [*_BAD_IDS, "a.b", "a.json", "a" * 101, "é" * 51, *_BAD_TYPES], ids=ascii)
def test_an_event_type_that_can_not_name_a_file_is_refused(raw: Raw, type: object) -> None:
    """As an id, but 100 bytes and no dot, at which the reference's reader cuts."""
    refused(raw, "BAD_VALUE", "type", "storeEvent", event(type=type))


_NUMBERS = [
    ("storeJob", "startedAt", False),
    ("storeJob", "totalSteps", True),
    ("storeCheckpoint", "stepNumber", True),
    ("storeEvent", "timestamp", False),
    ("storeEvent", "stepNumber", True),
    ("storeRunSetting", "startedAt", False),
    ("storeRunSetting", "updatedAt", False),
]


@pytest.mark.parametrize(("op", "field", "whole"), _NUMBERS)
@pytest.mark.parametrize(
    "text",
    [
        "-1",
        "-0.5",
        "9007199254740992",
        "1e16",
        "1e400",
        "-1e400",
        "1" * 30,
        "1" * 400,
        "null",
        "true",
        '"1"',
        "[]",
    ],
    ids=lambda text: text[:20],
)
def test_a_time_or_step_out_of_range_is_refused(
    raw: Raw, op: str, field: str, whole: bool, text: str
) -> None:
    """Numbers from 0 to 2^53-1; true and "1" are no numbers."""
    value = VALUES[op](**{field: "HERE"})
    refused(raw, "BAD_VALUE", field, op, json.dumps(value).replace('"HERE"', text).encode())


@pytest.mark.parametrize(("op", "field"), [(op, field) for op, field, whole in _NUMBERS if whole])
def test_a_step_with_a_fraction_is_refused(raw: Raw, op: str, field: str) -> None:
    """Steps are whole numbers."""
    refused(raw, "BAD_VALUE", field, op, VALUES[op](**{field: 1.5}))


_REQUIRED = [
    *[("storeJob", (name,)) for name in job()],
    *[("storeCheckpoint", (name,)) for name in checkpoint()],
    *[("storeEvent", (name,)) for name in event()],
    *[("storeRunSetting", (name,)) for name in setting()],
    *[("storeJob", ("usage", name)) for name in USAGE],
    *[("storeCheckpoint", ("usage", name)) for name in USAGE],
    *[("storeCheckpoint", ("expert", name)) for name in ("key", "name", "version")],
]


@pytest.mark.parametrize(("op", "path"), _REQUIRED, ids=str)
def test_a_required_field_that_is_missing_or_null_is_named(raw: Raw, op: str, path: tuple[str, ...]) -> None:
    """Also in usage and expert; null is what NaN becomes in JSON."""
    field = ".".join(path)
    refused(raw, "BAD_VALUE", field, op, without(VALUES[op](), *path))
    value = VALUES[op]()
    null = {path[0]: None} if len(path) == 1 else {path[0]: {**value[path[0]], path[1]: None}}
    refused(raw, "BAD_VALUE", field, op, {**value, **null})


@pytest.mark.parametrize(
    ("op", "field", "value"),
    [
        ("storeJob", "usage", []),
        ("storeJob", "usage.totalTokens", {**USAGE, "totalTokens": "3"}),
        ("storeJob", "usage.totalTokens", {**USAGE, "totalTokens": True}),
        ("storeJob", "status", 1),
        ("storeJob", "coordinatorExpertKey", []),
        ("storeCheckpoint", "messages", {}),
        ("storeCheckpoint", "messages", "none"),
        ("storeCheckpoint", "expert", "me"),
        ("storeCheckpoint", "expert.version", {"key": "k", "name": "n", "version": 1}),
        ("storeRunSetting", "providerConfig", []),
        ("storeRunSetting", "env", "A=1"),
        ("storeRunSetting", "input", None),
        ("storeRunSetting", "experts", 1),
        ("storeRunSetting", "maxRetries", "1"),
        ("storeRunSetting", "timeout", False),
    ],
)
def test_a_field_of_the_wrong_type_is_named(raw: Raw, op: str, field: str, value: object) -> None:
    """The JSON types of section 6."""
    refused(raw, "BAD_VALUE", field, op, VALUES[op](**{field.partition(".")[0]: value}))


def test_a_count_beyond_the_range_of_a_double_is_refused(raw: Raw) -> None:
    """Usage counts must be finite."""
    body = json.dumps(job(usage={**USAGE, "totalTokens": "HERE"})).replace('"HERE"', "1e400")
    refused(raw, "BAD_VALUE", "usage.totalTokens", "storeJob", body.encode())


# --- arguments of reads ----------------------------------------------------------------------------

_RUN = {"jobId": "j", "runId": "r"}


@pytest.mark.parametrize(
    ("field", "op", "arguments"),
    [
        ("jobId", "retrieveJob", {}),
        ("jobId", "retrieveJob", {"jobId": None}),
        ("jobId", "retrieveJob", {"jobId": 5}),
        ("jobId", "retrieveJob", {"jobId": "../x"}),
        ("jobId", "retrieveJob", {"jobId": "a" * 300}),
        ("jobId", "retrieveJob", {"jobId": ""}),
        ("checkpointId", "retrieveCheckpoint", {"jobId": "j"}),
        ("checkpointId", "retrieveCheckpoint", {"jobId": "j", "checkpointId": ["c"]}),
        ("jobId", "getCheckpointsByJobId", {}),
        ("runId", "getEventsByRun", {"jobId": "j"}),
        ("runId", "getEventContents", {"jobId": "j", "runId": "a/b"}),
        ("maxStep", "getEventContents", {**_RUN, "maxStep": "3"}),
        ("maxStep", "getEventContents", {**_RUN, "maxStep": True}),
        ("asOf", "retrieveJob", {"jobId": "j", "asOf": -1}),
        ("asOf.timeMs", "getEventsByRun", {**_RUN, "asOf": {"timeMs": None}}),
        ("limit", "getAllJobs", {"limit": 0}),
        ("limit", "getAllJobs", {"limit": -1}),
        ("limit", "getAllRuns", {"limit": 1.5}),
        ("limit", "getAllRuns", {"limit": "1"}),
        ("limit", "getEventsByRun", {**_RUN, "limit": True}),
        ("limit", "getEventsByRun", {**_RUN, "limit": 10**30}),
        ("after", "getAllJobs", {"after": 5}),
        ("after", "getAllJobs", {"after": []}),
        ("after", "getAllJobs", {"after": ["x", 5]}),
        ("after", "getAllJobs", {"after": [5, "x", 5]}),
        ("after", "getAllJobs", {"after": [10**30, "x"]}),
        ("after", "getAllJobs", {"after": [True, "x"]}),
        ("after", "getAllJobs", {"after": {"a": 1}}),
        ("after", "getAllRuns", {"after": [10**30, "j", "r"]}),
        ("after", "getCheckpointsByJobId", {"jobId": "j", "after": [10**30, 1]}),
        ("after", "getCheckpointsByJobId", {"jobId": "j", "after": [1.5, 1]}),
        ("after", "getEventsByRun", {**_RUN, "after": [10**30, 1]}),
        ("after", "getEventsByRun", {**_RUN, "after": [1, -(10**30)]}),
        ("after", "getEventContents", {**_RUN, "after": [1, 2**63]}),
        ("after", "getEventContents", {**_RUN, "after": [[1], [2]]}),
        ("after", "readAll", {"after": -1}),
        ("after", "readAll", {"after": [0]}),
        ("after", "readAll", {"after": 10**30}),
        ("limit", "readAll", {"limit": 0}),
        ("read", "readPart", {}),
        ("read", "readPart", {"read": 5, "part": 1}),
        ("read", "readPart", {"read": "r" * 1000, "part": 1}),
        ("part", "readPart", {"read": "r1"}),
        ("part", "readPart", {"read": "r1", "part": 0}),
    ],
    ids=str,
)
def test_an_argument_of_a_read_that_is_wrong_is_named(
    raw: Raw, field: str, op: str, arguments: dict[str, Any]
) -> None:
    """BAD_REQUEST, and every read is still answered afterwards."""
    refused(raw, "BAD_REQUEST", field, op, arguments)
    assert raw.ask("getAllRuns").value == []
    assert raw.ask("retrieveJob", {"jobId": "j"}).value is None


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"1", b'"x"', b"null", b"\xff", b'{"jobId":"\\ud800"}', b"[" * 9999]
)
def test_arguments_that_are_no_json_object_are_refused(raw: Raw, body: bytes) -> None:
    """BAD_REQUEST, whatever stands there."""
    refused(raw, "BAD_REQUEST", None, "retrieveJob", body)


@pytest.mark.parametrize("step", [10**30, -(10**30), 1e300, -1.5, 0.5])
def test_a_step_limit_beyond_all_steps_is_just_that(raw: Raw, step: float) -> None:
    """Any number may be given as maxStep."""
    assert raw.ask("getEventContents", {**_RUN, "maxStep": step}).value == []
