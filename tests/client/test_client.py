"""The client against a small daemon in a thread that speaks wire.md, well or badly as the test asks."""

from typing import Any

import pytest

from perstack_storage import (
    CheckpointNotFound,
    Client,
    Refused,
)
from tests.client.fake_daemon import FakeDaemon
from tests.helpers.values import anything

pytestmark = pytest.mark.usefixtures("_long_patience")  # requests are counted


def test_stores_return_their_positions_in_the_order_of_the_calls(client: Client, endpoint: str) -> None:
    with FakeDaemon(endpoint) as daemon:
        assert client.store_job(anything({"id": "j"})) == 1
        assert client.store_event(anything({"id": "e"})) == 2
        assert client.store_checkpoint(anything({"id": "c"})) == 3
        assert client.store_run_setting(anything({"jobId": "j"})) == 4
    assert [op for op, _ in daemon.store.records] == [
        "storeJob",
        "storeEvent",
        "storeCheckpoint",
        "storeRunSetting",
    ]


def test_the_value_at_the_call_is_stored(client: Client, endpoint: str) -> None:
    event = anything({"n": 0})
    with FakeDaemon(endpoint) as daemon:
        with client.pipeline() as pipeline:
            for number in range(500):
                event["n"] = number
                pipeline.store_event(event)
            event["n"] = -1
        assert [body for _, body in daemon.store.records] == [b'{"n":%d}' % n for n in range(500)]


def test_reads_answer_values_none_and_not_found(client: Client, endpoint: str) -> None:
    with FakeDaemon(endpoint):
        assert client.retrieve_job("j") is None
        client.store_job(anything({"id": "j", "": "\ud800", "big": 10**30}))
        assert client.retrieve_job("j") == {"id": "j", "": "\ud800", "big": 10**30}
        with pytest.raises(CheckpointNotFound) as caught:
            client.retrieve_checkpoint("j", "c9")
        assert str(caught.value) == "checkpoint not found: c9"
        assert caught.value.code == "NOT_FOUND"
        assert 0 < client.ping() < 5
        assert dict(client.stats()) == {}
        assert client.hello()["server"] == "fake"


def test_a_listing_with_a_limit_says_where_to_continue(client: Client, endpoint: str) -> None:
    with FakeDaemon(endpoint):
        for number in range(5):
            client.store_event(anything({"n": number}))
        first = client.get_event_contents("j", "r", limit=3)
        second = client.get_event_contents("j", "r", limit=3, after=first.next)
        assert [dict(event)["n"] for event in first + second] == [0, 1, 2, 3, 4]
        assert (first.next, second.next, first.position) == (3, None, 5)


def test_arguments_that_are_not_given_are_not_sent(client: Client, endpoint: str) -> None:
    bodies = []

    def script(header: dict[str, Any], body: bytes) -> None:
        bodies.append((header["op"], body))

    with FakeDaemon(endpoint, script=script):
        client.get_all_jobs()
        client.get_event_contents("j", "r", max_step=0)
    assert bodies == [
        ("hello", b""),
        ("getAllJobs", b"{}"),
        ("getEventContents", b'{"jobId":"j","runId":"r","maxStep":0}'),
    ]


def test_reads_say_how_long_they_wait_and_stores_do_not(client: Client, endpoint: str) -> None:
    with FakeDaemon(endpoint) as daemon:
        client.store_event(anything({}))
        client.retrieve_job("j")
    hello, store, read = daemon.requests
    assert "timeoutMs" not in hello
    assert "timeoutMs" not in store
    assert 30_000 < read["timeoutMs"] <= 60_000


def test_a_pipeline_stores_everything_in_order_and_in_few_frames(client: Client, endpoint: str) -> None:
    with FakeDaemon(endpoint) as daemon:
        with client.pipeline() as pipeline:
            for number in range(3000):
                pipeline.store_event(anything({"n": number}))
        assert pipeline.positions == list(range(1, 3001))
        assert [body for _, body in daemon.store.records] == [b'{"n":%d}' % n for n in range(3000)]
        assert len(daemon.requests) < 1500


