"""Runs the daemon's program in forks of one process that has imported it.

An interpreter that starts and imports costs some 0.2 s of CPU time, a thousand times in a run of the tests.
A test of the start itself starts an interpreter.
"""

import atexit
import functools
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from perstack_stored.process.late_asyncio import import_asyncio_late
from tests.helpers import worker_forks

ARE_USED = False
"""For daemons: the tests set it. Campaigns and benchmarks start each as a user does."""

_ROOT = Path(__file__).parents[2]
_SECONDS = 120.0
_ARGUMENT_BYTES = 8192  # room for a worker's arguments
_REQUEST_BYTES_MAX = 1 << 20
_PACKAGES = ("cli", "keeper", "offline", "projection", "server", "store")


class Fork:
    """A process that has forked off, for the test to see as `subprocess.Popen` shows one."""

    def __init__(self, server: "_Server", pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._server = server
        self._pidfd = os.pidfd_open(pid)  # its number stays taken until the server reaps it
        self._reaping = threading.Lock()

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; `subprocess.TimeoutExpired` after `timeout` seconds."""
        status = self._ended(timeout)
        if status is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(["perstack-stored"], timeout)
        return status

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _ended(self, seconds: float | None) -> int | None:
        if self.returncode is None:
            ended = select.poll()
            ended.register(self._pidfd, select.POLLIN)
            if ended.poll(None if seconds is None else seconds * 1000):
                with self._reaping:  # once, whichever thread comes first
                    if self.returncode is None:
                        self.returncode = self._server.ask([self.pid])
        return self.returncode

    def __del__(self) -> None:
        os.close(self._pidfd)


class _Server:
    """The process that forks, and our line to it. It ends with the process that started it."""

    def __init__(self) -> None:
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._line.settimeout(_SECONDS)
        self._lock = threading.Lock()
        self._last_request = 0
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno()), "-" * _ARGUMENT_BYTES],
                stdin=subprocess.DEVNULL,
                cwd=_ROOT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        atexit.register(self.end)

    def ask(self, request: list[Any], *fds: int) -> int:
        """One request, and the number that answers it."""
        with self._lock:
            self._last_request += 1
            socket.send_fds(self._line, [json.dumps([self._last_request, *request]).encode()], fds)
            while True:  # a test whose time was over may have left an answer
                number, answer = map(int, self._line.recv(_REQUEST_BYTES_MAX).split())
                if number == self._last_request:
                    return answer

    def end(self) -> None:
        """End it, and all that has forked off."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._line.close()


@functools.cache
def _server(_pid: int, _mounts: str) -> _Server:
    """One for each process and what it sees: a test that mounts something enters a namespace of its own."""
    return _Server()


def start(arguments: list[str], environment: dict[str, str], out: int, err: int) -> Fork:
    """Run `perstack-stored` in this process's folder and with its umask; `out` and `err` are descriptors."""
    umask = os.umask(0o077)
    os.umask(umask)
    server = _server(os.getpid(), os.readlink("/proc/thread-self/ns/mnt"))
    return Fork(server, server.ask([arguments, os.getcwd(), umask, environment], out, err))


def _serve(line: socket.socket) -> None:
    while True:
        try:
            request, fds, _, _ = socket.recv_fds(line, _REQUEST_BYTES_MAX, 2)
        except ConnectionError:  # the process that asked ended before it read an answer
            request, fds = b"", []
        if not request:
            os.killpg(0, signal.SIGKILL)
        number, *what = json.loads(request)
        if not fds:
            answer = os.waitstatus_to_exitcode(os.waitpid(what[0], 0)[1])
        elif not (answer := os.fork()):
            line.close()
            return _become(fds, *what)
        for fd in fds:
            os.close(fd)
        line.send(f"{number} {answer}".encode())


def _become(
    fds: list[int], arguments: list[str], folder: str, umask: int, environment: dict[str, str]
) -> None:
    """Be the command; SystemExit ends the process as it ends any other."""
    for fd, number in zip(fds, (1, 2), strict=True):
        os.dup2(fd, number)
        os.close(fd)
    os.chdir(folder)
    os.umask(umask)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["perstack-stored", *arguments]
    if arguments[:1] == ["serve"]:
        worker_forks.keep_spare()
    runpy.run_module("perstack_stored", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    import_asyncio_late()
    for name in [f"perstack_stored.{package}" for package in _PACKAGES]:
        for module in pkgutil.iter_modules(importlib.import_module(name).__path__, f"{name}."):
            importlib.import_module(module.name)
    gc.freeze()
    _serve(socket.socket(fileno=int(sys.argv[1])))
