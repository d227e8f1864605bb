"""p99 of stores while jobs of many events are deleted beside them, against the same without deletions.

And what readers see: after a deletion is acknowledged, nothing of the job.
"""

import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

from perstack_storage import Client
from tests.bench.figures import estimate, ratios, short
from tests.bench.load import event, percentile
from tests.helpers.daemon import RunningDaemon, eventually, running_daemon
from tests.year.storing import Storing
from tests.year.workload import EVENT_TYPES, say

BOUND = 1.5
READERS = 8
_DELETIONS = 3  # of a round
_SETTINGS = tuple(word for type in EVENT_TYPES for word in ("--tree-leave-out", type))
_spawn = multiprocessing.get_context("spawn")


def measure(folder: Path | None, rounds: int, seconds: float, agents: int, events: int) -> int:
    """Pairs of rounds on one daemon, then the readers; returns the status."""
    ours, theirs, acks = [], [], []
    with (
        tempfile.TemporaryDirectory(dir=folder) as name,
        running_daemon(Path(name) / "base", *_SETTINGS) as daemon,
        Client(daemon.endpoint, timeout_s=120) as client,
    ):
        for number in range(rounds):
            names = [f"large-{number}-{i}" for i in range(_DELETIONS)]
            for job in names:
                _fill(client, job, events)
            pair = {}
            for deletes in (True, False) if number % 2 else (False, True):
                pair[deletes], took = _round(daemon, client, seconds, agents, names if deletes else [])
                acks += took
            ours.append(pair[True])
            theirs.append(pair[False])
            say(f"round {number + 1}: p99 {ours[-1]:.2f} ms beside deletions, {theirs[-1]:.2f} ms without")
        reads = _read_while_deleting(daemon, client, events)
        daemon.stop()
    ratio = estimate(ratios(ours, theirs))
    say(f"p99 of stores of {agents} agents: {estimate(ours)} ms beside deletions of {events} events,")
    say(f"  {estimate(theirs)} without; ratio {ratio}; bound {BOUND}")
    say(f"acks of deletions: {estimate(acks)} ms, at most {short(max(acks))}")
    say(f"{reads} reads of {READERS} readers that began after the ack: none has shown the job")
    return 0 if ratio.median <= BOUND else 1


def _fill(client: Client, job: str, events: int) -> None:
    with client.pipeline() as pipeline:
        for number in range(events):
            pipeline.store_event({**event(0, number), "jobId": job})
    eventually(lambda: client.stats()["index"]["lagRecords"] == 0, "the index", 600)


def _round(
    daemon: RunningDaemon, client: Client, seconds: float, agents: int, names: list[str]
) -> tuple[float, list[float]]:
    """The p99 of the agents, and the acks of the deletions, which come at equal distances; in ms."""
    storing = Storing(daemon.endpoint, agents, seconds)
    acks = []
    for job in names:
        time.sleep(seconds / (len(names) + 1))
        before = time.monotonic()
        client.delete_job(job)
        acks.append((time.monotonic() - before) * 1000)
    return percentile([ms for _, ms in storing.join()], 0.99), acks


def _read_while_deleting(daemon: RunningDaemon, client: Client, events: int) -> int:
    """How many reads began after the ack; a reader that is shown something then fails."""
    job = "read-while-deleted"
    _fill(client, job, events)
    acked_at, ready = _spawn.Value("d", 0.0), _spawn.Queue()
    counts: Any = _spawn.Queue()
    readers = [
        _spawn.Process(target=_read, args=(daemon.endpoint, job, number, acked_at, ready, counts))
        for number in range(READERS)
    ]
    for reader in readers:
        reader.start()
    for _ in readers:
        ready.get(timeout=120)
    client.delete_job(job)
    acked_at.value = time.monotonic()
    found = sum(counts.get(timeout=300) for _ in readers)
    for reader in readers:
        reader.join(timeout=60)
        assert reader.exitcode == 0, "a reader was shown a deleted job, or failed"
    return int(found)


def _read(endpoint: str, job: str, number: int, acked_at: Any, ready: Any, counts: Any) -> None:
    """Read by each call in turn, from before the deletion until three seconds after its ack."""
    after = 0
    with Client(endpoint, timeout_s=120) as client:
        calls = (
            lambda: client.get_events_by_run(job, "run1"),
            lambda: client.get_event_contents(job, "run1"),
            lambda: [one for one in client.read_all(job_id=job, limit=100) if one["op"] != "deleteJob"],
        )
        assert calls[number % 3]()
        ready.put(number)
        turn = number
        while not acked_at.value or time.monotonic() < acked_at.value + 3:
            began, turn = time.monotonic(), turn + 1
            found = calls[turn % 3]()
            if 0 < acked_at.value < began:
                after += 1
                assert not found, f"{len(found)} records are shown after the deletion"
    counts.put(after)
