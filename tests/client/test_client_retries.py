"""A daemon that refuses for now, is silent, restarts or is gone: what is tried again, what is raised."""

import socket
import threading
import time
from typing import Any

import pytest

from perstack_storage import (
    Client,
    DaemonUnavailable,
    OutcomeUnknown,
    ProtocolError,
    Refused,
)
from tests.client.fake_daemon import FakeDaemon, Store, failure
from tests.client.scripts import once, refuse, silence
from tests.helpers.values import anything


@pytest.mark.parametrize("code", ["BUSY", "SEQUENCE_GAP", "STORAGE_FULL", "STOPPING", "A_CODE_OF_TOMORROW"])
def test_a_retryable_error_is_ridden_out(client: Client, endpoint: str, code: str) -> None:
    script = once("storeEvent", refuse(failure(code, retryable=True)))
    with FakeDaemon(endpoint, script=script) as daemon:
        assert client.store_event(anything({})) == 1
        assert [h["seq"] for h in daemon.requests if h["op"] == "storeEvent"] == [1, 1]


@pytest.mark.parametrize("code", ["BUSY", "DEADLINE", "STOPPING"])
def test_a_read_with_a_retryable_error_is_read_again(client: Client, endpoint: str, code: str) -> None:
    script = once("retrieveJob", refuse(failure(code, retryable=True)))
    with FakeDaemon(endpoint, script=script):
        assert client.retrieve_job("j") is None


def test_a_busy_daemon_in_the_middle_of_a_pipeline_loses_and_doubles_nothing(
    client: Client, endpoint: str
) -> None:
    refusals = iter(range(40))

    def script(header: dict[str, Any], body: bytes) -> list[bytes] | None:
        if header["op"] != "hello" and header["id"] % 3 == 0 and next(refusals, None) is not None:
            return refuse(failure("BUSY", retryable=True))(header)
        return None

    with FakeDaemon(endpoint, script=script) as daemon:
        with client.pipeline() as pipeline:
            for number in range(1000):
                pipeline.store_event(anything({"n": number}))
        assert pipeline.positions == list(range(1, 1001))
        assert [body for _, body in daemon.store.records] == [b'{"n":%d}' % n for n in range(1000)]


@pytest.mark.usefixtures("_quick_patience")
def test_a_lost_answer_is_fetched_again_and_nothing_is_stored_twice(client: Client, endpoint: str) -> None:
    store = Store()

    def take_in_silence(header: dict[str, Any]) -> list[bytes]:
        store.records.append(("storeEvent", b"{}"))
        store.last[header["session"]] = header["seq"]
        store.positions[header["session"], header["seq"]] = 1
        return []

    with FakeDaemon(endpoint, store, once("storeEvent", take_in_silence)):
        assert client.store_event(anything({})) == 1
    assert len(store.records) == 1


@pytest.mark.usefixtures("_quick_patience")
def test_a_restart_of_the_daemon_is_ridden_out_by_a_pipeline(client: Client, endpoint: str) -> None:
    store = Store()
    first = FakeDaemon(endpoint, store).start()
    with client.pipeline() as pipeline:
        for number in range(3000):
            pipeline.store_event(anything({"n": number}))
            if number == 1500:
                first.stop()
                second = FakeDaemon(endpoint, store).start()
    second.stop()
    assert pipeline.positions == list(range(1, 3001))
    assert [body for _, body in store.records] == [b'{"n":%d}' % n for n in range(3000)]


def test_a_daemon_that_comes_back_a_second_later_serves_stores_and_reads(
    client: Client, endpoint: str
) -> None:
    store = Store()
    first = FakeDaemon(endpoint, store).start()
    assert client.store_event(anything({})) == 1
    first.stop()
    second = FakeDaemon(endpoint, store)
    starter = threading.Timer(1.0, second.start)
    starter.start()
    assert client.store_event(anything({})) == 2
    assert len(client.get_event_contents("j", "r")) == 2
    starter.join()
    second.stop()


