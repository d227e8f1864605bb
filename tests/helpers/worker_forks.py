"""Workers of a daemon that is a fork: forks as well, of a spare process that the daemon keeps.

Workers that start an interpreter each take two fifths of the CPU time of a test's daemon. The spare process
forks off before the daemon has threads, sockets or files; its own forks are children of the daemon.
"""

import contextlib
import ctypes
import fcntl
import importlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn

from perstack_stored.process import interpreter

_SYS_CLONE = {"x86_64": 56, "aarch64": 220}.get(os.uname().machine)
_CLONE_PARENT = 0x8000
_REQUEST_BYTES_MAX = 1 << 18
_DESCRIPTORS_MAX = 64


class _Worker(subprocess.Popen[bytes]):
    """A child that runs already, for the daemon to wait for and to kill."""

    def __init__(self, pid: int) -> None:
        self.args, self.pid, self.returncode = [], pid, None
        self.stdin = self.stdout = self.stderr = None
        self._child_created = True
        self._waitpid_lock = threading.Lock()


class _Spare:
    """The daemon's line to the process that forks."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._lock = threading.Lock()

    def start(self, module: str, *arguments: str, pass_fds: Sequence[int]) -> subprocess.Popen[bytes]:
        """In place of `interpreter.start`."""
        umask = os.umask(0o077)
        os.umask(umask)
        request = [module, arguments, list(pass_fds), umask, resource.getrlimit(resource.RLIMIT_NOFILE)]
        with self._lock:
            socket.send_fds(self._line, [json.dumps(request).encode()], pass_fds)
            answer = self._line.recv(64)
        if not answer:
            raise OSError("the process that forks has ended")
        return _Worker(int(answer))


def keep_spare() -> None:
    """Fork off the spare process, and start workers by it from now on. Never returns in the spare process."""
    if _SYS_CLONE is None:
        return
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork():
        theirs.close()
        interpreter.start = _Spare(ours).start
        return
    ours.close()
    signal.pthread_sigmask(signal.SIG_BLOCK, interpreter.GROUP_SIGNALS)  # a worker begins so
    while True:
        try:
            request, fds, _, _ = socket.recv_fds(theirs, _REQUEST_BYTES_MAX, _DESCRIPTORS_MAX)
        except ConnectionError:  # the daemon was killed before it read an answer
            os._exit(0)
        if not request:
            os._exit(0)
        pid = _fork_sibling(_SYS_CLONE)
        if not pid:
            _become(fds, *json.loads(request))
        for fd in fds:
            os.close(fd)
        with contextlib.suppress(ConnectionError):
            theirs.send(str(pid).encode())


def _fork_sibling(number: int) -> int:
    """As `os.fork`, but the child is one of this process's parent."""
    python = ctypes.pythonapi
    clone = ctypes.PyDLL(None).syscall  # keeps the interpreter's lock
    python.PyOS_BeforeFork()
    pid: int = clone(number, _CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0)
    if pid:
        python.PyOS_AfterFork_Parent()
    else:
        python.PyOS_AfterFork_Child()
    assert pid >= 0
    return pid


def _become(
    fds: list[int], module: str, arguments: list[str], numbers: list[int], umask: int, files: list[int]
) -> NoReturn:
    """Be the worker; SystemExit ends the process as it ends any other."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (files[0], files[1]))
    os.umask(umask)
    free = max(*fds, *numbers) + 1
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD, free) for fd in fds]
    os.closerange(3, free)
    for fd, number in zip(moved, numbers, strict=True):
        os.dup2(fd, number)
        os.close(fd)
    sys.argv[:] = [module, *arguments]
    _show_arguments([sys.executable, *sys.argv])
    importlib.import_module(module).main()
    sys.exit()


def _show_arguments(words: list[str]) -> None:
    """Let /proc/self/cmdline show them, over those of the process that forks."""
    with open("/proc/self/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    text = "\0".join(words).encode()[: end - start - 1]
    ctypes.memmove(start, text.ljust(end - start, b"\0"), end - start)
