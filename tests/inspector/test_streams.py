"""Streams of the gateway: each record once, in order, over every kind of interruption."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from perstack_storage import Client
from perstack_storage._inspect import limits
from perstack_storage._inspect.changes import KeptChanges
from tests.helpers.daemon import RunningDaemon, running_daemon
from tests.helpers.inspector import Event, Inspector, running_inspector, stream
from tests.helpers.raw_client import event
from tests.helpers.replay import METHODS, calls_of


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    with running_daemon(tmp_path / "base") as daemon:
        yield daemon


@pytest.fixture
def inspector(daemon: RunningDaemon) -> Iterator[Inspector]:
    with running_inspector(daemon, "--timeout", "2") as inspector:
        yield inspector


def store_run(endpoint: str, run: str, job: str) -> int:
    """Store a captured run; returns the last position."""
    with Client(endpoint, timeout_s=90) as client, client.pipeline() as pipeline:
        for op, value in calls_of(run, job):
            getattr(pipeline, METHODS[op])(value)
    return max(position for position in pipeline.positions if position is not None)


def records_until(events: Iterator[Event], position: int) -> list[Any]:
    """The records of a stream up to a position."""
    found = []
    for one in events:
        if one.kind == "record":
            assert one.id == one.data["position"]
            found.append(one.data)
        if one.id is not None and one.id >= position:
            break
    return found


def test_a_stream_goes_on_where_it_ended(daemon: RunningDaemon, inspector: Inspector) -> None:
    """Again and again from the last id, while agents store: no record is missing, none comes twice."""
    last = store_run(daemon.endpoint, "a", "job-0")
    agents = [
        threading.Thread(target=store_run, args=(daemon.endpoint, "abc"[n], f"job-{n + 1}")) for n in range(3)
    ]
    for agent in agents:
        agent.start()
    found: list[int] = []
    end = last + 384 + 869 + 551
    while not found or found[-1] < end:
        with stream(inspector, "?after=0", last=found[-1] if found else None) as events:
            for one in events:
                if one.kind == "record":
                    found.append(one.data["position"])
                    if len(found) % 200 == 0 or found[-1] >= end:
                        break
    for agent in agents:
        agent.join()
    assert found == list(range(1, end + 1))


def test_a_stream_gets_what_it_asks_for(daemon: RunningDaemon, inspector: Inspector) -> None:
    last = store_run(daemon.endpoint, "b", "job-b")
    last = store_run(daemon.endpoint, "a", "job-a")
    with Client(daemon.endpoint) as client:
        every = client.read_all()
    of_job = [record["position"] for record in every if record["value"].get("jobId") == "job-b"]
    with stream(inspector, "?after=0&job=job-b") as events:
        found = [record["position"] for record in records_until(events, last)]
    assert [position for position in found if position in of_job] == of_job
    with stream(inspector, "?after=0&job=job-b&types=callTools,completeRun&form=heads") as events:
        heads = records_until(events, last)
    assert {head["type"] for head in heads} == {"callTools", "completeRun"}
    assert all("value" not in head and head["jobId"] == "job-b" for head in heads)


def test_streams_of_many_jobs_get_their_own(daemon: RunningDaemon, inspector: Inspector) -> None:
    """Also of more than are followed alone, and once more where one has ended."""
    jobs = [f"job-{number}" for number in range(limits.JOBS_FOLLOWED_MAX + 2)]
    with Client(daemon.endpoint) as client, ExitStack() as open_streams:
        streams = [(job, open_streams.enter_context(stream(inspector, f"?job={job}"))) for job in jobs]
        for _, events in streams:
            assert next(events).kind == "at"
        positions = [client.store_event(event(jobId=job)) for job in jobs]
        for (job, events), position in zip(streams, positions, strict=True):
            found = next(one for one in events if one.kind == "record")
            assert (found.id, found.data["value"]["jobId"]) == (position, job)
        for job in (jobs[0], "job-new"):
            with stream(inspector, f"?job={job}&after=0") as events:
                position = client.store_event(event(id="e2", jobId=job))
                found_of = [record["value"]["jobId"] for record in records_until(events, position)]
                assert set(found_of) == {job}


def test_merged_records_are_the_same_ones(daemon: RunningDaemon, inspector: Inspector) -> None:
    """Older ones, then those that come; also on a connection that begins between two of a message."""
    last = store_run(daemon.endpoint, "b", "job-b")
    found: list[Any] = []
    with stream(inspector, "?form=merged", last=100) as events:
        for number in range(2):
            for one in events:
                if one.kind == "records":
                    found += one.data
                    assert one.id == one.data[-1]["position"]
                    if one.id == last:
                        break
            if not number:
                last = store_run(daemon.endpoint, "a", "job-a")
    with stream(inspector, "?after=100") as events:
        assert found == records_until(events, last)
    assert [record["position"] for record in found] == list(range(101, last + 1))


def jobs_until(events: Iterator[Event], position: int) -> set[str | None]:
    """The jobs that a stream names up to a position; None where it says that any may have changed."""
    found: set[str | None] = set()
    for one in events:
        if one.kind == "jobs":
            found |= {None} if one.data["jobs"] is None else set(one.data["jobs"])
        if one.id is not None and one.id >= position:
            break
    return found


def test_a_stream_names_the_jobs_that_change(daemon: RunningDaemon, inspector: Inspector) -> None:
    """From the position of a list on. Where it does not know them, it says that any may have changed."""
    first = store_run(daemon.endpoint, "a", "job-0")
    last = store_run(daemon.endpoint, "c", "job-1")
    with stream(inspector, f"?form=jobs&after={first}") as events:
        assert jobs_until(events, last) == {"job-1"}
        with Client(daemon.endpoint) as client:
            assert jobs_until(events, client.store_event(event(jobId="job-2"))) == {"job-2"}
            last = client.delete_job("job-0")
            assert jobs_until(events, last) == {"job-0"}
        with stream(inspector, f"?form=jobs&after={first}") as others:
            assert jobs_until(others, last) == {"job-0", "job-1", "job-2"}
        with stream(inspector, "?form=jobs", last=first - 1) as others:
            assert jobs_until(others, last) == {None}


def test_what_changed_is_kept_up_to_a_bound() -> None:
    kept = KeptChanges(10)
    kept.add(frozenset({"a"}), 20)
    kept.add(frozenset({"b"}), 30)
    assert _since(kept, 9, 10, 20, 30) == [None, ["a", "b"], ["b"], []]
    kept.add(frozenset(map(str, range(limits.CHANGED_JOBS_MAX + 1))), 40)
    assert _since(kept, 10, 40) == [None, []]
    for number in range(limits.KEPT_RECORDS_MAX):
        kept.add(frozenset({"c"}), 41 + number)
    assert kept.floor == kept.head - limits.KEPT_RECORDS_MAX // 2
    assert _since(kept, kept.floor - 1, kept.floor) == [None, ["c"]]
    kept.skip(100_000)
    assert _since(kept, 99_999, 100_000) == [None, []]


def _since(kept: KeptChanges, *positions: int) -> list[list[str] | None]:
    return [None if jobs is None else sorted(jobs) for jobs in map(kept.since, positions)]


def test_new_records_come_by_themselves(daemon: RunningDaemon, inspector: Inspector) -> None:
    store_run(daemon.endpoint, "a", "job-0")
    with stream(inspector) as events, Client(daemon.endpoint) as client:
        assert next(events).kind == "at"
        position = client.store_event(event(jobId="job-1"))
        assert records_until(events, position) == [
            {**client.get_event(position), "value": event(jobId="job-1")}
        ]


def test_a_kill_of_the_daemon_leaves_no_gap(daemon: RunningDaemon, inspector: Inspector) -> None:
    with stream(inspector, "?after=0") as events:
        first = store_run(daemon.endpoint, "a", "job-0")
        found = records_until(events, first)
        daemon.kill()
        trouble = next(one for one in events if one.kind == "trouble")
        assert trouble.data["error"]["code"] == "DAEMON_UNAVAILABLE"
        assert inspector.ask("/api/jobs").error["code"] == "DAEMON_UNAVAILABLE"
        daemon.start()
        last = store_run(daemon.endpoint, "c", "job-1")
        found += records_until(events, last)
    assert [record["position"] for record in found] == list(range(1, last + 1))


def test_a_position_that_the_store_does_not_have_ends_the_stream(
    daemon: RunningDaemon, inspector: Inspector
) -> None:
    store_run(daemon.endpoint, "a", "job-0")
    with stream(inspector, last=10_000_000) as events:
        assert [(one.kind, one.data["error"]["code"]) for one in events] == [("trouble", "POSITION_GONE")]