def test_a_pipeline_may_mix_with_plain_stores_and_order_is_kept(client: Client, endpoint: str) -> None:
    with FakeDaemon(endpoint) as daemon:
        with client.pipeline() as pipeline:
            for number in range(20):
                pipeline.store_event(anything({"n": number}))
            assert client.store_job(anything({"id": "j"})) == 21
            pipeline.store_checkpoint(anything({"id": "c"}))
        assert pipeline.positions == [*range(1, 21), 22]
        assert [op for op, _ in daemon.store.records[-2:]] == ["storeJob", "storeCheckpoint"]


def test_max_in_flight_bounds_what_is_unanswered(client: Client, endpoint: str) -> None:
    unanswered: list[int] = []

    def script(header: dict[str, Any], body: bytes) -> None:
        if header["op"] != "hello":
            unanswered.append(header["seq"] + len(header.get("items", "1")) - 1 - header["settled"])

    with FakeDaemon(endpoint, script=script), client.pipeline(max_in_flight=10) as pipeline:
        for _ in range(200):
            pipeline.store_event(anything({}))
    assert max(unanswered) <= 10
    with pytest.raises(ValueError, match="at least 1"):
        client.pipeline(max_in_flight=0)


def test_a_granted_window_is_kept(client: Client, endpoint: str) -> None:
    daemon = FakeDaemon(endpoint)
    daemon.window = {"records": 5, "bytes": 1000}
    with daemon:
        client.ping()
        client.store_event(anything({}))
        with client.pipeline() as pipeline:
            for number in range(50):
                pipeline.store_event(anything({"n": number}))
    assert max(h["seq"] - h["settled"] + len(h.get("items", "1")) - 1 for h in daemon.requests[2:]) <= 5


def test_a_refusal_within_a_batch_names_its_item_and_the_later_ones_are_stored(
    client: Client, endpoint: str
) -> None:
    with FakeDaemon(endpoint) as daemon:
        pipeline = client.pipeline()
        for number in range(200):
            pipeline.store_event(anything({"bad": 1}) if number in {50, 60} else {"n": number})
        with pytest.raises(Refused) as caught, pipeline:
            pass
        assert (caught.value.index, caught.value.op, caught.value.code) == (50, "storeEvent", "BAD_VALUE")
        assert caught.value.field == "bad"
        assert "item 50" in str(caught.value)
        assert [refusal.index for refusal in pipeline.refusals] == [50, 60]
        assert pipeline.positions[49:52] == [50, None, 51]
        assert len(daemon.store.records) == 198


def test_leaving_a_pipeline_by_an_exception_still_stores_what_was_queued(
    client: Client, endpoint: str
) -> None:
    with FakeDaemon(endpoint) as daemon:
        pipeline = client.pipeline()
        for number in range(100):
            pipeline.store_event(anything({"n": number}))
        pipeline.store_event(anything({"bad": 1}))
        with pytest.raises(KeyError, match="mine") as caught, pipeline:
            raise KeyError("mine")
        assert len(daemon.store.records) == 100
        assert "item 100" in caught.value.__notes__[0]


def test_flush_waits_for_all_and_raises_a_refusal_once(client: Client, endpoint: str) -> None:
    with FakeDaemon(endpoint), client.pipeline() as pipeline:
        pipeline.store_event(anything({"bad": 1}))
        with pytest.raises(Refused):
            pipeline.flush()
        pipeline.store_event(anything({}))
        pipeline.flush()
        assert pipeline.positions == [None, 1]


def test_a_refused_store_says_why_and_the_next_one_goes_on(client: Client, endpoint: str) -> None:
    with FakeDaemon(endpoint):
        with pytest.raises(Refused, match=r"storeEvent refused: this is bad \(BAD_VALUE\)"):
            client.store_event(anything({"bad": 1}))
        assert client.store_event(anything({})) == 1


def test_a_value_of_40_mib_travels_in_parts_and_comes_back_in_pieces(client: Client, endpoint: str) -> None:
    event = anything({"text": "x" * 41_943_040})
    with FakeDaemon(endpoint) as daemon:
        assert client.store_event(event) == 1
        assert client.store_event(anything({})) == 2
        assert dict(client.get_event_contents("j", "r")[0]) == event
    stores = [h for h in daemon.requests if h["op"] == "storeEvent"]
    assert [h.get("part") for h in stores] == [*range(11), None]
    assert sum(h["op"] == "readPart" for h in daemon.requests) == 10
