"""What fire and flush is about in the synchronous client alone: its pump, threads, forks, closing."""

import threading
import time

import pytest

from perstack_storage import Client, ClosedError, DaemonUnavailable, ProtocolError, StorageError
from tests.client.fake_daemon import FakeDaemon, Store
from tests.client.scripts import once, silence
from tests.client.waiting import run_in_child, wait_until
from tests.helpers.values import anything


def pumps() -> int:
    return sum(thread.name == "perstack-storage-pump" for thread in threading.enumerate())


def bodies(daemon: FakeDaemon) -> list[bytes]:
    return [body for _, body in daemon.store.records]


def test_no_thread_is_started_before_the_first_nowait(client: Client, endpoint: str) -> None:
    before = set(threading.enumerate())  # pumps of tests before may be about to end
    with FakeDaemon(endpoint):
        before |= set(threading.enumerate())
        client.store_event(anything({}))
        with client.pipeline() as pipeline:
            pipeline.store_event(anything({}))
        assert set(threading.enumerate()) <= before
        future = client.store_event_nowait(anything({}))
        wait_until(lambda: len(set(threading.enumerate()) - before) == 1)
        assert future.result(60)  # a daemon that ends before leaves its outcome unknown


def test_stores_go_on_while_the_thread_does_nothing(client: Client, endpoint: str) -> None:
    with FakeDaemon(endpoint) as daemon:
        futures = [client.store_event_nowait(anything({"n": number})) for number in range(3000)]
        wait_until(lambda: len(daemon.store.records) == 3000)
        assert [future.result(60) for future in futures] == list(range(1, 3001))


def test_a_future_can_not_be_cancelled(client: Client, endpoint: str) -> None:
    with FakeDaemon(endpoint):
        future = client.store_event_nowait(anything({}))
        assert not future.cancel()
        assert future.result(60) == 1


@pytest.mark.usefixtures("_quick_patience")
def test_a_lost_answer_is_fetched_again_by_the_pump(client: Client, endpoint: str) -> None:
    with FakeDaemon(endpoint, script=once("storeEvent", silence)) as daemon:
        assert client.store_event_nowait(anything({})).result(60) == 1
        assert len(daemon.store.records) == 1


def test_without_a_daemon_the_future_fails_in_time(endpoint: str) -> None:
    errors: list[StorageError] = []
    with Client(endpoint, timeout_s=0.2, on_error=errors.append) as client:
        start = time.monotonic()
        assert isinstance(client.store_event_nowait(anything({})).exception(60), DaemonUnavailable)
        assert 0.15 < time.monotonic() - start < 5
    assert len(errors) == 1


def test_what_was_given_up_by_the_pump_is_raised_by_the_pipeline_it_belonged_to(endpoint: str) -> None:
    with Client(endpoint, timeout_s=0.2, on_error=lambda error: None) as client:
        pipeline = client.pipeline()
        pipeline.store_event(anything({}))
        client.store_event_nowait(anything({})).exception(60)
        with pytest.raises(DaemonUnavailable):
            pipeline.flush()
        pipeline.flush()
        assert pipeline.positions == [None]


def test_reads_and_stores_work_while_much_is_outstanding(client: Client, endpoint: str) -> None:
    with FakeDaemon(endpoint) as daemon:
        for number in range(300):
            for _ in range(7):
                client.store_event_nowait(anything({"n": number}))
            client.ping()
            client.store_event(anything({"n": number}))
        client.flush()
        assert bodies(daemon) == [b'{"n":%d}' % number for number in range(300) for _ in range(8)]


def test_each_thread_has_its_order_and_flush_waits_for_all(client: Client, endpoint: str) -> None:
    def work(name: int) -> None:
        for number in range(300):
            client.store_event_nowait(anything({"thread": name, "n": number}))

    with FakeDaemon(endpoint) as daemon:
        threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        client.flush()
        found = bodies(daemon)
    for name in range(8):
        mine = [body for body in found if body.startswith(b'{"thread":%d,' % name)]
        assert mine == [b'{"thread":%d,"n":%d}' % (name, number) for number in range(300)]


def test_a_thread_that_ended_leaves_nothing_unstored_and_nothing_open(client: Client, endpoint: str) -> None:
    def work() -> None:
        futures.extend(client.store_event_nowait(anything({})) for _ in range(100))

    futures: list[object] = []
    before = pumps()
    daemon = FakeDaemon(endpoint)
    thread = threading.Thread(target=work)
    thread.start()  # before there is a daemon: all is outstanding when the thread ends
    thread.join()
    with daemon:
        client.flush()
        assert len(daemon.store.records) == 100
        wait_until(lambda: pumps() == before)


def test_a_daemon_that_comes_back_gets_what_was_outstanding(client: Client, endpoint: str) -> None:
    store = Store()
    first = FakeDaemon(endpoint, store).start()
    client.store_event(anything({"n": 0}))
    first.stop()
    futures = [client.store_event_nowait(anything({"n": number})) for number in range(1, 500)]
    with FakeDaemon(endpoint, store):
        client.flush()
    assert [future.result(0) for future in futures] == list(range(2, 501))
    assert [body for _, body in store.records] == [b'{"n":%d}' % number for number in range(500)]


def test_closing_ends_what_is_outstanding(endpoint: str) -> None:
    client = Client(endpoint)
    futures = [client.store_event_nowait(anything({})) for _ in range(10)]
    client.close()
    for future in futures:
        assert isinstance(future.exception(60), ClosedError)
    with pytest.raises(ClosedError):
        client.store_event_nowait(anything({}))
    wait_until(lambda: pumps() == 0)


def test_garbage_is_reported_by_the_pump(endpoint: str) -> None:
    errors: list[StorageError] = []
    daemon = FakeDaemon(endpoint, script=lambda header, body: [b"HTTP/1.1 400"])
    with daemon, Client(endpoint, timeout_s=2, on_error=errors.append) as client:
        assert client.store_event_nowait(anything({})).exception(60) is not None
    assert any(isinstance(error, ProtocolError) for error in errors)


def test_callbacks_of_futures_may_use_the_client(client: Client, endpoint: str) -> None:
    answers: list[int] = []

    with FakeDaemon(endpoint):
        for _ in range(20):
            future = client.store_event_nowait(anything({}))
            future.add_done_callback(
                lambda done: answers.append(client.store_event(anything({"after": done.result()})))
            )
        client.flush()
        wait_until(lambda: len(answers) == 20)
    assert sorted(answers) == sorted(set(answers))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_no_part_in_what_is_outstanding(endpoint: str) -> None:
    def work() -> None:
        client.flush()
        assert client.store_event_nowait(anything({"in": "child"})).result(60)
        client.flush()
        client.close()

    store = Store()
    with Client(endpoint, timeout_s=10) as client:
        for _ in range(100):
            client.store_event_nowait(anything({"in": "parent"}))
        daemon = FakeDaemon(endpoint, store)
        starter = threading.Timer(0.1, daemon.start)
        starter.start()
        assert run_in_child(work)
        client.flush()
        starter.join()
    daemon.stop()
    found = [body for _, body in store.records]
    assert found.count(b'{"in":"parent"}') == 100
    assert found.count(b'{"in":"child"}') == 1


def test_an_idle_pump_takes_no_processor_time(client: Client, endpoint: str) -> None:
    with FakeDaemon(endpoint):
        client.store_event_nowait(anything({}))
        client.flush()
        start = time.process_time()
        threading.Event().wait(0.3)
        assert time.process_time() - start < 0.05
