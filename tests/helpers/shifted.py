"""A real daemon whose time of day a test sets."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.helpers.daemon import RunningDaemon
from tests.helpers.raw_client import Raw

# The real daemon, whose process sees the clock through a file: its difference from the true time in ms.
_PROGRAM = """
import runpy, sys, time
real, up, path, passes = time.time_ns, time.clock_gettime, sys.argv.pop(1), sys.argv.pop(1) == "True"
def shift():
    with open(path) as file:
        return int(file.read())
time.time_ns = lambda: real() + shift() * 1_000_000
time.time = lambda: time.time_ns() / 1e9
if passes:
    time.clock_gettime = lambda id: up(id) + (shift() / 1e3 if id == time.CLOCK_BOOTTIME else 0)
runpy.run_module("perstack_stored", run_name="__main__", alter_sys=True)
"""


class Clock:
    """The daemon's idea of the time of day."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.set(0)

    def set(self, shift_ms: int) -> None:
        """Let it differ from the true time by `shift_ms` from now on."""
        new = self.path.with_suffix(".new")
        new.write_text(str(shift_ms))
        new.rename(self.path)


def shifted_program(clock: Clock, *, passes: bool = False) -> tuple[str, ...]:
    """Arguments of the interpreter for a daemon that lives by this clock, see `shifted_daemon`."""
    return "-c", _PROGRAM, str(clock.path), str(passes)


def shifted_command(clock: Clock, *words: str) -> str:
    """What a command of the daemon prints that lives by this clock."""
    program = (sys.executable, *shifted_program(clock), *words)
    return subprocess.run(program, capture_output=True, check=True, timeout=120, text=True).stdout


@contextmanager
def shifted_daemon(base: Path, clock: Clock, *settings: str, passes: bool = False) -> Iterator[RunningDaemon]:
    """A ready daemon that lives by this clock; with `passes`, the time that it is set forth passes."""
    program = [sys.executable, *shifted_program(clock, passes=passes)]
    daemon = RunningDaemon(base)
    with daemon.log.open("ab") as log:
        daemon.process = subprocess.Popen(
            [*program, "serve", "--base-path", str(base), *settings],
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=os.environ.copy(),
        )
    try:
        with Raw(daemon.endpoint) as raw:
            raw.send("ping")
            raw.receive(30)
        yield daemon
    finally:
        daemon.kill()
