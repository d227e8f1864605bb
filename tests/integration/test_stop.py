"""A stop is in time, and keeps all that was acknowledged."""

import signal
import time
from pathlib import Path

import pytest

from tests.helpers.daemon import RunningDaemon, eventually, running_daemon
from tests.helpers.raw_client import Raw, event
from tests.integration.filled import assert_checked, settled_tree
from tests.integration.load import assert_all_there, load

IN_TIME_S = 30.0  # a stop takes 5 s at most; then processes end, slowly on a busy machine


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_under_load_keeps_all_that_was_acknowledged(tmp_path: Path, number: signal.Signals) -> None:
    """Status 0 in time, twice in a row; the clients go on with the next daemon as if nothing had been."""
    with running_daemon(tmp_path / "base", "--stop-seconds", "5") as daemon:
        with load(daemon.endpoint) as acknowledged:
            for _ in range(2):
                before = len(acknowledged)
                eventually(lambda before=before: len(acknowledged) > before + 50, "it goes on")  # type: ignore[misc]
                assert daemon.process is not None
                start = time.monotonic()
                daemon.process.send_signal(number)
                assert daemon.process.wait(timeout=120) == 0
                assert time.monotonic() - start < IN_TIME_S
                assert len(daemon.events("stopped")) == len(daemon.events("ready"))
                daemon.start()
        with Raw(daemon.endpoint) as raw:
            assert_all_there(raw, acknowledged)
            eventually(lambda: settled_tree(raw), "the tree is complete")
        assert daemon.stop() == 0
    assert_checked(daemon.base)


def test_a_stop_does_not_wait_for_reads_that_are_queued(tmp_path: Path) -> None:
    """Thousands of large reads wait; a stop answers what is begun, and ends in time."""
    with running_daemon(tmp_path / "base", "--stop-seconds", "5") as daemon, Raw(daemon.endpoint) as raw:
        for n in range(20):
            raw.store("storeEvent", event(f"e{n}", text="x" * 150_000))
        for _ in range(3000):
            raw.send("getEventContents", {"jobId": "j1", "runId": "r1"})
        eventually(lambda: _reads_wait(daemon), "the reads have arrived")
        start = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - start < IN_TIME_S


def _reads_wait(daemon: RunningDaemon) -> bool:
    with Raw(daemon.endpoint) as raw:
        return int(raw.ask("stats").value["reads"]["pending"]) > 1000


@pytest.mark.usefixtures("interpreters")
def test_a_signal_while_the_daemon_starts_ends_it(tmp_path: Path) -> None:
    """At any moment of the start; the next one is ready."""
    base = tmp_path / "base"
    for n in range(6):
        daemon = RunningDaemon(base).start(wait=False)
        assert daemon.process is not None
        deadline = time.monotonic() + 0.05 * n
        while time.monotonic() < deadline and daemon.process.poll() is None:
            pass
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(timeout=120) in {0, -signal.SIGTERM}
    with running_daemon(base) as daemon, Raw(daemon.endpoint) as raw:
        raw.store("storeEvent", event())
