"""`perstack_storage.testing` as a project uses it: pytest runs on a small one, in a process of its own."""

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from perstack_storage import Client
from perstack_storage.testing import TestDaemon
from tests.helpers.daemon import RunningDaemon, eventually
from tests.helpers.raw_client import event

pytest_plugins = ["pytester"]

CONFTEST = 'pytest_plugins = "perstack_storage.testing"\n'
EVENT = '{"type": "startRun", "id": "e", "timestamp": 1, "stepNumber": 0, "runId": "r", "expertKey": "k"}'
TESTS = f"""
import os, subprocess, sys
import pytest
from perstack_storage import Client, default_store_event, get_event_contents

PIDS = set()
PROGRAM = "from perstack_storage import Client; print(len(Client().get_event_contents('j', 'r')))"

@pytest.mark.parametrize("n", range(5))
def test_shared(perstack_client, perstack_daemon, perstack_job_id, n):
    perstack_client.store_event({{**{EVENT}, "jobId": perstack_job_id}})
    assert len(perstack_client.get_event_contents(perstack_job_id, "r")) == 1
    PIDS.add(perstack_daemon.endpoint)
    assert len(PIDS) == 1
    assert str(perstack_daemon.base) == perstack_client.hello()["base"]

@pytest.mark.parametrize("n", range(3))
def test_fresh(perstack_fresh_daemon, n):
    default_store_event({{**{EVENT}, "jobId": "j"}})
    assert len(get_event_contents("j", "r")) == 1
    assert os.environ["PERSTACK_STORED_ENDPOINT"] == perstack_fresh_daemon.endpoint
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.stdout == "1\\n", done.stderr

def test_restart(perstack_fresh_daemon):
    with Client() as client:
        client.store_event({{**{EVENT}, "jobId": "j"}})
        perstack_fresh_daemon.kill()
        perstack_fresh_daemon.start()
        assert len(client.get_event_contents("j", "r")) == 1
        perstack_fresh_daemon.stop()
    (file,) = perstack_fresh_daemon.base.glob("jobs/j/runs/r/*")
    assert file.name == "event-1-0-startRun.json"

def test_environment_is_put_back():
    assert os.environ.get("PERSTACK_STORED_ENDPOINT") == "ipc:///of/the/person"
"""
WAITS = """
import pathlib, time

def test_waits(perstack_client, perstack_fresh_daemon):
    pathlib.Path("runs").touch()
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _of_the_person(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of the person who tests are not those of the test's daemons."""
    monkeypatch.setenv("PERSTACK_STORED_ENDPOINT", "ipc:///of/the/person")
    monkeypatch.setenv("PERSTACK_STORED_CONFIG", "/no/such/file")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)


