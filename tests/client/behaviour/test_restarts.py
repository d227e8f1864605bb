"""The daemon goes away, comes back, or is silent: nothing is lost or doubled, and waits end in time."""

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from perstack_storage import Client, DaemonUnavailable, OutcomeUnknown
from tests.client.behaviour.conftest import OpenClient
from tests.client.behaviour.test_without_waiting import numbers_of, position_of
from tests.client.behaviour.values import event
from tests.helpers import signals
from tests.helpers.daemon import RunningDaemon, eventually


@contextmanager
def killed_again_and_again(daemon: RunningDaemon, times: int) -> Iterator[None]:
    """SIGKILL and a new start, each when some more was stored."""

    def work() -> None:
        choose = random.Random(7)
        with Client(daemon.endpoint) as watcher:
            for _ in range(times):
                wanted = position_of(watcher) + choose.randrange(1, 300)
                eventually(lambda wanted=wanted: position_of(watcher) >= wanted or ended.is_set(), "more")  # type: ignore[misc]
                daemon.kill()
                daemon.start()

    ended = threading.Event()
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_plain_stores_ride_out_kills(daemon: RunningDaemon, open_client: OpenClient, job_id: str) -> None:
    client = open_client(daemon)
    with killed_again_and_again(daemon, 1):
        for number in range(1000):
            client.store_event(event(job_id, number))
    assert position_of(client) == 1000
    assert numbers_of(client, job_id) == list(range(1000))


def test_a_pipeline_rides_out_kills(
    daemon: RunningDaemon, open_python_client: OpenClient, job_id: str
) -> None:
    client = open_python_client(daemon)
    with killed_again_and_again(daemon, 1), client.pipeline() as pipeline:
        for number in range(4000):
            pipeline.store_event(event(job_id, number))
    assert pipeline.positions == list(range(1, 4001))
    assert numbers_of(client, job_id) == list(range(4000))


def test_fire_and_flush_rides_out_kills(daemon: RunningDaemon, open_client: OpenClient, job_id: str) -> None:
    client = open_client(daemon)
    futures = []
    with killed_again_and_again(daemon, 1):
        for start in range(0, 4000, 500):
            futures += [client.store_event_nowait(event(job_id, n)) for n in range(start, start + 500)]
            client.flush()
    assert [future.result(60) for future in futures] == list(range(1, 4001))
    assert numbers_of(client, job_id) == list(range(4000))


def test_a_large_event_rides_out_a_kill(daemon: RunningDaemon, open_client: OpenClient, job_id: str) -> None:
    client = open_client(daemon)
    client.store_event(event(job_id, 0))
    large = client.store_event_nowait(event(job_id, 1, text="x" * (20 << 20)))
    client.store_event_nowait(event(job_id, 2))
    daemon.kill()
    daemon.start()
    assert large.result(60) == 2
    client.flush()
    assert numbers_of(client, job_id) == [0, 1, 2]


def test_a_read_rides_out_a_restart(daemon: RunningDaemon, open_client: OpenClient, job_id: str) -> None:
    client = open_client(daemon)
    client.store_event(event(job_id, 1))
    daemon.kill()
    starter = threading.Thread(target=daemon.start)
    starter.start()
    assert numbers_of(client, job_id) == [1]
    starter.join()


def test_without_a_daemon_a_call_ends_in_time_and_says_what_to_do(
    daemon: RunningDaemon, open_client: OpenClient, job_id: str
) -> None:
    daemon.kill()
    client = open_client(daemon, timeout_s=0.2)
    for call in (lambda: client.store_event(event(job_id, 1)), lambda: client.retrieve_job("j"), client.ping):
        start = time.monotonic()
        with pytest.raises(DaemonUnavailable, match="perstack-stored serve"):
            call()
        assert 0.15 < time.monotonic() - start < 10  # far less than the 30 s that are usual


def test_a_silent_daemon_leaves_the_outcome_unknown_and_the_store_never_comes_late(
    daemon: RunningDaemon, open_client: OpenClient, job_id: str
) -> None:
    client = open_client(daemon, timeout_s=4)
    client.store_event(event(job_id, 0))
    signals.stop(daemon.pid)
    try:
        with pytest.raises(OutcomeUnknown, match="unknown"):
            client.store_event(event(job_id, 1))
        with pytest.raises(DaemonUnavailable):
            client.get_all_jobs()
    finally:
        os.kill(daemon.pid, signal.SIGCONT)
    eventually(lambda: bool(client.ping()), "it answers")
    client.store_event(event(job_id, 2))
    stored = numbers_of(client, job_id)
    assert stored in ([0, 2], [0, 1, 2])
    client.store_event(event(job_id, 3))
    assert numbers_of(client, job_id) == [*stored, 3]


def test_a_pipeline_without_a_daemon_ends_in_time(
    daemon: RunningDaemon, open_python_client: OpenClient, job_id: str
) -> None:
    client = open_python_client(daemon, timeout_s=2)
    client.ping()
    daemon.kill()
    start = time.monotonic()
    pipeline = client.pipeline()
    with pytest.raises((DaemonUnavailable, OutcomeUnknown)):  # noqa: PT012 - in which call is all the same
        for number in range(5000):
            pipeline.store_event(event(job_id, number))
    assert time.monotonic() - start < 25
    assert set(pipeline.positions) == {None}
    daemon.start()
    later = open_python_client(daemon)
    later.store_event(event(job_id, -1))
    assert numbers_of(later, job_id) == [-1]
