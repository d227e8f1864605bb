"""A worker that is killed or hangs costs no record, and none outlives its daemon."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.helpers import signals
from tests.helpers.daemon import eventually, files_of, running_daemon
from tests.helpers.raw_client import Raw, event
from tests.integration.filled import assert_checked, settled_tree
from tests.integration.load import assert_all_there, load


@pytest.mark.parametrize("kind", ["index", "tree"])
def test_a_worker_that_is_killed_is_started_again(tmp_path: Path, kind: str) -> None:
    """Under load, twice: reads work again, the stores go on all the while, the tree is complete."""
    with running_daemon(tmp_path / "base") as daemon, Raw(daemon.endpoint) as raw:
        with load(daemon.endpoint, 2) as acknowledged:
            for _ in range(2):
                eventually(lambda: kind in daemon.workers(), "it runs")
                killed = daemon.workers()[kind]
                os.kill(killed, signal.SIGKILL)
                before = len(acknowledged)
                eventually(lambda before=before: len(acknowledged) > before + 50, "stores go on")  # type: ignore[misc]
                assert raw.ask("getEventsByRun", {"jobId": "job0", "runId": "r1"}).value
                eventually(
                    lambda killed=killed: daemon.workers().get(kind, killed) != killed,  # type: ignore[misc]
                    "it runs again",
                    20,
                )
        assert raw.ask("stats").value[kind]["starts"] == 3
        assert len(daemon.events("follower_ended")) == 2
        assert_all_there(raw, acknowledged)
        eventually(lambda: settled_tree(raw), "the tree is complete")
        assert raw.ask("stats").value["tree"]["fault"] == ""
        events = [name for name in files_of(daemon.base) if "/event-" in name]
        assert len(events) == len(acknowledged)
        assert daemon.stop() == 0
    assert_checked(daemon.base)


def test_workers_end_with_their_daemon(tmp_path: Path) -> None:
    """Otherwise the next one's would write beside them; the base can be served again at once."""
    with running_daemon(tmp_path / "base") as daemon:
        eventually(lambda: set(daemon.workers()) == {"index", "tree"}, "both run")
        pids = daemon.workers()
        daemon.kill()
        daemon.start()
        eventually(lambda: not any(_runs_worker(pid) for pid in pids.values()), "they are gone")


def _runs_worker(pid: int) -> bool:
    try:
        return b"perstack_stored.projection.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False


def test_a_read_is_given_up_in_time_while_the_index_hangs(tmp_path: Path) -> None:
    """DEADLINE, although nothing else happens; stores and pings go on, and the read works again later."""
    with running_daemon(tmp_path / "base") as daemon, Raw(daemon.endpoint) as raw:
        raw.store("storeEvent", event("before"))
        run = {"jobId": "j1", "runId": "r1"}
        assert len(raw.ask("getEventsByRun", run).value) == 1
        index = daemon.workers()["index"]
        signals.stop(index)
        try:
            raw.store("storeEvent", event("behind", timestamp=2))
            start = time.monotonic()
            assert raw.ask("getEventsByRun", run, timeoutMs=300).code == "DEADLINE"
            assert 0.25 < time.monotonic() - start < 10
            assert raw.ask("ping").header["ok"]
        finally:
            os.kill(index, signal.SIGCONT)
        assert len(raw.ask("getEventsByRun", run).value) == 2