def processes_of(folder: Path) -> dict[int, str]:
    """Processes whose command line names a folder."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (OSError, ValueError):
            continue
        if entry.name.isdecimal() and str(folder) in command and int(entry.name) != os.getpid():
            found[int(entry.name)] = command
    return found


def children_of(pids: Iterator[int] | dict[int, str]) -> set[int]:
    """Processes that these started: index and tree."""
    found: set[int] = set()
    for pid in pids:
        found |= {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
    return found


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1] not in {b"Z", b"X"}
    except OSError:
        return False


def test_a_project_stores_and_reads(pytester: pytest.Pytester) -> None:
    """A shared daemon, and others of one test each; the code under test finds them; none is left."""
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(TESTS)
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--basetemp", str(pytester.path / "t"))
    done.assert_outcomes(passed=10)
    eventually(lambda: not processes_of(pytester.path), "no process is left")


def test_nothing_is_loaded_for_other_projects(pytester: pytest.Pytester) -> None:
    """Without the line in conftest.py the fixtures are not there."""
    pytester.makepyfile("def test_it(perstack_client):\n    pass\n")
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    done.stdout.fnmatch_lines(["*fixture 'perstack_client' not found*"])


@pytest.mark.parametrize("to_all", [False, True], ids=["alone", "group"])
def test_no_process_outlives_a_killed_pytest(pytester: pytest.Pytester, to_all: bool) -> None:
    """SIGKILL, to it or to its group: the daemons, their workers and the spare one end."""
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(WAITS)
    command = [sys.executable, "-m", "pytest", "-q", "--basetemp", str(pytester.path / "t")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        eventually((pytester.path / "runs").exists, "the test runs")

        def daemons_of_run() -> dict[int, str]:
            return {pid: text for pid, text in processes_of(pytester.path).items() if " serve " in text}

        # A worker has the daemon's arguments until it has begun its own program.
        eventually(lambda: len(daemons_of_run()) == 3, "three daemons")
        daemons = daemons_of_run()
        eventually(lambda: len(children_of(daemons)) >= 6, "index and tree of each run")
        pids = {*daemons, *children_of(daemons)}
        (os.killpg if to_all else os.kill)(process.pid, signal.SIGKILL)
    eventually(lambda: not any(map(lives, pids)), "all of them end")


def test_a_daemon_stops_when_its_standard_input_ends(tmp_path: Path) -> None:
    """As at SIGTERM: the stop is clean, and the status 0."""
    reader, writer = os.pipe()
    daemon = RunningDaemon(tmp_path / "base", "--stop-with-stdin")
    command = [sys.executable, "-m", "perstack_stored", "serve", "--base-path", str(daemon.base)]
    environment = {name: text for name, text in os.environ.items() if not name.startswith("PERSTACK_STORED")}
    with daemon.log.open("wb") as log:
        process = subprocess.Popen([*command, "--stop-with-stdin"], stdin=reader, stderr=log, env=environment)
    os.close(reader)
    try:
        with Client(daemon.endpoint) as client:
            client.store_event(event())
            assert process.poll() is None
            os.write(writer, b"what comes is not read as a command\n")
            client.store_event(event("e2", timestamp=2))
        os.close(writer)
        assert process.wait(60) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert daemon.events("stopped")[0]["position"] == 2


def test_a_daemon_that_does_not_start_says_why(tmp_path: Path) -> None:
    """The error has the end of its log."""
    with (
        pytest.raises(RuntimeError, match="--no-such-flag") as raised,
        TestDaemon(tmp_path / "base", "--no-such-flag"),
    ):
        pass
    assert str(tmp_path / "base.log") in str(raised.value)
    with pytest.raises(RuntimeError, match="not started"):
        TestDaemon(tmp_path / "base").stop()


def test_a_stop_leaves_the_tree(tmp_path: Path) -> None:
    """The daemon outside of fixtures; it can be started again, and takes flags."""
    daemon = TestDaemon(tmp_path / "base", "--file-mode", "0600")
    with daemon:
        with Client(daemon.endpoint) as client:
            client.store_event(event())
        daemon.stop()
        (file,) = (tmp_path / "base/jobs").rglob("event-*.json")
        assert file.stat().st_mode & 0o777 == 0o600
        daemon.start()
        with Client(daemon.endpoint) as client:
            assert len(client.get_event_contents("j1", "r1")) == 1
        with pytest.raises(RuntimeError, match="started before"):
            daemon.start()
    eventually(lambda: not processes_of(tmp_path), "no process is left")


def test_a_base_may_have_a_long_path(tmp_path: Path) -> None:
    """Longer than a socket's: the socket is elsewhere then, and is removed with the object."""
    daemon = TestDaemon(tmp_path / ("x" * 100))
    socket = Path(daemon.endpoint.removeprefix("ipc://"))
    with daemon, Client(daemon.endpoint) as client:
        assert client.hello()["base"] == str(daemon.base)
        assert socket.exists()
        assert socket.parent.stat().st_mode & 0o077 == 0
    del daemon
    gc.collect()
    assert not socket.parent.exists()
