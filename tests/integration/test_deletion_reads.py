"""Eight readers while jobs are deleted: each answer is whole or empty, and empty to who asks afterwards."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import signals
from tests.helpers.daemon import eventually, running_daemon
from tests.helpers.raw_client import Raw, checkpoint, event, session, setting

JOBS = 24
EVENTS = 60
KEPT = "kept"
READS: dict[str, tuple[dict[str, Any], Callable[[Any], int]]] = {
    "getEventContents": ({"runId": "r1"}, len),
    "getEventsByRun": ({"runId": "r1"}, len),
    "getCheckpointsByJobId": ({}, lambda found: len(found) * EVENTS),
    "readAll": (
        {"after": 0, "limit": 1000},
        lambda found: sum(record["op"] == "storeEvent" for record in found),
    ),
}


class _Readers:
    """Each reads one job after the other, the one that is deleted next most often."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self.deleted_at: dict[str, float] = {}
        self.next = 0
        self.wrong: list[str] = []
        self.answers = 0
        self.ended = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(8)]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int) -> None:
        with Raw(self._endpoint) as raw:
            count = 0
            while not self.ended.is_set():
                count += 1
                jobs = (f"job-{self.next}", f"job-{max(0, self.next - 1)}", KEPT)
                try:
                    self._read(raw, [*READS][(number + count) % len(READS)], jobs[count % 3])
                except AssertionError as error:
                    self.wrong.append(str(error))
                    return

    def _read(self, raw: Raw, op: str, job: str) -> None:
        arguments, events_in = READS[op]
        asked = time.monotonic()
        answer = raw.ask(op, {"jobId": job, **arguments})
        self.answers += 1
        if not answer.header["ok"]:
            assert answer.code == "READ_GONE", answer.header
            assert job != KEPT, "nobody deleted it"
            return
        assert "more" not in answer.header
        events = events_in(answer.value)
        assert events in ({EVENTS} if job == KEPT else {0, EVENTS}), f"{op} of {job} has {events}"
        assert not events or asked < self.deleted_at.get(job, asked + 1), f"{op} of {job} shows it again"

    def go_on(self, count: int) -> None:
        """Wait until they have that many answers more, or a wrong one."""
        wanted = self.answers + count
        eventually(lambda: self.answers >= wanted or bool(self.wrong), "the readers go on")

    def join(self) -> None:
        """End them."""
        self.ended.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.timeout(300)
def test_readers_see_a_job_whole_or_not_at_all(tmp_path: Path) -> None:
    """Reads of events, checkpoints and records, amid deletions; a job that nobody deletes is always whole."""
    with running_daemon(tmp_path / "base") as daemon, Raw(daemon.endpoint) as raw:
        name, seq = session(), 0
        for job in [KEPT, *(f"job-{n}" for n in range(JOBS))]:
            raw.ask("storeCheckpoint", checkpoint("c", jobId=job), session=name, seq=(seq := seq + 1))
            for n in range(EVENTS):
                raw.send("storeEvent", event(f"{job}-{n}", jobId=job), session=name, seq=(seq := seq + 1))
            for _ in range(EVENTS):
                assert raw.receive().header["ok"]
        readers = _Readers(daemon.endpoint)
        try:
            for n in range(JOBS):
                readers.next = n
                readers.go_on(5)
                time.sleep(0.1)
                seq += 1
                answer = raw.ask("deleteJob", {"jobId": f"job-{n}"}, session=name, seq=seq)
                assert answer.header["ok"], answer.header
                readers.deleted_at[f"job-{n}"] = time.monotonic()
        finally:
            readers.join()
        assert not readers.wrong, readers.wrong
        assert readers.answers > 100
        assert [one["jobId"] for one in raw.ask("deletions", {}).value] == [f"job-{n}" for n in range(JOBS)]


@pytest.mark.parametrize("op", ["deleteJob", "deleteRun", "redactRunSetting"])
def test_a_read_that_waits_shows_nothing_that_was_deleted_before_it_came(tmp_path: Path, op: str) -> None:
    """Also where the index does not know of the deletion yet: then it has nothing to show."""
    run = {"jobId": "j1", "runId": "r1"}
    deletion = {
        "deleteJob": {"jobId": "j1"},
        "deleteRun": run,
        "redactRunSetting": {**run, "setting": setting(model="redacted")},
    }[op]
    with running_daemon(tmp_path / "base") as daemon, Raw(daemon.endpoint) as raw:
        raw.store("storeRunSetting", setting())
        raw.store("storeEvent", event("e1"))
        assert [record["position"] for record in raw.read("readAll", {"after": 0})] == [1, 2]
        waits = {"after": 0, "waitMs": 60_000}  # such a read is answered as soon as there is something
        index = daemon.workers()["index"]
        signals.stop(index)
        raw.store(op, deletion)
        meanwhile = raw.ask("readAll", {**waits, "waitMs": 500})
        os.kill(index, signal.SIGCONT)
        assert (meanwhile.value, meanwhile.header["next"]) == ([], 0)
        shown: list[int] = []
        while 3 not in shown:
            shown += [
                record["position"]
                for record in raw.read("readAll", {**waits, "after": max(shown, default=0)})
            ]
        assert shown == ([2, 3] if op == "redactRunSetting" else [3])
