"""A record at which the tree's process dies again and again is passed over, and nothing else suffers."""

import json
import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from perstack_storage import Client
from tests.helpers.daemon import RunningDaemon, eventually, running_daemon
from tests.helpers.raw_client import event, job
from tests.offline.bases import Checked, run

MIB = 1 << 20
LARGE = 16 * MIB
# Enough to read the record, and too little to make its file as well: a second copy of it.
ROOM = LARGE + 12 * MIB
FILE = "jobs/poison/runs/r1/event-5-0-startRun.json"


def data_bytes(pid: int) -> int:
    """Memory that a process can write to, as RLIMIT_DATA counts it."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:"))


@contextmanager
def short_of_memory(daemon: RunningDaemon) -> Iterator[None]:
    """Each process of the tree gets little room, as soon as it is there: before it reads a record."""
    eventually(lambda: "tree" in daemon.workers(), "the tree's process runs")
    limit = data_bytes(daemon.workers()["tree"]) + ROOM
    limited, ended = set[int](), threading.Event()

    def keep() -> None:
        tree = daemon.workers().get("tree")
        if tree is not None and tree not in limited:
            resource.prlimit(tree, resource.RLIMIT_DATA, (limit, limit))
            limited.add(tree)

    def work() -> None:
        while not ended.wait(0.005):
            with suppress(ProcessLookupError):
                keep()

    keep()
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def poison() -> dict[str, Any]:
    return event("poison", jobId="poison", timestamp=5, text="x" * LARGE)


@pytest.mark.timeout(600)
def test_a_record_that_ends_the_tree_s_process_twice_is_passed_over(tmp_path: Path) -> None:
    """Counted, named in log and `check`, remembered over a restart, and written when somebody asks for it."""
    base = tmp_path / "base"
    with running_daemon(base) as daemon, Client(daemon.endpoint, timeout_s=60) as client:
        client.store_event(event("first"))
        eventually(lambda: client.stats()["tree"]["lagRecords"] == 0, "the tree is there")
        with short_of_memory(daemon):
            position = client.store_event(poison())
            for n in range(20):
                client.store_event(event(f"e{n}", jobId="other", timestamp=n))
            eventually(lambda: client.stats()["tree"]["lagRecords"] == 0, "it goes on")
        assert len(list(base.glob("jobs/other/runs/r1/event-*"))) == 20
        assert client.stats()["tree"]["blocked"] == 1
        assert client.stats()["tree"]["fault"] == ""
        assert len(client.get_event_contents("poison", "r1")) == 1  # it is stored, and read as before
        (passed,) = daemon.events("record_passed_over")
        assert (passed["position"], passed["kind"], passed["file"]) == (position, "event", FILE)
        assert "xxxx" not in daemon.log.read_text()
        assert len(daemon.events("follower_ended")) == 2
        assert daemon.stop() == 0

    # Two more deaths at each start would be no better than one: the next process knows.
    with running_daemon(base) as daemon, Client(daemon.endpoint, timeout_s=60) as client:
        eventually(lambda: client.stats()["tree"]["blocked"] == 1, "it is remembered")
        client.store_event(event("more", timestamp=99))
        eventually(lambda: client.stats()["tree"]["lagRecords"] == 0, "the tree goes on")
        assert daemon.stop() == 0
    assert not (base / FILE).exists()

    checked = Checked(base)
    assert checked.names == {"tree_blocked"}
    assert checked.only("tree_blocked")["position"] == position

    # The cause is gone.
    kept = run("rebuild", base)
    assert (kept.returncode, kept.stdout) == (1, "rebuilt index and tree from 23 records\n")
    done = run("rebuild", base, "--retry-blocked")
    assert (done.returncode, done.stderr) == (0, "")
    assert (base / FILE).stat().st_size > LARGE
    assert Checked(base).status == 0


def listed(base: Path) -> list[int]:
    """Positions that are passed over."""
    found = json.loads((base / ".stored/tree.blocked").read_bytes())
    return [one["position"] for one in found["records"]]


def pass_over(base: Path, position: int, kind: str, file: str, version: str) -> None:
    """Write down a record as one that a version of the program has passed over, and take its file away."""
    facts = json.loads((base / ".stored/tree.blocked").read_bytes())
    record = {"position": position, "kind": kind, "file": file}
    text = json.dumps({**facts, "version": version or facts["version"], "records": [record]})
    (base / ".stored/tree.blocked").write_text(text)
    (base / file).unlink(missing_ok=True)


@pytest.fixture
def with_a_list(tmp_path: Path) -> Path:
    """A base with a job, an event and a newer job; the list of records that are passed over is empty."""
    base = tmp_path / "base"
    with running_daemon(base) as daemon, Client(daemon.endpoint, timeout_s=60) as client:
        client.store_job(job("j1", totalSteps=1))
        client.store_event(event("e1"))
        store = client.hello()["store"]
        eventually(lambda: client.stats()["tree"]["lagRecords"] == 0, "the tree is there")
        assert daemon.stop() == 0
    text = json.dumps({"store": store, "version": "", "records": []})
    (base / ".stored/tree.blocked").write_text(text)
    return base


def test_a_newer_version_takes_up_what_an_older_one_passed_over(with_a_list: Path) -> None:
    """It may be able to do what that one could not."""
    file = next((with_a_list / "jobs").rglob("event-*"))
    content = file.read_bytes()
    pass_over(with_a_list, 2, "event", str(file.relative_to(with_a_list)), "0.0.1")
    with running_daemon(with_a_list) as daemon:
        eventually(lambda: file.exists() and file.read_bytes() == content, "it is written")
        eventually(lambda: listed(with_a_list) == [], "and taken from the list")
        assert daemon.events("record_taken_up_again")[0]["position"] == 2
        assert daemon.stop() == 0
    assert Checked(with_a_list).status == 0


def test_a_later_value_of_the_same_file_ends_it(with_a_list: Path) -> None:
    """Then nothing is missing any more; until then this version does not try the record again."""
    file = with_a_list / "jobs/j1/job.json"
    pass_over(with_a_list, 1, "job", "jobs/j1/job.json", "0.1.0")
    with running_daemon(with_a_list) as daemon, Client(daemon.endpoint, timeout_s=60) as client:
        eventually(lambda: client.stats()["tree"]["blocked"] == 1, "it is passed over")
        client.store_event(event("e2", timestamp=2))
        eventually(lambda: client.stats()["tree"]["lagRecords"] == 0, "the tree goes on")
        assert not file.exists()
        client.store_job(job("j1", totalSteps=2))
        eventually(lambda: file.exists() and listed(with_a_list) == [], "the newer one is there")
        eventually(lambda: client.stats()["tree"]["blocked"] == 0, "nothing is missing")
        assert json.loads(file.read_bytes())["totalSteps"] == 2
        assert daemon.stop() == 0
    assert Checked(with_a_list).status == 0


@pytest.mark.parametrize(
    "content", [b"", b"no json", b'{"records": [1]}', b'{"store":"00","version":"","records":[]}']
)
def test_a_list_that_can_t_be_used_stops_nothing(with_a_list: Path, content: bytes) -> None:
    """At worst the process dies twice once more."""
    (with_a_list / ".stored/tree.blocked").write_bytes(content)
    with running_daemon(with_a_list) as daemon, Client(daemon.endpoint, timeout_s=60) as client:
        client.store_event(event("e2", timestamp=2))
        eventually(lambda: client.stats()["tree"]["lagRecords"] == 0, "the tree goes on")
        assert client.stats()["tree"]["blocked"] == 0
        assert not daemon.events("follower_ended")
        os.kill(daemon.pid, 9)
