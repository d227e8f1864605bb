"""What a subscriber asks for: a run, types, kinds, a named cursor."""

import asyncio
from contextlib import nullcontext
from typing import Any

import pytest

from perstack_storage import AsyncClient, Client, PositionGone, ProtocolError, Refused
from perstack_storage._core.answers import as_asked
from perstack_storage._core.follow import Follow, Start
from perstack_storage._core.frames import Answer
from perstack_storage._core.reads import Read
from tests.client.follow.subscriber import Subscriber, event
from tests.helpers.daemon import RunningDaemon, eventually
from tests.helpers.replay import METHODS, calls_of


def job(name: str) -> dict[str, Any]:
    tokens = ("inputTokens", "outputTokens", "reasoningTokens", "totalTokens", "cachedInputTokens")
    usage = dict.fromkeys(tokens, 0)
    value = {"id": name, "status": "running", "coordinatorExpertKey": "k", "totalSteps": 0, "startedAt": 1}
    return value | {"usage": usage}


def test_a_subscriber_of_a_run_or_job_gets_what_is_of_it(client: Client) -> None:
    calls = calls_of("b", "job")
    with client.pipeline() as pipeline:
        for op, value in calls:
            getattr(pipeline, METHODS[op])(value)
    positions = [position or 0 for position in pipeline.positions]
    numbered = list(zip(positions, calls, strict=True))
    runs = sorted({(v["jobId"], v["runId"]) for _, v in calls if "runId" in v})
    assert len(runs) == 5
    for job, run in runs:
        expected = [n for n, (_, v) in numbered if (v.get("jobId"), v.get("runId")) == (job, run)]
        found = client.follow(job_id=job, run_id=run, idle_s=0)
        assert [record["position"] for record in found] == expected
    for job in {job for job, _ in runs}:
        expected = [n for n, (_, v) in numbered if v.get("jobId", v["id"]) == job]
        found = client.follow(job_id=job, idle_s=0)
        assert [record["position"] for record in found] == expected
        assert [r["position"] for r in client.follow(expected[3], job_id=job, idle_s=0)] == expected[4:]
    assert list(client.follow(job_id="nobody", idle_s=0)) == []


def test_a_subscriber_gets_the_types_and_kinds_it_asks_for(daemon: RunningDaemon, client: Client) -> None:
    """From the last ones on, with what comes; the asyncio client too."""
    with client.pipeline() as pipeline:
        for number in range(300):
            pipeline.store_event(event(number) | {"type": "rare" if number % 100 == 0 else "delta"})
        pipeline.store_job(job("j"))
    rare = [1, 101, 201]
    assert [record["position"] for record in client.follow(types=["rare"], idle_s=0)] == rare
    assert [record["position"] for record in client.follow(last=2, types=["rare"], idle_s=0)] == rare[-2:]
    assert [record["position"] for record in client.follow(ops=["storeJob"], job_id="j", idle_s=0)] == [301]
    assert list(client.follow(last=0, idle_s=0)) == []
    page = client.read_all(last=1, types=["rare"])
    assert ([record["position"] for record in page], page.next) == ([201], 301)
    assert page[0]["epoch"] == client.read_all(200, limit=1)[0]["epoch"]
    subscriber = Subscriber(daemon.endpoint, last=1, types=["rare"])
    newer = Subscriber(daemon.endpoint, last=0)
    eventually(lambda: client.stats()["reads"]["following"] == 2, "both wait")
    client.store_event(event(301))
    client.store_event(event(302) | {"type": "rare"})
    eventually(lambda: subscriber.positions == [201, 303], "it has come")
    eventually(lambda: newer.positions == [302, 303], "both have come")
    subscriber.stop()
    newer.stop()

    async def read() -> list[int]:
        async with AsyncClient(daemon.endpoint) as asynchronous:
            return [record["position"] async for record in asynchronous.follow(types=["rare"], idle_s=0)]

    assert asyncio.run(read()) == [*rare, 303]


def test_a_subscriber_gets_no_field_that_it_omits(daemon: RunningDaemon, client: Client) -> None:
    """Of what is stored before and after it asks, small or large; others beside it get all."""
    values = [
        event(number) | {"messages": ["x" * size]} for number, size in enumerate((9, 1 << 20, 9, 1 << 20))
    ]
    without = [{key: item for key, item in value.items() if key != "messages"} for value in values]
    for value in values[:2]:
        client.store_event(value)
    assert [record["value"] for record in client.read_all(omit=["messages"])] == without[:2]
    fewer = Subscriber(daemon.endpoint, omit=["messages", "x.y"])
    whole = Subscriber(daemon.endpoint, job_id="j")
    eventually(lambda: client.stats()["reads"]["following"] == 2, "both wait")
    for value in values[2:]:
        client.store_event(value)
    for subscriber, expected in ((fewer, without), (whole, values)):
        eventually(lambda one=subscriber: len(one.records) == 4, "all have come")  # type: ignore[misc]
        assert [record["value"] for record in subscriber.records] == expected
        subscriber.stop()


