"""The interface of all contenders."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from tests.bench.load import Load, Round
from tests.bench.run_agents import Worked


class Contender(Protocol):
    """A store, or a limit of the machine, under the load of one round."""

    name: str

    def missing(self) -> str | None:
        """Names what is not installed, with the command that installs it."""

    def sync_mode(self) -> str:
        """What is on disk when an event counts as acknowledged, and how that is set."""

    def version(self) -> str:
        """Its version."""

    def round(self, folder: Path, load: Load) -> Round:
        """Runs one round on a folder of its own; counts what is stored at the end."""


class Server:
    """A contender with agents: it is started, loaded, settled, audited and stopped."""

    name: str

    def round(self, folder: Path, load: Load) -> Round:
        """One round."""
        address = self.start(folder)
        try:
            worked = self.work(address, load)
            settled = self.settle(address)
            audited = self.audit(folder, address)
        finally:
            self.stop()
        return figures(worked, audited, settled)

    def start(self, folder: Path) -> str:
        """Starts it on the folder; returns what the agents connect to."""
        raise NotImplementedError

    def work(self, address: str, load: Load) -> Worked:
        """Lets the agents work."""
        raise NotImplementedError

    def settle(self, address: str) -> float:
        """Waits for work after the last answer; returns the time of its end, 0 if there is none."""
        return 0.0

    def audit(self, folder: Path, address: str) -> int:
        """Counts the events that are stored."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stops it."""


def figures(worked: Worked, audited: int, settled: float = 0.0) -> Round:
    """The figures of a round whose audit must agree with what was acknowledged."""
    seconds = worked.end - worked.begin
    return Round(
        worked.count,
        worked.count / seconds,
        worked.count / max(seconds, settled - worked.begin),
        worked.latencies_ms,
        audited,
    )


def count_files(base: Path) -> int:
    """Number of event files below a base."""
    return sum(
        name.startswith("event-") and name.endswith(".json")
        for _, _, names in os.walk(base / "jobs")
        for name in names
    )


def output(*command: str) -> str:
    """What a command prints, in one line; the reason if it can't be run."""
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return " ".join((found.stdout or found.stderr).split())


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Polls until the condition holds; an error counts as false."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except Exception as error:  # noqa: BLE001 - a server that starts refuses in ways of its own
            last: object = error
        else:
            last = "no"
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {seconds} s: {what} ({last})")
        time.sleep(0.01)
