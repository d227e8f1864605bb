"""`perstack-stored exec` gives a command a daemon, and stops it afterwards. Real processes throughout."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from perstack_storage import Client
from perstack_stored.datadir.lock import describe, holder_of, identity_of
from tests.helpers.daemon import eventually, files_of, running_daemon

PROGRAM = """
import sys
from perstack_storage import create_initial_job, default_store_event, get_jobs_dir, store_job
name = sys.argv[1]
store_job(create_initial_job(name, "@me/expert@1.0.0"))
for n in range(300):
    default_store_event({
        "type": "startRun", "id": f"{name}-{n}", "expertKey": "me", "timestamp": 1700000000000 + n,
        "jobId": name, "runId": "r", "stepNumber": 0,
    })
print(get_jobs_dir())
"""
# Stores, waits for a line, and stores again.
WAITING = """
import sys
from perstack_storage import create_initial_job, store_job
store_job(create_initial_job(sys.argv[1], "me"))
print("stored", flush=True)
sys.stdin.readline()
store_job(create_initial_job(sys.argv[1] + " again", "me"))
print("stored again", flush=True)
"""


def arguments(base: Path | None, *command: str) -> list[str]:
    where = [] if base is None else ["--base-path", str(base)]
    return [sys.executable, "-m", "perstack_stored", "exec", *where, "--", *command]


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PERSTACK_STORED_")}


def run(base: Path | None, *command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end. Nothing of it is left that would keep its output open."""
    return subprocess.run(
        arguments(base, *command),
        cwd=cwd,
        env=clean_environment(),
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )


def python(code: str, *given: str) -> tuple[str, ...]:
    return sys.executable, "-c", code, *given


