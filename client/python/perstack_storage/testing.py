"""Daemons for tests, with pytest: `pytest_plugins = "perstack_storage.testing"` in the root `conftest.py`.

It is no entry point of pytest: that would load it in each test run of a machine that has the client. This is
the only module that imports pytest. The daemon is a program of its own; nothing of it is imported.

A daemon ends with this process, however that ends: it watches a pipe from here.
"""

import contextlib
import importlib.util
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import pytest

from perstack_storage import Client, EndpointError, close_default_client, socket_path_of
from perstack_storage._wire.endpoint import BASE_VARIABLE, ENDPOINT_VARIABLE

__all__ = ["TestDaemon", "perstack_client", "perstack_daemon", "perstack_fresh_daemon", "perstack_job_id"]

_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_POLL_SECONDS = 0.005
_LOG_BYTES = 4000
# Small segments: the daemon fills the next one with zeros before it needs it.
_FLAGS = ("--stop-with-stdin", "--log-format", "json", "--segment-bytes", str(1 << 20))
_FIRST_SEGMENT = ("--first-segment-bytes", str(1 << 16))
_READY = b'"event": "ready"'


class TestDaemon:
    """A daemon of a test, on a base in a temporary folder. It serves a Unix socket there.

    Attributes:
        base: the base; its tree is in `jobs/`.
        endpoint: for clients: `Client(daemon.endpoint)`.
        log: the file of the daemon's log, JSON lines.
    """

    __test__ = False  # no class of tests, for pytest

    def __init__(self, base: Path, *flags: str) -> None:
        """Prepare a daemon; `start` or `with` starts it.

        Args:
            base: a folder that need not exist.
            flags: more flags of `perstack-stored serve`.
        """
        self.base = Path(os.path.realpath(base))
        self.endpoint = f"ipc://{self._socket_path()}"
        self.log = self.base.with_name(f"{self.base.name}.log")
        self._flags = flags
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    def _socket_path(self) -> str:
        """In the base, as ever; in a short folder where that path is too long for a socket."""
        try:
            return socket_path_of(str(self.base))
        except EndpointError:
            folder = tempfile.mkdtemp(prefix="perstack-", dir="/tmp")  # open to this user alone
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            return os.path.join(folder, "stored.sock")

    def start(self) -> None:
        """Start it, also again after `stop` or `kill`, and wait until it serves.

        Raises:
            RuntimeError: it does not start, or is not installed; the message has the end of its log.
        """
        self.begin()
        self.wait_ready()

    def begin(self) -> None:
        """Start it without waiting; `wait_ready` must follow."""
        if self._process is not None:
            raise RuntimeError("it was started before")
        self.base.parent.mkdir(parents=True, exist_ok=True)
        # Settings of the person who tests are not for this daemon, nor is a service manager's socket.
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("PERSTACK_STORED_") and name not in {"NOTIFY_SOCKET", "LISTEN_FDS"}
        }
        arguments = ["serve", "--base-path", str(self.base), "--bind", self.endpoint]
        arguments += [*_FLAGS, *_FIRST_SEGMENT, *self._flags]
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            # Ctrl-C at a terminal is for the tests. The pipe's end says that this process has ended.
            self._process = subprocess.Popen(  # noqa: S603 - the daemon of this package
                [*_command(), *arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=kept,
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        """Wait until it serves. Raises RuntimeError as `start` does."""
        process = self._running()
        deadline = time.monotonic() + _START_SECONDS
        while _READY not in self._log_text():
            if process.poll() is not None or time.monotonic() > deadline:
                said = self._log_text()[-_LOG_BYTES:].decode(errors="replace")
                self.kill()
                raise RuntimeError(f"perstack-stored did not start; its log {self.log} ends with:\n{said}")
            time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        """Stop it as an operator does: what was stored is in the tree then.

        Raises:
            RuntimeError: it ended with another status than 0.
        """
        process = self._running()
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(_STOP_SECONDS)
        finally:
            self.kill()
        if status:
            raise RuntimeError(f"perstack-stored ended with status {status}; see {self.log}")

    def kill(self) -> None:
        """Kill it, as a crash does; nothing if it does not run. What was acknowledged is there later."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()

    def __enter__(self) -> "TestDaemon":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("it was not started")
        return self._process

    def _log_text(self) -> bytes:
        with self.log.open("rb") as file:
            file.seek(self._log_start)
            return file.read()


def _command() -> list[str]:
    """The command of the daemon: of this interpreter, else of PATH."""
    if importlib.util.find_spec("perstack_stored") is not None:
        return [sys.executable, "-P", "-m", "perstack_stored"]
    found = shutil.which("perstack-stored")
    if found is None:
        raise RuntimeError("the daemon is not installed: install this package again with its extra 'daemon'")
    return [found]


# --- fixtures --------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def perstack_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestDaemon]:
    """The daemon that all tests of this process share. With pytest-xdist each worker has its own."""
    with TestDaemon(tmp_path_factory.mktemp("perstack") / "base") as daemon:
        yield daemon


@pytest.fixture
def perstack_client(perstack_daemon: TestDaemon, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client of the shared daemon, which the code under test finds as well, by the environment.

    Other tests store there too: use `perstack_job_id`, or `perstack_fresh_daemon` for what lists all jobs.
    """
    with _found(perstack_daemon, monkeypatch), Client(perstack_daemon.endpoint) as client:
        yield client


@pytest.fixture
def perstack_job_id() -> str:
    """An id of a job that no other test has."""
    return f"job-{uuid.uuid4().hex}"


@pytest.fixture
def perstack_fresh_daemon(
    _perstack_spares: "_Spares", monkeypatch: pytest.MonkeyPatch
) -> Iterator[TestDaemon]:
    """A daemon with an empty base for this test alone; the code under test finds it by the environment."""
    daemon = _perstack_spares.take()
    try:
        daemon.wait_ready()
        with _found(daemon, monkeypatch):
            yield daemon
    finally:
        daemon.kill()


@pytest.fixture(scope="session")
def _perstack_spares(tmp_path_factory: pytest.TempPathFactory) -> Iterator["_Spares"]:
    spares = _Spares(tmp_path_factory.mktemp("perstack-fresh"))
    yield spares
    spares.end()


class _Spares:
    """Starts the daemon of the next test while this one runs."""

    def __init__(self, folder: Path) -> None:
        self._bases = (folder / f"{number}" / "base" for number in itertools.count(1))
        self._spare: TestDaemon | None = None

    def take(self) -> TestDaemon:
        daemon = self._spare or self._begin()
        self._spare = self._begin()
        return daemon

    def end(self) -> None:
        if self._spare is not None:
            self._spare.kill()

    def _begin(self) -> TestDaemon:
        daemon = TestDaemon(next(self._bases))
        daemon.begin()
        return daemon


@contextlib.contextmanager
def _found(daemon: TestDaemon, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let clients without arguments, and processes that are started, use a daemon."""
    close_default_client()
    monkeypatch.setenv(BASE_VARIABLE, str(daemon.base))
    monkeypatch.setenv(ENDPOINT_VARIABLE, daemon.endpoint)
    try:
        yield
    finally:
        close_default_client()