@pytest.mark.usefixtures("_quick_patience")
def test_a_read_whose_answer_is_lost_is_sent_again(client: Client, endpoint: str) -> None:
    with FakeDaemon(endpoint, script=once("retrieveJob", silence)) as daemon:
        assert client.retrieve_job("j") is None
    assert [h["op"] for h in daemon.requests] == ["hello", "retrieveJob", "hello", "retrieveJob"]


def test_read_gone_reads_again_from_the_start(client: Client, endpoint: str) -> None:
    daemon = FakeDaemon(endpoint, script=once("readPart", refuse(failure("READ_GONE", retryable=True))))
    daemon.answer_bytes = 1000
    with daemon:
        for number in range(20):
            client.store_event(anything({"n": number, "text": "x" * 100}))
        events = client.get_event_contents("j", "r")
    assert [dict(event)["n"] for event in events] == list(range(20))
    assert sum(h["op"] == "getEventContents" for h in daemon.requests) == 2


def test_without_a_daemon_every_call_fails_in_time_and_says_what_to_do(endpoint: str) -> None:
    with Client(endpoint, timeout_s=0.2) as client:
        for call in (lambda: client.store_event(anything({})), lambda: client.retrieve_job("j"), client.ping):
            start = time.monotonic()
            with pytest.raises(DaemonUnavailable, match="perstack-stored serve") as caught:
                call()
            assert endpoint in str(caught.value)
            assert 0.15 < time.monotonic() - start < 10


def test_a_pipeline_without_a_daemon_fails_in_time(endpoint: str) -> None:
    with Client(endpoint, timeout_s=0.2) as client:
        start = time.monotonic()
        pipeline = client.pipeline()
        for _ in range(500):
            pipeline.store_event(anything({}))
        with pytest.raises(DaemonUnavailable), pipeline:
            pass
        assert time.monotonic() - start < 10


def test_a_peer_that_accepts_and_says_nothing_counts_as_no_daemon(endpoint: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(endpoint.removeprefix("ipc://"))
        listener.listen()
        with Client(endpoint, timeout_s=0.2) as client, pytest.raises(DaemonUnavailable):
            client.store_event(anything({}))


def test_a_store_that_was_sent_and_never_answered_has_an_unknown_outcome(endpoint: str) -> None:
    script = once("storeEvent", silence)
    with FakeDaemon(endpoint, script=script) as daemon, Client(endpoint, timeout_s=0.9) as client:
        with pytest.raises(OutcomeUnknown, match="unknown"):
            client.store_event(anything({}))
        assert client.store_event(anything({})) == 1
        last = daemon.requests[-1]
        assert (last["seq"], last["settled"]) == (2, 1)


def test_a_store_that_was_refused_for_now_until_the_end_is_refused(endpoint: str) -> None:
    def script(header: dict[str, Any], body: bytes) -> list[bytes] | None:
        error = failure("STORAGE_FULL", retryable=True, retryAfterMs=2500)
        return refuse(error)(header) if header["op"] == "storeEvent" else None

    # It is sent twice, and each answer has 1.5 s to come.
    with FakeDaemon(endpoint, script=script), Client(endpoint, timeout_s=4) as client:
        with pytest.raises(Refused) as caught:
            client.store_event(anything({}))
        assert (caught.value.code, caught.value.retryable) == ("STORAGE_FULL", True)


def test_a_refusal_of_a_read_is_raised(client: Client, endpoint: str) -> None:
    script = once("retrieveJob", refuse(failure("DAMAGED", retryable=False)))
    with FakeDaemon(endpoint, script=script), pytest.raises(Refused, match="DAMAGED"):
        client.retrieve_job("j")


def test_an_answer_that_is_no_answer_is_an_error(client: Client, endpoint: str) -> None:
    daemon = FakeDaemon(endpoint, script=lambda header, body: [b"HTTP/1.1 400"])
    with daemon, pytest.raises(ProtocolError, match="HTTP"):
        client.store_event(anything({}))
