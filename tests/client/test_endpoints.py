"""A client with several endpoints: it goes over to the next daemon of its history, and to no other."""

import asyncio
import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from perstack_storage import AsyncClient, Client, CurveKeys, DaemonUnavailable, OtherHistory, StorageError
from perstack_storage._core import rotation
from perstack_storage._core.history import SharedHistory
from perstack_storage._core.protocol import ClientProtocol
from perstack_storage._core.reads import Read
from perstack_storage._core.rotation import Rotation
from perstack_storage._wire.endpoint import resolve_endpoints
from tests.client.fake_daemon import FakeDaemon, Store, failure, frame
from tests.helpers.ports import free_ports

HELLO = (
    b'{"store":"h1","replicated":true,"window":{"records":9,"bytes":9},'
    b'"limits":{"frameBytes":99999,"batchItems":9}}'
)
EVENT = {"type": "startRun", "expertKey": "e", "timestamp": 1, "jobId": "j", "runId": "r", "stepNumber": 0}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "MOVE_AFTER_S", 0.3)
    monkeypatch.setattr("perstack_storage._core.patience.PATIENCE_MIN_S", 0.2)


class Daemons:
    """Daemons that share a store."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self.store = Store()

    def endpoint(self, name: str) -> str:
        return f"ipc://{self._folder}/{name}.sock"

    def start(self, name: str, **hello: Any) -> FakeDaemon:
        daemon = FakeDaemon(self.endpoint(name), self.store)
        daemon.hello = {"store": "h1", "replicated": True, **hello}
        return self._stack.enter_context(daemon)

    def stop(self) -> None:
        self._stack.close()


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Daemons]:
    found = Daemons(tmp_path)
    yield found
    found.stop()


@pytest.fixture(params=["sync", "asyncio"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def event(number: int) -> dict[str, Any]:
    return {**EVENT, "id": f"e{number}"}


def ids(daemons: Daemons) -> list[str]:
    return [json.loads(body)["id"] for _, body in daemons.store.records]


def use(
    kind: str,
    endpoints: list[str],
    calls: int = 300,
    timeout_s: float = 20,
    keys: CurveKeys | None = None,
) -> list[int | None]:
    """Stores events by a pipeline, then reads; returns their positions."""
    if kind == "sync":
        with Client(endpoints, timeout_s=timeout_s, keys=keys) as client:
            with client.pipeline() as pipeline:
                for number in range(calls):
                    pipeline.store_event(event(number))
            client.get_event_contents("j", "r")
            return pipeline.positions

    async def use_async() -> list[int | None]:
        async with AsyncClient(endpoints, timeout_s=timeout_s, keys=keys) as client:
            async with client.pipeline() as pipeline:
                for number in range(calls):
                    await pipeline.store_event(event(number))
            await client.get_event_contents("j", "r")
            return pipeline.positions

    return asyncio.run(use_async())


def test_stores_go_on_at_the_next_daemon(kind: str, daemons: Daemons) -> None:
    """The first one stores some, the log has them, and then it never answers again."""
    a, b = daemons.start("a"), daemons.start("b")

    def dies(header: dict[str, Any], body: bytes) -> list[bytes] | None:
        if "seq" not in header or header["seq"] < 100:
            return None
        if header["seq"] < 180:
            a._store(header, body)
        return []

    a.script = dies
    positions = use(kind, [a.endpoint, b.endpoint])
    assert positions == list(range(1, 301))
    assert ids(daemons) == [f"e{number}" for number in range(300)]
    assert {request["session"] for request in b.requests if "seq" in request} == {
        request["session"] for request in a.requests if "seq" in request
    }


def test_a_daemon_that_is_not_there_is_passed_over(kind: str, daemons: Daemons) -> None:
    daemons.start("c")
    endpoints = [daemons.endpoint(name) for name in "abc"]
    assert use(kind, endpoints, calls=3) == [1, 2, 3]


def test_a_daemon_that_is_only_busy_is_left(kind: str, daemons: Daemons) -> None:
    a = daemons.start("a")
    a.script = lambda header, _: (
        [frame({"id": header["id"], "ok": False, "error": failure("BUSY", retryable=True)})]
        if "seq" in header
        else None
    )
    daemons.start("b")
    assert use(kind, [a.endpoint, daemons.endpoint("b")], calls=3) == [1, 2, 3]


def test_a_daemon_that_answers_is_not_left() -> None:
    """Not after a pause, either, in which nothing waited."""
    protocol, turn = ClientProtocol("8f" * 16, SharedHistory(several=True)), Rotation(("a", "b"))

    def stale_at() -> float:
        return turn.stale_at(protocol.waits_since, protocol.answered_at)

    def answer(now: float, body: bytes = b"", **more: Any) -> None:
        assert protocol.next_frame(now) is not None
        protocol.sent(now)
        request_id = protocol._next_id - 1
        protocol.receive(frame({"id": request_id, "ok": True, **more}, body), now)

    assert stale_at() == math.inf
    for begun in (100.0, 200.0):
        protocol.stores.append_alone(("storeEvent", b"{}", None), begun)
        assert stale_at() == begun + rotation.MOVE_AFTER_S
        if begun == 100.0:
            answer(begun, HELLO)
        answer(begun + 0.1, position=1)
        assert stale_at() == math.inf
    waits = Read("readAll", b"", 1000.0, wait_s=10)
    protocol.reads.append(waits)
    assert protocol.next_frame(300.0) is not None
    assert stale_at() == math.inf
    protocol.disconnected()
    protocol.next_frame(301.0)
    assert stale_at() == 300.0 + rotation.MOVE_AFTER_S


@pytest.mark.parametrize("other", [{"store": "h2"}, {"replicated": False}, {"replicated": None, "store": 7}])
def test_a_daemon_of_another_history_gets_nothing(kind: str, daemons: Daemons, other: dict[str, Any]) -> None:
    a, b, c = daemons.start("a"), daemons.start("b", **other), daemons.start("c")
    a.script = lambda header, _: [] if header.get("seq", 0) > 50 else None
    assert use(kind, [one.endpoint for one in (a, b, c)]) == list(range(1, 301))
    assert {request["op"] for request in b.requests} <= {"hello"}


def test_it_is_named_where_no_other_daemon_is_left(daemons: Daemons) -> None:
    a, b = daemons.start("a"), daemons.start("b", store="h2")
    a.script = lambda header, _: [] if header["op"] == "getEventContents" else None
    with pytest.raises(DaemonUnavailable, match="serves the history h2, not h1") as caught:
        use("sync", [a.endpoint, b.endpoint], calls=1, timeout_s=2.5)
    assert b.endpoint in str(caught.value)
    assert {request["op"] for request in b.requests} == {"hello"}


def test_daemons_of_one_machine_are_refused_at_once(kind: str, daemons: Daemons) -> None:
    """They don't share sessions: what is sent again would be stored twice."""
    a, b = daemons.start("a", replicated=False), daemons.start("b", replicated=False)
    with pytest.raises(OtherHistory, match="one replicated journal"):
        use(kind, [a.endpoint, b.endpoint], calls=1)
    assert {request["op"] for request in a.requests + b.requests} == {"hello"}


