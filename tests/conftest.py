"""What holds for all tests."""

import contextlib
import gc
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import settings

from tests.helpers import forks
from tests.helpers.daemon import open_files
from tests.helpers.order import long_ones_first

# A machine that is busy with something else makes no test wrong: none is timed.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Some tests hold hundreds of connections; the usual soft limit of 1,024 descriptors is for other programs.
_, _most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (_most, _most))

# What a script starts in the background ignores Ctrl-C, and so would the programs that are tried.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_leave_process = subprocess.Popen.__exit__


def _end_and_leave_process(process: subprocess.Popen[Any], kind: Any, error: Any, trace: Any) -> None:
    """Where a test fails, or its time is over, `with Popen(…)` would wait for ever if the process hangs."""
    if kind is not None:
        process.kill()
    _leave_process(process, kind, error, trace)


subprocess.Popen.__exit__ = _end_and_leave_process  # type: ignore[method-assign]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: begins before all others, or it would end after them")
    # The lines that a fork runs are not counted.
    forks.ARE_USED = "COVERAGE_PROCESS_CONFIG" not in os.environ


@pytest.hookimpl(trylast=True)  # after the order is random
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let each process of a run begin with its share of the long tests."""
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    items[:] = long_ones_first(items, processes, lambda item: item.get_closest_marker("long") is not None)


def pytest_collection_finish() -> None:
    """What is there now stays: a collection of garbage, as below after each test, need not look at it."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def interpreters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start each daemon as a user does, for tests of the start itself."""
    monkeypatch.setattr(forks, "ARE_USED", False)


@pytest.fixture(autouse=True)
def _leaves_no_descriptors(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """A test that leaves descriptors open makes those after it fail: they count them, or run out of them.

    Many tests let a simulated process die with its files open. The kernel closes those of a real process;
    here the fixture does.
    """
    before, threads = open_files(), set(threading.enumerate())
    yield
    if len(open_files()) <= len(before):
        return
    _wait_for_threads(set(threading.enumerate()) - threads)
    request.node.funcargs.clear()  # what only the test's own objects hold goes with them
    for generation in (1, 2):  # most were made a moment ago
        gc.collect(generation)
        if len(open_files()) <= len(before):
            return
    folders = str(tmp_path_factory.getbasetemp())
    left = [(fd, target) for fd, target in open_files().items() if before.get(fd) != target]
    of_others = [target for _, target in left if not target.startswith(folders)]
    for fd, target in left:
        if target not in of_others:
            with contextlib.suppress(OSError):  # a thread that still runs has closed it
                os.close(fd)
    assert len(open_files()) <= len(before), f"left open: {sorted(of_others)}"


def _wait_for_threads(threads: set[threading.Thread]) -> None:
    """Let threads that a test has started end, for at most 5 s in all: they close their own files."""
    end = time.monotonic() + 5
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))


@pytest.fixture(autouse=True)
def _leaves_no_log_set_up() -> Iterator[None]:
    """A test that configures the log, or runs a command that does, must not silence those after it."""
    before = structlog.get_config()
    yield
    if structlog.get_config() == before:
        return
    structlog.configure(**before)
    for module in list(sys.modules.values()):
        logger = vars(module).get("_log")
        if isinstance(logger, type(structlog.get_logger())):
            vars(logger).pop("bind", None)  # the set-up that the module's logger keeps from its first line
