"""After a crash clients are served at once; the daemon is ready when the tree is whole."""

import contextlib
import json
import os
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from perstack_storage import Client
from tests.helpers import signals
from tests.helpers.daemon import RunningDaemon, eventually
from tests.helpers.raw_client import event
from tests.integration.exec.commands import running

EVENTS = 300


def names(base: Path) -> set[str]:
    return {path.name for path in (base / "jobs/j1/runs/r1").glob("event-*.json")}


def store(endpoint: str, first: int, count: int) -> None:
    with Client(endpoint, timeout_s=60) as client, client.pipeline() as pipeline:
        for n in range(first, first + count):
            pipeline.store_event(event(f"e{n}", timestamp=n))


@contextmanager
def crashed(base: Path, *settings: str, environment: dict[str, str] | None = None) -> Iterator[RunningDaemon]:
    """A daemon that was killed while its tree lacked some files."""
    daemon = RunningDaemon(base, *settings, environment=environment).start()
    try:
        store(daemon.endpoint, 0, 10)
        eventually(lambda: len(names(base)) == 10, "the tree has begun")
        worker = daemon.workers()["tree"]
        signals.stop(worker)
        store(daemon.endpoint, 10, EVENTS - 10)
        daemon.kill()
        os.kill(worker, signal.SIGKILL)
        yield daemon
    finally:
        daemon.make_sure_it_ended()


def stopped_tree(daemon: RunningDaemon) -> int:
    """Stop the process of a starting daemon's tree before it has written a file."""
    eventually(lambda: "tree" in daemon.workers(), "the tree's process is there")
    worker = daemon.workers()["tree"]
    signals.stop(worker)
    assert len(names(daemon.base)) < EVENTS
    return worker


def test_stores_and_reads_are_answered_before_the_tree_is_whole(tmp_path: Path) -> None:
    """`stats`, /readyz, the log and the metrics tell when it is."""
    with crashed(tmp_path / "base", "--metrics-bind", "127.0.0.1:0") as daemon:
        daemon.start(wait=False)
        worker = stopped_tree(daemon)
        with Client(daemon.endpoint, timeout_s=60) as client:
            assert client.store_event(event("late", timestamp=EVENTS)) == EVENTS + 1
            assert len(client.get_events_by_run("j1", "r1")) == EVENTS + 1
            assert client.stats()["tree"]["whole"] is False
            url = daemon.events("metrics_ready")[-1]["url"]
            with pytest.raises(urllib.error.HTTPError) as unready:
                urllib.request.urlopen(url.replace("metrics", "readyz"))
            assert unready.value.code == 503
            assert b"the tree is written again" in unready.value.read()
            assert b"perstack_stored_tree_whole 0.0" in urllib.request.urlopen(url).read()
            assert len(daemon.events("ready")) == 1  # of the first start
            assert len(names(daemon.base)) < EVENTS
            os.kill(worker, signal.SIGCONT)
            eventually(lambda: len(daemon.events("ready")) == 2, "it is ready")
            assert len(names(daemon.base)) >= EVENTS
            assert client.stats()["tree"]["whole"] is True
            assert urllib.request.urlopen(url.replace("metrics", "readyz")).status == 200
        assert daemon.stop() == 0


def test_a_reload_does_not_say_that_it_is_ready(tmp_path: Path) -> None:
    """The service manager hears of it when the tree is whole, and not before."""
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)

        def heard() -> str:
            words = []
            with contextlib.suppress(BlockingIOError):
                while True:
                    words.append(manager.recv(4096, socket.MSG_DONTWAIT).decode())
            return "\n".join(words)

        with crashed(tmp_path / "base", environment={"NOTIFY_SOCKET": address}) as daemon:
            assert "READY=1" in heard()
            daemon.start(wait=False)
            worker = stopped_tree(daemon)
            assert daemon.process is not None
            with Client(daemon.endpoint, timeout_s=60) as client:
                client.ping()
                daemon.process.send_signal(signal.SIGHUP)
                eventually(lambda: bool(daemon.events("reloaded")), "the settings are read again")
                client.ping()
                assert client.stats()["tree"]["whole"] is False
            before = heard()
            assert "READY=1" not in before
            assert "RELOADING=1" not in before
            os.kill(worker, signal.SIGCONT)
            eventually(lambda: "READY=1" in heard(), "it is ready")
            assert daemon.stop() == 0


def test_a_command_of_exec_begins_when_the_tree_is_whole(tmp_path: Path) -> None:
    """It may read files: Perstack's own programs do."""
    base = tmp_path / "base"
    with crashed(base) as daemon:
        daemon.start(wait=False)
        worker = stopped_tree(daemon)
        with Client(daemon.endpoint, timeout_s=60) as client:
            client.ping()
        program = "import json, os; print(json.dumps(sorted(os.listdir('jobs/j1/runs/r1'))), flush=True)"
        with running(base, sys.executable, "-c", f"import os; os.chdir({str(base)!r}); {program}") as command:
            with pytest.raises(AssertionError):
                eventually(lambda: command.process.poll() is not None, "it ends", seconds=1.5)
            os.kill(worker, signal.SIGCONT)
            assert set(json.loads(command.line())) >= names(base)
            assert command.process.wait(60) == 0
        assert daemon.stop() == 0