def test_a_store_that_nobody_waits_for_tells_it_once(daemons: Daemons) -> None:
    a, b = daemons.start("a", replicated=False), daemons.start("b", replicated=False)
    errors: list[StorageError] = []
    client = Client([a.endpoint, b.endpoint], on_error=errors.append, timeout_s=60)
    future = client.store_event_nowait(event(0))
    with pytest.raises(StorageError):
        future.result(60)
    client.close()
    assert errors
    assert len(errors) < 5, f"{len(errors)} times"


def test_reads_name_what_the_client_has_seen(daemons: Daemons) -> None:
    """Of daemons that share a history only: a base that was put back may never come to the position."""
    a = daemons.start("a")
    with Client(a.endpoint) as client:
        client.retrieve_job("j")
        for number in range(200):
            client.store_event(event(number))
        client.retrieve_job("j")
        client.ping()
    found = [(request["op"], request.get("atLeast")) for request in a.requests if "seq" not in request]
    found = list(dict.fromkeys(found))  # a client that waits for long asks again
    assert found == [("hello", None), ("retrieveJob", None), ("retrieveJob", 200), ("ping", None)]
    b = daemons.start("b", replicated=False)
    with Client(b.endpoint) as client:
        client.store_event(event(300))
        client.retrieve_job("j")
    assert not any("atLeast" in request for request in b.requests)


def test_by_tcp_all_daemons_have_the_server_key_that_the_client_knows(kind: str, daemons: Daemons) -> None:
    """One with another key gets nothing, and is passed over."""
    (public, secret), (_, other) = zmq.curve_keypair(), zmq.curve_keypair()
    keys = CurveKeys(public.decode(), *(key.decode() for key in zmq.curve_keypair()))
    a, b = (FakeDaemon(f"tcp://127.0.0.1:{port}", daemons.store) for port in free_ports(2))
    a.curve_secret, b.curve_secret = other, secret
    a.hello = b.hello = {"store": "h1", "replicated": True}
    with a, b:
        assert use(kind, [a.endpoint, b.endpoint], calls=3, keys=keys) == [1, 2, 3]
    assert a.requests == []


def test_a_history_keeps_the_highest_position() -> None:
    history = SharedHistory(several=True)
    for number in range(1, 500):
        history.note(number * 7 % 500)
    assert history.position == max(number * 7 % 500 for number in range(1, 500))


def test_endpoints_in_one_text(monkeypatch: pytest.MonkeyPatch) -> None:
    both = ("ipc:///run/a,b.sock", "tcp://10.0.0.5:7171")
    assert resolve_endpoints("ipc:///run/a,b.sock, tcp://10.0.0.5:7171", None) == both
    assert resolve_endpoints(list(both), None) == both
    monkeypatch.setenv("PERSTACK_STORED_ENDPOINT", ",".join(both))
    assert resolve_endpoints(None, "/base") == both
    with pytest.raises(StorageError, match="twice"):
        resolve_endpoints("ipc:///a,ipc:///a", None)
    with pytest.raises(StorageError, match="empty"):
        resolve_endpoints([], None)
