"""What the tests share: real daemons on real folders, the captured runs, the files of a tree."""

import contextlib
import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.helpers import forks

_INTERPRETER = ("-m", "perstack_stored")
DATA = Path(__file__).parents[1] / "data"
START_SECONDS = 120.0
_READ_AT_START = ("LD_", "PYTHON", "LC_", "LANG")  # by linker and interpreter: too late for a fork
# Most conditions cost CPU time of a daemon: a longer wait asks less often.
# Beside load, index and tree need longer than the usual 5 s to come to the end of the journal at a stop.
_PATIENT = {"PERSTACK_STORED_STOP_SECONDS": "30"}
_POLL_SECONDS, _POLL_FACTOR, _POLL_SECONDS_MAX = 0.01, 1.2, 0.05


class RunningDaemon:
    """A daemon process of its own on a base; its log goes to `log`.

    A fork of a process that has imported it, unless it runs by `prefix`, a command, or by `program`, the
    arguments of an interpreter, or `environment` has what counts only at the start of a process.
    """

    def __init__(
        self,
        base: Path,
        *arguments: str,
        environment: dict[str, str] | None = None,
        log: Path | None = None,
        prefix: tuple[str, ...] = (),
        program: tuple[str, ...] = (),
    ) -> None:
        self.base = base
        self.log = log or base.parent / f"{base.name}.log"
        self._arguments = arguments
        self._prefix = prefix
        self._program = program
        self._is_forked = not (prefix or program) and not any(
            name.startswith(_READ_AT_START) for name in environment or ()
        )
        self._environment = {**_PATIENT, **os.environ, **(environment or {})}
        self.process: subprocess.Popen[bytes] | forks.Fork | None = None

    @property
    def endpoint(self) -> str:
        """The endpoint of the base."""
        return f"ipc://{self.base}/.stored/stored.sock"

    @property
    def pid(self) -> int:
        """Process id."""
        assert self.process is not None
        return self.process.pid

    def start(self, *, wait: bool = True) -> "RunningDaemon":
        """Start it; with `wait`, until it says that it is ready."""
        before = self.log.stat().st_size if self.log.exists() else 0
        serve = ["serve", "--base-path", str(self.base), *self._arguments]
        with self.log.open("ab") as log:
            if not self._is_forked or not forks.ARE_USED:
                command = [*self._prefix, sys.executable, *(self._program or _INTERPRETER), *serve]
                self.process = subprocess.Popen(
                    command, stderr=log, stdin=subprocess.DEVNULL, env=self._environment
                )
            else:
                self.process = forks.start(serve, self._environment, 1, log.fileno())
        if wait:
            eventually(lambda: self._is_ready(before), "the daemon is ready", START_SECONDS)
        return self

    def _is_ready(self, before: int) -> bool:
        assert self.process is not None
        text = self.log.read_bytes()[before:]
        assert self.process.poll() is None, f"the daemon ended:\n{text.decode()}"
        return b'"event": "ready"' in text

    def assert_alive(self) -> None:
        """It runs; if not, its log says why."""
        assert self.process is not None
        status = self.process.poll()
        assert status is None, f"the daemon ended with status {status}:\n{self.log.read_text()[-4000:]}"

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=120)

    def make_sure_it_ended(self) -> None:
        """Kill it if it still runs."""
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def workers(self) -> dict[str, int]:
        """Process ids of the workers that run now, by kind."""
        found = {}
        for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if b"perstack_stored.projection.worker" in arguments:
                    kind = arguments[arguments.index(b"perstack_stored.projection.worker") + 1]
                    found[kind.decode()] = int(pid)
                elif b"perstack_stored.keeper.worker" in arguments:
                    found["keeper"] = int(pid)
                elif b"perstack_stored.mirror.worker" in arguments:
                    is_of_tree = any(b'"is_of_tree":true' in argument for argument in arguments)
                    found["mirror-tree" if is_of_tree else "mirror"] = int(pid)
        return found

    def events(self, name: str) -> list[dict[str, Any]]:
        """Lines of the log with this event."""
        lines = [json.loads(line) for line in self.log.read_bytes().splitlines() if line.startswith(b"{")]
        return [line for line in lines if line["event"] == name]


@contextmanager
def running_daemon(
    base: Path, *arguments: str, environment: dict[str, str] | None = None
) -> Iterator[RunningDaemon]:
    """A ready daemon on `base`; killed at the end if it still runs."""
    daemon = RunningDaemon(base, *arguments, environment=environment).start()
    try:
        yield daemon
    finally:
        daemon.make_sure_it_ended()


def eventually(condition: Callable[[], bool], what: str, seconds: float = 200.0) -> None:
    """Poll until the condition holds. Beside load, a process of low priority needs a minute for a second."""
    deadline = time.monotonic() + seconds
    pause = _POLL_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(pause)
        pause = min(pause * _POLL_FACTOR, _POLL_SECONDS_MAX)


_LAZY = ("anon_inode:", "socket:", "pipe:", "/proc/")


def open_files() -> dict[int, str]:
    """Open files and folders.

    A ZeroMQ context opens sockets and events, multiprocessing a pipe, and `Files` a folder of /proc, when
    these are first needed, and keep them.
    """
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the listing
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return {fd: target for fd, target in found.items() if not target.startswith(_LAZY)}


def refuses_descriptors() -> bool:
    """Whether this kernel lets a Unix socket refuse the open files of others (SO_PASSRIGHTS)."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.setsockopt(socket.SOL_SOCKET, 83, 0)
        except OSError:
            return False
    return True


def captured_run(name: str) -> list[tuple[str, dict[str, Any]]]:
    """Operation and value of each store call of a captured run ("a", "b" or "c"), in call order."""
    with gzip.open(DATA / f"perstack-run-{name}.jsonl.gz", "rt") as lines:
        calls = [json.loads(line) for line in lines]
    return [(call["op"], call["value"]) for call in calls]


def under_other_job(value: dict[str, Any], job: str) -> dict[str, Any]:
    """The same value in another job: "job1" is the captured run's own, others belong to its delegates."""
    if "jobId" in value:
        return {**value, "jobId": job}
    return {**value, "id": job if value["id"] == "job1" else f"{job}.{value['id']}"}


def golden() -> dict[str, Any]:
    """Calls made on the reference, the files that it wrote, and its answers."""
    loaded: dict[str, Any] = json.loads((DATA / "reference-golden.json").read_bytes())
    return loaded


def files_of(base: Path) -> dict[str, bytes]:
    """Every file of the tree: path below the base, and content."""
    return {
        str(path.relative_to(base)): path.read_bytes()
        for path in sorted((base / "jobs").rglob("*"))
        if path.is_file()
    }
