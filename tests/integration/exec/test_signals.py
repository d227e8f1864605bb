"""A signal reaches the command once, and leaves no daemon behind."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.helpers.daemon import eventually
from tests.integration.exec.commands import (
    arguments,
    clean_environment,
    has_open,
    is_served,
    jobs,
    python,
    run,
    running,
)

TRAP = """
import signal, sys, time
from perstack_storage import create_initial_job, store_job
def handle(number, _):
    store_job(create_initial_job(f"at {number}", "me"))
    sys.exit(40 + number)
signal.signal(signal.SIGINT, handle)
print("ready", flush=True)
signal.pause()
"""


def test_a_signal_is_passed_on_and_the_command_may_still_store(base: Path) -> None:
    """The daemon outlives the command, and stops after it."""
    with running(base, *python(TRAP)) as started:
        assert started.line() == "ready"
        started.process.send_signal(signal.SIGINT)
        assert started.process.wait(120) == 42
    assert jobs(base) == ["at 2"]
    assert not is_served(base)


def test_a_command_that_a_signal_ends_gives_its_number(base: Path) -> None:
    with running(base, "sleep", "60") as started:
        eventually(lambda: is_served(base), "the daemon runs")
        started.process.terminate()
        assert started.process.wait(120) == 128 + signal.SIGTERM
    assert not is_served(base)


def test_a_key_on_the_terminal_reaches_the_command_once(base: Path) -> None:
    """The kernel sends Ctrl-C to the whole group: it is not passed on, and the daemon does not get it."""
    counting = """
import signal, sys
from perstack_storage import create_initial_job, store_job
count = 0
def handle(*_):
    global count
    count += 1
signal.signal(signal.SIGINT, handle)
print("ready", flush=True)
sys.stdin.readline()
store_job(create_initial_job(f"heard {count}", "me"))
print(f"heard {count}", flush=True)
"""
    child, terminal = os.forkpty()
    if child == 0:  # a session of its own, with a terminal that has echo and signals
        os.execve(sys.executable, arguments(base, *python(counting)), clean_environment())
    shown = b""

    def saw(text: bytes) -> bool:
        nonlocal shown
        try:
            shown += os.read(terminal, 4096)
        except OSError:
            pytest.fail(f"it ended: {shown!r}")
        return text in shown

    eventually(lambda: saw(b"ready"), "the command is ready")
    os.write(terminal, b"\x03")
    eventually(lambda: saw(b"^C"), "the terminal has echoed the key")
    os.write(terminal, b"\n")
    eventually(lambda: saw(b"heard"), "the command has gone on")
    assert b"heard 1" in shown
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0
    assert not is_served(base)


def test_a_signal_before_the_daemon_is_ready_ends_it_all(base: Path) -> None:
    """The command is never run; what was started is stopped."""
    assert run(base, "true").returncode == 0
    # Nobody may join while the last user stops the daemon: so it waits here.
    code = (
        "import fcntl, sys; file = open(sys.argv[1], 'r+'); fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('held', flush=True); sys.stdin.readline()"
    )
    holder = subprocess.Popen(
        python(code, str(base / ".stored/exec")),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with running(base, "touch", str(base / "ran")) as started:
        eventually(lambda: has_open(started.process.pid, base / ".stored/exec"), "it waits")
        started.process.terminate()
        assert started.process.wait(120) == 128 + signal.SIGTERM
    holder.communicate("\n")
    assert not (base / "ran").exists()
    assert not is_served(base)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGQUIT])
def test_signals_that_would_end_it_are_passed_on(
    base: Path, number: signal.Signals, request: pytest.FixtureRequest
) -> None:
    """Ended by one itself, it would leave command and daemon behind."""
    # A shell can't trap what it ignores from its start, as it does under nohup or in the background.
    request.addfinalizer(partial(signal.signal, number, signal.signal(number, signal.SIG_DFL)))
    trap = f"trap 'exit 21' {number.name.removeprefix('SIG')}; echo ready; while :; do sleep 0.05; done"
    with running(base, "sh", "-c", trap) as started:
        assert started.line() == "ready"
        started.process.send_signal(number)
        assert started.process.wait(120) == 21
    assert not is_served(base)
