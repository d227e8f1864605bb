"""The client against a small daemon in a thread that speaks wire.md, well or badly as the test asks."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from perstack_storage import (
    CheckpointNotFound,
    Client,
    ClosedError,
    DaemonUnavailable,
    OutcomeUnknown,
    ProtocolError,
    Refused,
)
from tests.client.fake_daemon import FakeDaemon, Script, Store, failure, frame
from tests.helpers.values import anything


def wait_until(condition: Callable[[], object], timeout_s: float = 5) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.002)


def once(op: str, answers: Callable[[dict[str, Any]], list[bytes]]) -> Script:
    """A script that misbehaves at the first request of an operation."""
    done = False

    def script(header: dict[str, Any], body: bytes) -> list[bytes] | None:
        nonlocal done
        if done or header["op"] != op:
            return None
        done = True
        return answers(header)

    return script


def refuse(error: dict[str, Any]) -> Callable[[dict[str, Any]], list[bytes]]:
    return lambda header: [frame({"id": header["id"], "ok": False, "error": error})]


def silence(header: dict[str, Any]) -> list[bytes]:
    return []


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
    assert 9000 < read["timeoutMs"] <= 10_000


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


def test_a_value_of_40_mib_travels_in_parts_and_comes_back_in_pieces(client: Client, endpoint: str) -> None:
    event = anything({"text": "x" * 41_943_040})
    with FakeDaemon(endpoint) as daemon:
        assert client.store_event(event) == 1
        assert client.store_event(anything({})) == 2
        assert dict(client.get_event_contents("j", "r")[0]) == event
    stores = [h for h in daemon.requests if h["op"] == "storeEvent"]
    assert [h.get("part") for h in stores] == [*range(11), None]
    assert sum(h["op"] == "readPart" for h in daemon.requests) == 10


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
    with FakeDaemon(endpoint, script=script) as daemon, Client(endpoint, timeout_s=0.3) as client:
        with pytest.raises(OutcomeUnknown, match="unknown"):
            client.store_event(anything({}))
        assert client.store_event(anything({})) == 1
        last = daemon.requests[-1]
        assert (last["seq"], last["settled"]) == (2, 1)


def test_a_store_that_was_refused_for_now_until_the_end_is_refused(endpoint: str) -> None:
    def script(header: dict[str, Any], body: bytes) -> list[bytes] | None:
        error = failure("STORAGE_FULL", retryable=True, retryAfterMs=1000)
        return refuse(error)(header) if header["op"] == "storeEvent" else None

    with FakeDaemon(endpoint, script=script), Client(endpoint, timeout_s=0.3) as client:
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


def test_each_thread_has_a_session_and_an_order_of_its_own(client: Client, endpoint: str) -> None:
    def work(name: int) -> None:
        for number in range(50):
            client.store_event(anything({"thread": name, "n": number}))

    with FakeDaemon(endpoint) as daemon:
        threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for name in range(8):
        mine = [body for _, body in daemon.store.records if body.startswith(b'{"thread":%d,' % name)]
        assert mine == [b'{"thread":%d,"n":%d}' % (name, number) for number in range(50)]
    assert len(daemon.store.last) == 8


def test_a_pipeline_is_refused_in_another_thread(client: Client, endpoint: str) -> None:
    errors: list[BaseException] = []

    def work() -> None:
        try:
            pipeline.store_event(anything({}))
        except ClosedError as error:
            errors.append(error)

    with FakeDaemon(endpoint), client.pipeline() as pipeline:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert "thread" in str(errors[0])


def run_in_child(work: Callable[[], object]) -> bool:
    """Whether `work` returned without an error in a forked child."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    status: list[int] = []

    def ended() -> bool:
        found, code = os.waitpid(pid, os.WNOHANG)
        if found:
            status.append(code)
        return bool(found)

    wait_until(ended)
    return os.waitstatus_to_exitcode(status[0]) == 0


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_a_fork_both_go_on_with_sessions_of_their_own(client: Client, endpoint: str) -> None:
    def work() -> None:
        client.store_event(anything({"in": "child"}))
        client.close()

    with FakeDaemon(endpoint) as daemon:
        assert client.store_event(anything({"in": "parent"})) == 1
        assert run_in_child(work)
        assert client.store_event(anything({"in": "parent"})) == 3
        assert len(daemon.store.last) == 2


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_pipeline_of_the_parent_is_refused_in_the_child(client: Client, endpoint: str) -> None:
    def work() -> None:
        with pytest.raises(ClosedError):
            pipeline.store_event(anything({}))

    with FakeDaemon(endpoint), client.pipeline() as pipeline:
        pipeline.store_event(anything({}))
        assert run_in_child(work)


def test_waiting_for_an_answer_takes_no_processor_time(client: Client, endpoint: str) -> None:
    def script(header: dict[str, Any], body: bytes) -> None:
        if header["op"] == "storeEvent":
            time.sleep(0.3)

    with FakeDaemon(endpoint, script=script):
        start = time.thread_time()
        client.store_event(anything({}))
        assert time.thread_time() - start < 0.1


def test_a_closed_client_refuses_calls(client: Client, endpoint: str) -> None:
    with FakeDaemon(endpoint):
        pipeline = client.pipeline()
        client.store_event(anything({}))
        client.close()
        client.close()
        for call in (lambda: client.store_event(anything({})), client.ping, client.pipeline, pipeline.flush):
            with pytest.raises(ClosedError):
                call()


def test_closing_ends_a_call_that_waits_in_another_thread(endpoint: str) -> None:
    errors: list[BaseException] = []
    client = Client(endpoint, timeout_s=30)

    def work() -> None:
        try:
            client.ping()
        except ClosedError as error:
            errors.append(error)

    with FakeDaemon(endpoint, script=lambda header, body: []) as daemon:
        thread = threading.Thread(target=work)
        thread.start()
        wait_until(lambda: daemon.requests)
        client.close()
        thread.join(5)
    assert len(errors) == 1


def test_a_thread_that_ends_leaves_no_socket_open(client: Client, endpoint: str) -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    with FakeDaemon(endpoint):
        client.store_event(anything({}))
        before = open_files()
        for _ in range(10):
            thread = threading.Thread(target=client.store_event, args=({},))
            thread.start()
            thread.join()
        wait_until(lambda: open_files() <= before + 1)


def test_a_program_that_closes_nothing_ends_all_the_same(endpoint: str) -> None:
    program = (
        "import os, sys, perstack_storage\n"
        "client = perstack_storage.Client(sys.argv[1])\n"
        "client.store_event({})\n"
        "nobody = perstack_storage.Client(sys.argv[1] + 'x', timeout_s=0.1)\n"
        "try:\n    nobody.store_event({})\n"
        "except perstack_storage.DaemonUnavailable:\n    pass\n"
        "if os.fork() == 0:\n    client.store_event({})\n"
    )
    with FakeDaemon(endpoint) as daemon:
        subprocess.run([sys.executable, "-c", program, endpoint], check=True, timeout=120)
        wait_until(lambda: len(daemon.store.records) == 2)