def test_a_named_cursor_goes_on_where_it_was_committed(daemon: RunningDaemon, client: Client) -> None:
    """By hand, by itself, over a restart; the asyncio client too. Positions passed over count as done."""
    for number in range(9):
        client.store_event(event(number) | {"type": "rare" if number % 3 == 0 else "delta"})
    rare = [1, 4, 7]
    first = next(iter(client.follow(name="hand", types=["rare"])))
    assert (first["position"], first.get("cursor")) == (1, "hand")
    assert list(client.cursors()) == []
    client.commit(first)
    daemon.kill()
    daemon.start()
    again = client.follow(name="hand", types=["rare"], idle_s=0)
    assert [record["position"] for record in again] == rare[1:]
    assert [(one["name"], one["position"], one["lag"]) for one in client.cursors()] == [("hand", 1, 8)]
    itself = client.follow(name="itself", types=["rare"], idle_s=0, commit_every=0)
    assert [record["position"] for record in itself] == rare
    assert client.cursors(after="hand")[0]["position"] == 9
    assert list(client.follow(name="itself", idle_s=0)) == []
    with pytest.raises(Refused) as caught:
        client.set_cursor("itself", 3)
    assert (caught.value.code, caught.value.field) == ("CURSOR_BACK", "position")
    client.set_cursor("itself", 3, force=True)
    with pytest.raises(PositionGone):
        client.set_cursor("itself", 3, store="0" * 32)
    with pytest.raises(PositionGone):
        client.set_cursor("itself", 99)
    with pytest.raises(ValueError, match="name"):
        client.commit(client.read_all(limit=1)[0])
    assert client.stats()["cursors"] == {
        "count": 2, "maxLagRecords": 8, "lagRecords": {"hand": 8, "itself": 6},
    }  # fmt: skip

    async def read() -> list[int]:
        async with AsyncClient(daemon.endpoint) as asynchronous:
            found = []
            async for record in asynchronous.follow(name="later", after=5, idle_s=0):
                found.append(record["position"])
                await asynchronous.commit(record)
            await asynchronous.delete_cursor("itself")
            return found

    assert asyncio.run(read()) == [6, 7, 8, 9]
    assert [(one["name"], one["position"]) for one in client.cursors()] == [("hand", 1), ("later", 9)]


def test_a_daemon_without_filters_is_noticed() -> None:
    """It would ignore them, and send everything."""
    follow = Follow(Start(store="s"), {"types": ["x"]}, idle_s=None, timeout_s=30.0)
    op, arguments, _ = follow.request(0.0)
    assert op == "hello"
    read = Read(op, arguments, 30.0)
    read.sent(1, 0.0)
    read.answered(1, Answer({"id": 1, "ok": True}, b'{"store":"s","features":["omit"]}'), 0.0)
    with pytest.raises(ProtocolError, match="older"):
        follow.take(read)


def test_a_daemon_without_reads_as_of_a_position_is_noticed() -> None:
    """It would ignore the argument, and answer as of now."""
    for header, is_old in (({}, True), ({"asOf": 3}, False)):
        read = Read("retrieveJob", b'{"asOf":3}', 30.0)
        read.sent(1, 0.0)
        read.answered(1, Answer({"id": 1, "ok": True, **header}, b"null"), 0.0)
        with pytest.raises(ProtocolError, match="older") if is_old else nullcontext():
            assert as_asked(read, {"asOf": 3}) is read
        assert as_asked(read, {"asOf": None}) is read


def test_a_quiet_run_is_found_after_more_than_one_read_window(client: Client) -> None:
    with client.pipeline() as pipeline:
        for number in range(25_000):
            pipeline.store_event(event(number))
        pipeline.store_event(event(1, run="quiet"))
    assert [r["position"] for r in client.follow(job_id="j", run_id="quiet", idle_s=0)] == [25_001]
    assert sum(1 for _ in client.follow(idle_s=0)) == 25_001


def test_events_that_repeat_an_earlier_one_are_left_out(client: Client) -> None:
    for number in (1, 2, 1, 3):
        client.store_event(event(number))
    assert [r["position"] for r in client.follow(idle_s=0)] == [1, 2, 4]
    assert [r["position"] for r in client.follow(2, job_id="j", idle_s=0.1)] == [4]
