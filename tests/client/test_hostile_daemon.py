"""What a client takes from a daemon that is broken, or that is none: no more than was announced."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from perstack_storage import AnswerTooLarge, Client, ProtocolError, StorageError
from perstack_storage._core import reads
from perstack_storage._core.errors import refused
from perstack_storage._core.frames import FRAME_BYTES_MIN, Answer, Limits, parse_answer, retry_after_s
from perstack_storage._core.reads import Read
from tests.client.behaviour.adapter import BlockingClient
from tests.client.fake_daemon import FakeDaemon, frame
from tests.helpers.values import anything

OPEN: list[Any] = [Client, BlockingClient]


def endless(header: dict[str, Any], body: bytes) -> list[bytes] | None:
    """One part behind another."""
    if header["op"] in {"hello", "storeEvent"}:
        return None
    part = json.loads(body)["part"] + 1 if header["op"] == "readPart" else 1
    return [frame({"id": header["id"], "ok": True, "more": {"read": "k", "part": part}}, b" " * 1_000_000)]


@pytest.mark.parametrize("open_client", OPEN)
def test_an_answer_without_an_end_is_given_up_at_a_stated_size(
    open_client: Callable[..., Client], endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing has a bound of its own; that of a single value is what the daemon itself takes."""
    monkeypatch.setattr(reads, "ANSWER_BYTES_MAX", 20_000_000)
    daemon = FakeDaemon(endpoint, script=endless)
    daemon.limits["valueBytes"] = 5_000_000
    with daemon, open_client(endpoint, timeout_s=60) as client:
        for _ in range(2):  # the first one may be answered before the daemon has said what it grants
            with pytest.raises(AnswerTooLarge):
                client.retrieve_job("j")
        parts = sum(header["op"] == "readPart" for header in daemon.requests)
        assert parts < 30
        with pytest.raises(AnswerTooLarge, match="limit"):
            client.get_all_jobs()
        assert sum(header["op"] == "readPart" for header in daemon.requests) < parts + 30
        assert client.store_event(anything({})) > 0


@pytest.mark.parametrize("more", [{}, [], "x", {"read": "k", "part": 2}, {"read": "k", "part": "1"}, True])
@pytest.mark.parametrize("open_client", OPEN)
def test_a_part_that_does_not_follow_is_an_error_of_the_library(
    open_client: Callable[..., Client], endpoint: str, more: Any
) -> None:
    def script(header: dict[str, Any], body: bytes) -> list[bytes] | None:
        if header["op"] != "getAllJobs":
            return None
        return [frame({"id": header["id"], "ok": True, "more": more}, b"[")]

    with FakeDaemon(endpoint, script=script), open_client(endpoint, timeout_s=60) as client:
        with pytest.raises(ProtocolError):
            client.get_all_jobs()
        assert client.ping() >= 0


@pytest.mark.parametrize(
    ("header", "body"),
    [({}, b"not json"), ({}, b'{"a":1}'), ({"position": "x"}, b"[]"), ({"next": [], "position": 1}, b"[1]")],
)
@pytest.mark.parametrize("open_client", OPEN)
def test_an_answer_of_another_shape_is_an_error_of_the_library(
    open_client: Callable[..., Client], endpoint: str, header: dict[str, Any], body: bytes
) -> None:
    def script(request: dict[str, Any], _body: bytes) -> list[bytes] | None:
        if request["op"] != "readAll":
            return None
        return [frame({"id": request["id"], "ok": True} | header, body)]

    with (
        FakeDaemon(endpoint, script=script),
        open_client(endpoint, timeout_s=60) as client,
        pytest.raises(StorageError),
    ):
        next(iter(client.follow(idle_s=0, store="s")))


@pytest.mark.parametrize("results", [["x"], [None], [1.5], [True], [[1]]])
def test_outcomes_of_another_shape_are_an_error_of_the_library(endpoint: str, results: list[Any]) -> None:
    def script(header: dict[str, Any], _body: bytes) -> list[bytes] | None:
        if header["op"] != "storeEvent":
            return None
        return [frame({"id": header["id"], "ok": True, "results": results})]

    with (
        FakeDaemon(endpoint, script=script),
        Client(endpoint, timeout_s=5) as client,
        pytest.raises(ProtocolError),
    ):
        client.store_event(anything({}))


def hello(**limits: Any) -> bytes:
    usual = {"records": 1024, "bytes": 1 << 24, "frameBytes": 1 << 24, "batchItems": 1024} | limits
    window = {name: usual.pop(name) for name in ("records", "bytes")}
    return json.dumps({"window": window, "limits": usual}).encode()


@pytest.mark.parametrize(
    "body",
    [
        hello(frameBytes=FRAME_BYTES_MIN - 1), hello(frameBytes=1), hello(records=0), hello(bytes="x"),
        hello(valueBytes=-1), hello(batchItems=True), b"[]", b"[" * 100_000, b"",
    ],
)  # fmt: skip
def test_a_hello_that_nothing_can_be_sent_by_is_an_error_of_the_library(body: bytes) -> None:
    with pytest.raises(StorageError):
        Limits().learn(body)


def test_a_window_without_bounds_is_not_believed() -> None:
    limits = Limits()
    limits.learn(hello(records=1 << 60, bytes=1 << 60))
    assert limits.window_records <= 1 << 20
    assert limits.window_bytes <= 1 << 30


@pytest.mark.parametrize(
    "header", [{"ok": True, "id": [1]}, {"ok": True, "id": "1"}, {"ok": 1, "id": 1}, {"id": 1}]
)
def test_a_header_of_another_shape_is_an_error_of_the_library(header: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        parse_answer(json.dumps(header).encode())


@pytest.mark.parametrize("after", ["x", None, [], -1, 1e300, float("nan"), True])
def test_an_invalid_wait_is_bounded(after: Any) -> None:
    assert 0 <= retry_after_s({"retryAfterMs": after}) <= 3600
    assert refused({"code": after, "message": after}).code
    read = Read("getAllJobs", b"{}", 100.0)
    read.sent(1, 0)
    busy = {"code": "BUSY", "retryable": True, "retryAfterMs": after}
    assert read.answered(1, Answer({"id": 1, "ok": False, "error": busy}, b""), 0)
    assert 0 < read.due() <= 3600


def test_a_read_takes_no_memory_for_parts_that_are_empty() -> None:
    read = Read("getAllJobs", b"{}", 100.0)
    for part in range(1, 50):
        read.sent(part, 0)
        more = {"read": "k", "part": part}
        read.answered(part, parse_answer(json.dumps({"id": part, "ok": True, "more": more}).encode()), 0)
    assert read._pieces == []
