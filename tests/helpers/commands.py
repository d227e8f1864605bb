"""Runs `perstack-stored` in forks of one process that has imported it.

An interpreter that starts and imports costs some 0.4 s of CPU time, hundreds of times in a run of the tests.
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
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_SECONDS = 120.0
_REQUEST_BYTES_MAX = 1 << 20
_PACKAGES = ("perstack_stored.cli", "perstack_stored.offline")


class _Server:
    """The process that forks, and our line to it. It ends with the process that started it."""

    def __init__(self) -> None:
        self.line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.line.settimeout(_SECONDS)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                cwd=_ROOT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        atexit.register(self.end)

    def end(self) -> None:
        """End it, and the command that it runs."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self.line.close()


@functools.cache
def _server() -> _Server:
    return _Server()


def run(*arguments: str, environment: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    """Run `perstack-stored` in this process's folder and environment, to which `environment` adds."""
    request = json.dumps([arguments, os.getcwd(), {**os.environ, **(environment or {})}]).encode()
    server = _server()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            socket.send_fds(server.line, [request], [out.fileno(), err.fileno()])
            status = int(server.line.recv(_REQUEST_BYTES_MAX))
        except BaseException:
            _server.cache_clear()
            server.end()
            raise
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(file.read().decode())
    return subprocess.CompletedProcess(["perstack-stored", *arguments], status, *said)


def _serve(line: socket.socket) -> None:
    while True:
        request, fds, _, _ = socket.recv_fds(line, _REQUEST_BYTES_MAX, 2)
        if not request:
            return
        pid = os.fork()
        if pid == 0:
            line.close()
            _become(fds, *json.loads(request))
            return
        for fd in fds:
            os.close(fd)
        _, status = os.waitpid(pid, 0)
        line.send(str(os.waitstatus_to_exitcode(status)).encode())


def _become(fds: list[int], arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    """Be the command; SystemExit ends the process as it ends any other."""
    for fd, number in zip(fds, (1, 2), strict=True):
        os.dup2(fd, number)
        os.close(fd)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["perstack-stored", *arguments]
    runpy.run_module("perstack_stored", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    for name in _PACKAGES:
        for module in pkgutil.iter_modules(importlib.import_module(name).__path__, f"{name}."):
            importlib.import_module(module.name)
    gc.freeze()
    _serve(socket.socket(fileno=int(sys.argv[1])))
