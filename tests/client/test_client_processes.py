"""A client in several threads, after a fork, closed, and at the end of its program."""

import os
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from perstack_storage import (
    Client,
    ClosedError,
)
from tests.client.fake_daemon import FakeDaemon
from tests.client.waiting import run_in_child, wait_until
from tests.helpers.values import anything


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
        thread.join(60)
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
