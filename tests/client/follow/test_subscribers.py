"""Subscribers of a real daemon: restarts, many at a time, what waiting costs, and how one ends."""

import time
from pathlib import Path

import pytest

from perstack_storage import Client, ClosedError, DaemonUnavailable
from tests.client.follow.subscriber import SUBSCRIBERS, Subscriber, event
from tests.helpers.daemon import RunningDaemon, eventually
from tests.helpers.replay import METHODS, calls_of


@pytest.mark.usefixtures("_short_waits")
def test_each_record_comes_once_and_in_order_over_two_restarts(daemon: RunningDaemon, client: Client) -> None:
    """A subscriber that starts in the middle of a replay of run b, with a kill -9 and a stop in between."""
    calls = calls_of("b", "job")
    stored: list[int] = []
    subscriber: Subscriber | None = None

    def restart(number: int) -> None:
        if number == len(calls) // 2:
            daemon.kill()
            daemon.start()
        elif number == len(calls) * 3 // 4:
            assert daemon.stop() == 0
            daemon.start()

    for number, (op, value) in enumerate(calls):
        if number == len(calls) // 4:
            subscriber = Subscriber(daemon.endpoint)
        restart(number)
        stored.append(getattr(client, METHODS[op])(value))
    assert subscriber is not None
    eventually(lambda: len(subscriber.records) >= len(calls), "everything has come")
    subscriber.stop()
    assert subscriber.positions == stored
    assert [(record["op"], record["value"]) for record in subscriber.records] == calls


def test_a_restart_while_all_is_quiet_is_ridden_out(daemon: RunningDaemon, client: Client) -> None:
    subscriber = Subscriber(daemon.endpoint)
    eventually(lambda: client.stats()["reads"]["following"] == 1, "it waits")
    daemon.kill()
    daemon.start()
    client.store_event(event(1))
    eventually(lambda: subscriber.positions == [1], "it goes on")
    subscriber.stop()


def test_fifty_subscribers_get_everything_while_it_is_stored(daemon: RunningDaemon, client: Client) -> None:
    positions = [client.store_event(event(number)) for number in (9_998, 9_999)]
    subscribers = [Subscriber(daemon.endpoint, after=n % 3) for n in range(SUBSCRIBERS)]
    for start in range(0, 2000, 100):
        with client.pipeline() as pipeline:
            for number in range(start, start + 100):
                pipeline.store_event(event(number))
        positions += [position for position in pipeline.positions if position is not None]
    eventually(lambda: all(f.error or f.positions[-1:] == [2002] for f in subscribers), "all have it")
    for number, subscriber in enumerate(subscribers):
        subscriber.stop()
        assert subscriber.positions == positions[number % 3 :]


@pytest.mark.alone  # it measures time
def test_a_record_comes_soon_after_it_was_acknowledged(daemon: RunningDaemon, client: Client) -> None:
    """The median is some milliseconds; the bound leaves room for a busy machine."""
    subscriber = Subscriber(daemon.endpoint)
    delays = []
    for number in range(30):
        client.store_event(event(number))
        acknowledged = time.monotonic()
        eventually(lambda count=number + 1: len(subscriber.records) == count, "it has come")  # type: ignore[misc]
        delays.append(subscriber.arrived[-1] - acknowledged)
    subscriber.stop()
    assert sorted(delays)[15] < 0.1


@pytest.mark.alone  # it measures time
def test_many_that_wait_delay_nobody(daemon: RunningDaemon, client: Client) -> None:
    """One hundred waits, half of them for runs where nothing happens, while pings and stores go on."""
    client.store_event(event(0))
    endpoint = daemon.endpoint
    quiet = [Subscriber(endpoint, job_id="j", run_id=f"quiet-{n}") for n in range(SUBSCRIBERS)]
    idle = [Subscriber(endpoint, after=1, job_id="none") for _ in range(SUBSCRIBERS)]
    eventually(lambda: client.stats()["reads"]["following"] == 2 * SUBSCRIBERS, "all wait")
    pings = sorted(client.ping() for _ in range(500))
    assert pings[int(len(pings) * 0.99)] < 0.1
    with client.pipeline() as pipeline:
        for number in range(1, 3001):
            pipeline.store_event(event(number))
    assert client.ping() < 1
    for subscriber in quiet + idle:
        subscriber.stop()
        assert subscriber.records == []
    assert client.stats()["reads"]["failed"] == 0


def test_waiting_costs_the_daemon_next_to_nothing(daemon: RunningDaemon, client: Client) -> None:
    subscribers = [Subscriber(daemon.endpoint) for _ in range(SUBSCRIBERS)]
    eventually(lambda: client.stats()["reads"]["following"] == SUBSCRIBERS, "all wait")
    before, start = _cpu_seconds(daemon.pid), time.monotonic()
    # A silence can only be watched for a while: until every one of them has asked again.
    messages = client.stats()["messages"]
    eventually(lambda: client.stats()["messages"] > messages + 2 * SUBSCRIBERS, "they ask again")
    share = (_cpu_seconds(daemon.pid) - before) / (time.monotonic() - start)
    for subscriber in subscribers:
        subscriber.stop()
    assert share < 0.3  # the questions of this test included


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def test_a_new_record_wakes_the_subscriber_of_its_run_only(daemon: RunningDaemon, client: Client) -> None:
    mine, other = (Subscriber(daemon.endpoint, job_id="j", run_id=run) for run in ("r1", "r2"))
    eventually(lambda: client.stats()["reads"]["following"] == 2, "both wait")
    client.store_event(event(1, run="r1"))
    eventually(lambda: len(mine.records) == 1, "it has come")
    client.store_event(event(2, run="r2"))
    eventually(lambda: len(other.records) == 1, "it has come")
    for subscriber in (mine, other):
        subscriber.stop()
    assert (mine.positions, other.positions) == ([1], [2])


def test_a_large_record_comes_in_parts(daemon: RunningDaemon, client: Client) -> None:
    subscriber = Subscriber(daemon.endpoint, job_id="j")
    large = event(1) | {"text": "x" * 9_000_000}
    client.store_event(large)
    client.store_event(event(2))
    eventually(lambda: subscriber.positions == [1, 2], "both have come")
    subscriber.stop()
    assert subscriber.records[0]["value"] == large


def test_breaking_off_and_going_on_leaves_nothing_out(client: Client) -> None:
    for number in range(10):
        client.store_event(event(number))
    first = []
    for record in client.follow():
        first.append(record["position"])
        if len(first) == 4:
            break
    assert client.ping() < 5  # the client is free for other calls
    assert first + [r["position"] for r in client.follow(first[-1], idle_s=0)] == list(range(1, 11))


def test_the_client_can_be_used_while_it_follows(client: Client) -> None:
    """Each record that comes stores the next one."""
    client.store_event(event(1))
    for record in client.follow():
        if record["position"] == 5:
            break
        client.store_event(event(record["position"] + 1))
    assert len(client.get_event_contents("j", "r")) == 5


def test_closing_the_client_ends_it(daemon: RunningDaemon, client: Client) -> None:
    subscriber = Subscriber(daemon.endpoint)
    eventually(lambda: client.stats()["reads"]["following"] == 1, "it waits")
    subscriber.stop()
    with Client(daemon.endpoint) as other:
        pass
    with pytest.raises(ClosedError):
        next(other.follow())


def test_without_a_daemon_it_says_so(tmp_path: Path) -> None:
    with Client(f"ipc://{tmp_path}/none.sock", timeout_s=0.2) as client, pytest.raises(DaemonUnavailable):
        next(client.follow())
