"""Following the store: the state machine alone, then real daemons, restarts, many subscribers."""

import asyncio
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from perstack_storage import (
    AsyncClient,
    Client,
    ClosedError,
    DaemonUnavailable,
    PositionGone,
    ProtocolError,
    Record,
    Refused,
    StorageError,
)
from perstack_storage._core.answers import as_asked
from perstack_storage._core.epochs import SeenEpochs, spans_of
from perstack_storage._core.follow import WAIT_MAX_S, Commits, Follow, Start
from perstack_storage._core.frames import Answer
from perstack_storage._core.reads import Read
from tests.helpers.daemon import RunningDaemon, eventually, running_daemon
from tests.helpers.replay import METHODS, calls_of

SUBSCRIBERS = 50


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    with running_daemon(tmp_path / "perstack") as running:
        yield running


@pytest.fixture
def client(daemon: RunningDaemon) -> Iterator[Client]:
    with Client(daemon.endpoint, timeout_s=20) as client:
        yield client


@pytest.fixture
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that was killed is missed after 1.3 s instead of 3 s."""
    monkeypatch.setattr("perstack_storage._core.follow.WAIT_MAX_S", 0.3)


def job(name: str) -> dict[str, Any]:
    tokens = ("inputTokens", "outputTokens", "reasoningTokens", "totalTokens", "cachedInputTokens")
    usage = dict.fromkeys(tokens, 0)
    value = {"id": name, "status": "running", "coordinatorExpertKey": "k", "totalSteps": 0, "startedAt": 1}
    return value | {"usage": usage}


def event(number: int, job: str = "j", run: str = "r") -> dict[str, Any]:
    return {
        "type": "t",
        "id": f"e{number}",
        "expertKey": "k",
        "timestamp": number,
        "jobId": job,
        "runId": run,
        "stepNumber": number,
    }


class Subscriber:
    """A thread that follows with a client of its own, and what it got."""

    def __init__(self, endpoint: str, **arguments: Any) -> None:
        self.records: list[Record] = []
        self.arrived: list[float] = []
        self.error: Exception | None = None
        self._client = Client(endpoint, timeout_s=20)
        self._iterator = self._client.follow(**arguments)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            for record in self._iterator:
                self.records.append(record)
                self.arrived.append(time.monotonic())
        except StorageError as error:
            self.error = error

    def join(self, timeout_s: float = 20.0) -> None:
        self._thread.join(timeout_s)
        assert not self._thread.is_alive()

    def stop(self) -> None:
        self._client.close()
        self.join()
        assert self.error is None

    @property
    def positions(self) -> list[int]:
        return [record["position"] for record in self.records]


# --- the state machine -----------------------------------------------------------------------------


def follow_of(**arguments: Any) -> Follow:
    given: dict[str, Any] = {"idle_s": None, "timeout_s": 30.0} | arguments
    start = Start(given.pop("after", 0), given.pop("store", "s"), given.pop("epoch", None))
    filters = {"jobId": given.pop("job_id", None), "runId": given.pop("run_id", None)}
    return Follow(start, filters, **given)


def answered(follow: Follow, now: float, records: list[int], upto: int, position: int) -> dict[str, Any]:
    """One request, answered with records at these positions; returns its arguments."""
    op, arguments, wait_s = follow.request(now)
    read = Read(op, arguments, now + 30, wait_s=wait_s)
    read.sent(1, now)
    body = json.dumps([{"position": n} for n in records]).encode()
    read.answered(1, Answer({"id": 1, "ok": True, "position": position, "next": upto}, body), now)
    assert [record["position"] for record in follow.take(read)] == records
    asked: dict[str, Any] = json.loads(arguments)
    return asked


def test_it_asks_for_the_history_first_and_names_it_then() -> None:
    follow = follow_of(store=None, after=7, job_id="j")
    op, arguments, wait_s = follow.request(0.0)
    assert (op, arguments, wait_s) == ("hello", b"", 0.0)
    read = Read(op, arguments, 30.0)
    read.sent(1, 0.0)
    read.answered(1, Answer({"id": 1, "ok": True}, b'{"store":"abc"}'), 0.0)
    assert follow.take(read) == []
    op, arguments, wait_s = follow.request(0.0)
    assert (op, wait_s) == ("readAll", WAIT_MAX_S)
    assert json.loads(arguments) == {"after": 7, "waitMs": 2000, "store": "abc", "jobId": "j"}


def test_it_goes_on_from_next_and_never_ends_without_idle() -> None:
    follow = follow_of()
    assert answered(follow, 0.0, [1, 2], 2, 9)["after"] == 0
    assert answered(follow, 0.0, [], 9, 9)["after"] == 2
    assert answered(follow, 1e6, [], 9, 9)["after"] == 9
    assert not follow.done


def test_idle_counts_from_when_the_caller_asks_again_and_ends_with_a_look_that_does_not_wait() -> None:
    follow = follow_of(idle_s=3.0)
    assert answered(follow, 0.0, [1], 1, 1)["waitMs"] == 2000
    # The caller took 100 s over the record: that is no silence.
    assert answered(follow, 100.0, [], 1, 1)["waitMs"] == 2000
    assert answered(follow, 102.0, [], 1, 1)["waitMs"] == 1000
    assert not follow.done
    assert answered(follow, 103.0, [], 4, 8)["waitMs"] == 0
    assert not follow.done  # what was looked at ends before what is stored
    assert answered(follow, 103.0, [], 8, 8)["waitMs"] == 0
    assert follow.done


def test_with_a_short_timeout_it_waits_for_a_part_of_it_only() -> None:
    assert json.loads(follow_of(timeout_s=1.0).request(0.0)[1])["waitMs"] == 250


@pytest.mark.parametrize(("code", "kind"), [("POSITION_GONE", PositionGone), ("DAMAGED", Refused)])
def test_a_refusal_is_raised_by_its_name(code: str, kind: type[Refused]) -> None:
    follow = follow_of()
    op, arguments, _ = follow.request(0.0)
    read = Read(op, arguments, 30.0)
    read.sent(1, 0.0)
    read.answered(1, Answer({"id": 1, "ok": False, "error": {"code": code, "message": "m"}}, b""), 0.0)
    with pytest.raises(Refused) as caught:
        follow.take(read)
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    "arguments", [{"run_id": "r"}, {"idle_s": -1.0}, {"idle_s": float("nan")}, {"last": 1, "after": 1}]
)
def test_arguments_that_make_no_sense_are_refused_at_once(client: Client, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must|needs|place"):
        client.follow(**arguments)


# --- real daemons ----------------------------------------------------------------------------------


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
    eventually(lambda: all(f.error or f.positions[-1:] == [2002] for f in subscribers), "all have it", 30)
    for number, subscriber in enumerate(subscribers):
        subscriber.stop()
        assert subscriber.positions == positions[number % 3 :]


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


def test_a_cursor_is_set_by_itself_as_often_as_asked_for() -> None:
    """To the record that the caller has asked beyond, and at the end to what was passed over as well."""
    follow = follow_of()
    follow.name = "c"
    commits = Commits(follow, 10.0)
    assert commits.due(0.0) is None
    answered(follow, 0.0, [1, 2], 5, 9)
    commits.note_record({"position": 1, "time": 0, "op": "storeJob", "value": {}})
    assert commits.due(11.0) == {"name": "c", "position": 1, "store": "s", "epoch": None}
    commits.note_all()
    assert commits.due(12.0) is None
    assert (commits.due(22.0) or {})["position"] == 5
    commits.note_all()
    assert commits.due(99.0) is None
    with pytest.raises(ValueError, match="name"):
        Commits(follow_of(), 1.0)


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


def test_events_that_repeat_an_earlier_one_are_left_out(client: Client) -> None:
    for number in (1, 2, 1, 3):
        client.store_event(event(number))
    assert [r["position"] for r in client.follow(idle_s=0)] == [1, 2, 4]
    assert [r["position"] for r in client.follow(2, job_id="j", idle_s=0.1)] == [4]


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


# --- asyncio -----------------------------------------------------------------------------------------


async def _collect(client: AsyncClient, **arguments: Any) -> list[int]:
    return [record["position"] async for record in client.follow(**arguments)]


@pytest.mark.usefixtures("_short_waits")
def test_tasks_follow_over_one_connection_while_others_store(daemon: RunningDaemon) -> None:
    """Fifty of them, half of a run where nothing happens; with a kill -9 in between."""

    async def run() -> None:
        async with AsyncClient(daemon.endpoint, timeout_s=20) as client:
            busy = [asyncio.create_task(_collect(client, idle_s=3)) for _ in range(SUBSCRIBERS // 2)]
            quiet = [
                asyncio.create_task(_collect(client, job_id="j", run_id=f"q{n}", idle_s=3))
                for n in range(SUBSCRIBERS // 2)
            ]
            stored = [await client.store_event(event(number)) for number in range(100)]
            daemon.kill()
            await asyncio.to_thread(daemon.start)
            stored += [await client.store_event(event(number)) for number in range(100, 200)]
            assert await asyncio.gather(*busy) == [stored] * len(busy)
            assert await asyncio.gather(*quiet) == [[]] * len(quiet)

    asyncio.run(run())


def test_a_task_that_follows_can_be_cancelled_or_leave(daemon: RunningDaemon) -> None:
    async def run() -> None:
        async with AsyncClient(daemon.endpoint, timeout_s=20) as client:
            task = asyncio.create_task(_collect(client))
            while (await client.stats())["reads"]["following"] == 0:
                pass
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await client.store_event(event(1))
            async for record in client.follow():
                assert record["position"] == 1
                break
            with pytest.raises(PositionGone):
                await _collect(client, after=2)
            assert await client.ping() < 5
            task = asyncio.create_task(_collect(client, after=1))
            while (await client.stats())["reads"]["following"] == 0:
                pass
        assert await task == []  # closing the client ends it

    asyncio.run(run())


# --- a history that is gone ------------------------------------------------------------------------


def test_a_position_that_cannot_be_is_refused(client: Client) -> None:
    client.store_event(event(1))
    with pytest.raises(PositionGone) as caught:
        next(client.follow(2))
    assert (caught.value.code, caught.value.retryable) == ("POSITION_GONE", False)
    with pytest.raises(PositionGone):
        client.read_all(after=2)
    assert client.read_all(after=1) == []
    store = client.hello()["store"]
    assert len(list(client.follow(store=store, idle_s=0))) == 1
    with pytest.raises(PositionGone):
        next(client.follow(store="0" * 32, idle_s=0))


def _another_history(daemon: RunningDaemon, base: Path) -> None:
    shutil.rmtree(base)


def _older_copy(daemon: RunningDaemon, base: Path) -> None:
    shutil.rmtree(base)
    shutil.copytree(base.parent / "copy", base, symlinks=True)


def _older_copy_that_went_on(daemon: RunningDaemon, base: Path) -> None:
    with running_daemon(base.parent / "copy") as other, Client(other.endpoint, timeout_s=20) as client:
        for number in range(10, 14):
            client.store_event(event(number))
        assert other.stop() == 0
    _older_copy(daemon, base)


@pytest.mark.usefixtures("_short_waits")
@pytest.mark.parametrize("lose", [_another_history, _older_copy, _older_copy_that_went_on])
def test_a_subscriber_learns_that_the_history_changed(
    tmp_path: Path, lose: Callable[[RunningDaemon, Path], None]
) -> None:
    base = tmp_path / "perstack"
    with running_daemon(base) as daemon, Client(daemon.endpoint, timeout_s=20) as client:
        client.store_event(event(1))
        daemon.stop()
        shutil.copytree(base, tmp_path / "copy", symlinks=True)
        daemon.start()
        client.store_event(event(2))
        subscriber = Subscriber(daemon.endpoint)
        eventually(lambda: subscriber.positions == [1, 2], "it is up to date")
        daemon.stop()
        lose(daemon, base)
        daemon.start()
        subscriber.join()
    assert isinstance(subscriber.error, PositionGone)
    assert subscriber.positions == [1, 2]


@pytest.fixture
def two_continuations(tmp_path: Path) -> Iterator[tuple[RunningDaemon, RunningDaemon]]:
    """A daemon that has two records, and one on a copy of its base of when there was one; that has four."""
    with running_daemon(tmp_path / "perstack") as original, Client(original.endpoint, timeout_s=20) as client:
        client.store_event(event(1))
        original.kill()
        shutil.copytree(original.base, tmp_path / "copy", ignore=shutil.ignore_patterns("*.sock"))
        original.start()
        client.store_event(event(2))
        with running_daemon(tmp_path / "copy") as copy, Client(copy.endpoint, timeout_s=20) as client_of_copy:
            for number in range(10, 13):
                client_of_copy.store_event(event(number))
            yield original, copy


def test_a_position_of_another_continuation_is_refused_by_its_epoch(
    two_continuations: tuple[RunningDaemon, RunningDaemon],
) -> None:
    """A position from before the copy continues in both; one from after it only where it was read."""
    original, copy = two_continuations
    with Client(original.endpoint, timeout_s=20) as client, Client(copy.endpoint, timeout_s=20) as other:
        store = client.hello()["store"]
        assert other.hello()["store"] == store
        assert other.hello()["epoch"] != client.hello()["epoch"]
        first, second = client.read_all()
        assert first["epoch"] != second["epoch"] == client.hello()["epoch"]
        of_copy = list(other.follow(first["position"], epoch=first["epoch"], store=store, idle_s=0))
        assert [record["position"] for record in of_copy] == [2, 3, 4]
        after, epoch = second["position"], second["epoch"]
        assert list(client.follow(after, epoch=epoch, store=store, idle_s=0)) == []
        assert client.read_all(after, epoch=epoch) == []
        with Client(copy.endpoint, timeout_s=20) as fresh:
            with pytest.raises(PositionGone) as caught:
                next(fresh.follow(after, epoch=epoch, store=store, idle_s=0))
            assert caught.value.field == "epoch"
            with pytest.raises(PositionGone):
                fresh.read_all(after, epoch=epoch)

        async def asynchronous() -> None:
            async with AsyncClient(copy.endpoint, timeout_s=20) as another:
                with pytest.raises(PositionGone):
                    await another.read_all(after, epoch=epoch)
                with pytest.raises(PositionGone):
                    await anext(another.follow(after, epoch=epoch, idle_s=0))

        asyncio.run(asynchronous())


def test_a_client_remembers_the_epochs_that_it_saw(
    two_continuations: tuple[RunningDaemon, RunningDaemon],
) -> None:
    """The same client learns that a copy was put back, though its program keeps positions only."""
    original, copy = two_continuations
    with Client(original.endpoint, timeout_s=20) as client:
        store = client.hello()["store"]
        assert [record["position"] for record in client.follow(store=store, idle_s=0)] == [1, 2]
        original.stop()
        copy.stop()
        shutil.rmtree(original.base)
        shutil.copytree(copy.base, original.base, symlinks=True)
        original.start()
        with pytest.raises(PositionGone):
            next(client.follow(2, store=store, idle_s=0))
        with pytest.raises(PositionGone):
            client.read_all(after=2)
        assert [record["position"] for record in client.follow(store=store, idle_s=0)] == [1, 2, 3, 4]
        assert [record["position"] for record in client.follow(2, store=store, idle_s=0)] == [3, 4]


def test_a_session_goes_on_in_a_base_that_was_put_back(tmp_path: Path) -> None:
    """What was acknowledged and is gone is not stored again; what comes later is, and once."""
    base, copy = tmp_path / "perstack", tmp_path / "copy"
    with running_daemon(base) as daemon, Client(daemon.endpoint, timeout_s=20) as client:
        client.store_event(event(1))
        daemon.stop()
        shutil.copytree(base, copy, symlinks=True)
        daemon.start()
        assert client.store_event(event(2)) == 2
        daemon.stop()
        shutil.rmtree(base)
        copy.rename(base)
        future = client.store_event_nowait(event(3))
        daemon.start()
        assert future.result(20) == 2
        assert client.store_event(event(4)) == 3
        assert [r["value"]["stepNumber"] for r in client.follow(idle_s=0)] == [1, 3, 4]


def test_seen_epochs_are_those_of_the_last_answer() -> None:
    """A later answer counts more, and what stood behind in another history is forgotten."""
    seen = SeenEpochs()
    seen.note(spans_of(0, 10, "b", [[1, "a"], [6, "b"]]))
    assert [seen.at(position) for position in (0, 1, 5, 6, 10, 11)] == [None, "a", "a", "b", "b", None]
    seen.note(spans_of(2, 8, "c", [[3, "a"], [4, "c"]]))
    assert [seen.at(position) for position in (3, 4, 8, 9)] == ["a", "c", "c", None]
    seen.note(spans_of(0, 20, "c", [[1, "a"], [4, "c"]]))
    assert [seen.at(position) for position in (3, 4, 20)] == ["a", "c", "c"]
    for n in range(5000):
        seen.note([(n, n, f"e{n}")])
    assert seen.at(4999) == "e4999"
    assert seen.at(0) is None
    assert spans_of(5, 5, "a", None) == []
    assert spans_of(5, 6, None, None) == [(6, 6, None)]
    for wrong in (5, [5], [[1, "a", 2]], [["x", "a"]]):
        with pytest.raises(ProtocolError):
            spans_of(0, 9, "a", wrong)