class Running:
    """An `exec` that is under way."""

    def __init__(self, base: Path, *command: str) -> None:
        self.process = subprocess.Popen(
            arguments(base, *command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=clean_environment(),
            encoding="utf-8",
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip()

    def end(self) -> int:
        """Let the command go on, to its end."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.process.wait(120)


@contextmanager
def running(base: Path, *command: str) -> Iterator[Running]:
    started = Running(base, *command)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.process.terminate()
        started.process.communicate(timeout=120)


def daemon_pid(base: Path) -> int | None:
    """Process id of the daemon that serves a base."""
    try:
        return int(json.loads((base / ".stored/lock").read_bytes())["pid"])
    except (OSError, ValueError):
        return None


def is_served(base: Path) -> bool:
    pid = daemon_pid(base)
    return pid is not None and Path(f"/proc/{pid}").exists()


def has_open(pid: int, path: Path) -> bool:
    """Whether a process has a file open."""
    with contextlib.suppress(OSError):  # some may be closed meanwhile
        return any(os.readlink(link) == str(path) for link in Path(f"/proc/{pid}/fd").iterdir())
    return False


def jobs(base: Path) -> list[str]:
    """Ids of the jobs in the tree."""
    return sorted(path.parent.name for path in base.glob("jobs/*/job.json"))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "perstack"


# --- a command that stores -------------------------------------------------------------------------


def test_a_program_that_stores_needs_no_other_set_up(base: Path) -> None:
    """After it everything is in the tree, no daemon serves the base, and `check` finds nothing."""
    done = run(None, *python(PROGRAM, "job-1"), cwd=base.parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{base}/jobs\n"
    assert len(files_of(base)) == 301
    assert not is_served(base)
    assert not (base / ".stored/stored.sock").exists()
    checked = subprocess.run(
        [sys.executable, "-m", "perstack_stored", "check", "--base-path", str(base)], check=False
    )
    assert checked.returncode == 0


def test_the_command_runs_as_it_would_alone_but_for_two_variables(base: Path) -> None:
    """No signal is blocked or ignored because Python did so: a broken pipe ends it."""
    command = (
        *("sh", "-c"),
        "echo $PERSTACK_STORED_BASE $PERSTACK_STORED_ENDPOINT; grep -E '^Sig(Blk|Ign)' /proc/self/status",
    )
    told, *masks = run(base, *command).stdout.splitlines()
    assert told == f"{base} ipc://{base}/.stored/stored.sock"
    # What the caller ignores, as under nohup, is left so; what Python ignores is undone for a child.
    alone = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[1:]
    ours = 0x7FFFFFFF  # the C library has others for itself
    assert [int(mask.split()[1], 16) & ours for mask in masks] == [
        int(mask.split()[1], 16) & ours for mask in alone
    ]


def test_the_exit_status_is_that_of_the_command(base: Path) -> None:
    """Or what shells say of one that can't be run."""
    with running_daemon(base):
        for command, status in (
            (("sh", "-c", "exit 7"), 7),
            (("sh", "-c", "kill -KILL $$"), 137),
            (("no-such-program",), 127),
            (("/etc/hostname",), 126),
        ):
            assert run(base, *command).returncode == status


# --- joining ---------------------------------------------------------------------------------------


def test_a_daemon_that_runs_is_joined_and_left_running(base: Path, tmp_path: Path) -> None:
    """Wherever it serves."""
    endpoint = f"ipc://{tmp_path}/elsewhere.sock"
    with running_daemon(base, "--bind", endpoint) as daemon:
        assert run(base, *python(PROGRAM, "job-1")).returncode == 0
        assert daemon.process is not None
        assert daemon.process.poll() is None
        assert daemon_pid(base) == daemon.pid
        with Client(endpoint) as client:
            assert len(client.get_events_by_run("job-1", "r")) == 300


def test_the_last_of_several_stops_the_daemon(base: Path) -> None:
    """The one that started it ends first: its daemon goes on for the other, and ends with that."""
    with running(base, *python(WAITING, "first")) as first:
        assert first.line() == "stored"
        pid = daemon_pid(base)
        with running(base, *python(WAITING, "second")) as second:
            assert second.line() == "stored"
            assert first.end() == 0
            assert daemon_pid(base) == pid
            assert is_served(base)
            assert second.end() == 0
            assert second.line() == "stored again"
    assert not is_served(base)
    assert jobs(base) == ["first", "first again", "second", "second again"]


def test_many_at_once_share_one_daemon(base: Path) -> None:
    """The first of them starts it; none fails, and in the end it is gone."""
    names = [f"job-{n}" for n in range(4)]
    started = [Running(base, *python(WAITING, name)) for name in names]
    assert [one.line() for one in started] == ["stored"] * 4
    with Client(base_path=base) as client:
        assert sorted(job["id"] for job in client.get_all_jobs()) == names
    assert [one.end() for one in started] == [0] * 4
    for one in started:
        one.process.communicate()
    assert not is_served(base)
    assert len(jobs(base)) == 8


def test_what_a_killed_exec_left_running_is_stopped_by_the_next(base: Path) -> None:
    with running(base, "sh", "-c", "echo runs; read line") as first:
        assert first.line() == "runs"
        pid = daemon_pid(base)
        first.process.kill()
        first.process.wait()
        assert daemon_pid(base) == pid
        assert is_served(base)
        assert run(base, *python(PROGRAM, "job-1")).returncode == 0
    assert not is_served(base)


def test_a_daemon_that_dies_under_the_command_is_reported(base: Path) -> None:
    """The status is the command's all the same; the next exec finds a base to serve."""
    killing = 'kill -KILL $(sed "s/[^0-9]*\\([0-9]*\\).*/\\1/" $PERSTACK_STORED_BASE/.stored/exec); exit 3'
    done = run(base, "sh", "-c", killing)
    assert done.returncode == 3
    assert "the daemon failed, with status -9" in done.stderr
    assert run(base, *python(PROGRAM, "job-1")).returncode == 0


# --- signals ---------------------------------------------------------------------------------------

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


# --- no daemon -------------------------------------------------------------------------------------


def test_the_last_words_of_a_daemon_that_does_not_start_are_shown(base: Path) -> None:
    """Nothing is run then."""
    base.mkdir()
    (base / "jobs").symlink_to("/etc")
    done = run(base, "touch", str(base / "ran"))
    assert done.returncode == 125
    assert "jobs/ in the base must be a folder" in done.stderr
    assert not (base / "ran").exists()


def test_a_base_that_an_offline_tool_holds_is_refused(base: Path) -> None:
    """The tool is named."""
    assert run(base, "true").returncode == 0
    code = (
        "import sys; from perstack_stored.offline.locked import locked_datadir\n"
        "with locked_datadir(sys.argv[1], 'rebuild', reads_only=False):\n"
        "    print('held', flush=True); sys.stdin.readline()"
    )
    holder = subprocess.Popen(
        python(code, str(base)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    done = run(base, "true")
    assert done.returncode == 125
    assert f"held by the rebuild with process id {holder.pid}" in done.stderr
    holder.communicate("\n")


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


# --- who a process is ------------------------------------------------------------------------------


@pytest.mark.parametrize("process", [{"process": "another boot 1"}, {}])
def test_a_daemon_that_has_the_number_of_one_that_exec_started_is_left_running(
    base: Path, process: dict[str, str]
) -> None:
    """Numbers come again, in containers each time: the one that was written down has ended long ago."""
    with running_daemon(base) as daemon:
        (base / ".stored/exec").write_text(json.dumps({"pid": daemon.pid, **process}))
        assert run(base, "true").returncode == 0
        daemon.assert_alive()
        assert is_served(base)


def test_a_lock_that_names_an_earlier_process_is_not_believed(base: Path) -> None:
    """The process that has that number now does not hold the base."""
    assert run(base, "true").returncode == 0
    folder = os.open(base / ".stored", os.O_RDONLY)
    with (base / ".stored/lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for process, named in ((identity_of(os.getpid()), os.getpid()), ("another boot 1", 0)):
            lock.seek(0)
            lock.truncate()
            lock.write(json.dumps({"pid": os.getpid(), "process": process, "role": "daemon"}))
            lock.flush()
            holder = holder_of(folder)
            assert holder is not None
            assert holder.pid == named
            assert describe((base / ".stored/lock").read_bytes())[1] is bool(named)
    os.close(folder)


# --- as the first process of a container -----------------------------------------------------------


# Runs a command to which children come whose parent ends, as to process 1 (PR_SET_CHILD_SUBREAPER).
INHERITING = "import ctypes, os, sys; ctypes.CDLL(None).prctl(36, 1); os.execv(sys.argv[1], sys.argv[1:])"


def test_orphans_of_the_command_are_waited_for(base: Path) -> None:
    """As process 1 it inherits them; none stays as a zombie, and the status is still the command's."""
    orphans = "for i in 1 2 3 4 5; do (sh -c 'sleep 0.1; exit 9' &); done; echo on; read line; exit 4"
    started = subprocess.Popen(
        [*python(INHERITING), *arguments(base, "sh", "-c", orphans)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=clean_environment(),
    )
    assert started.stdout is not None
    assert started.stdout.readline() == b"on\n"

    def states() -> list[bytes]:
        """Of its children: the command and the daemon stay."""
        found = []
        for pid in Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split():
            with contextlib.suppress(OSError):
                found.append(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1])
        return found

    eventually(lambda: len(states()) == 2 and b"Z" not in states(), "all were waited for")
    started.communicate(b"\n", timeout=120)
    assert started.returncode == 4
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
