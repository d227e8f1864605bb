"""Signals whose effect is awaited."""

import os
import signal
from pathlib import Path

from tests.helpers.daemon import eventually


def stop(pid: int) -> None:
    """Stop a process (SIGSTOP), as if it hung. Beside load its threads run on for a while: wait for all."""
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: _states(pid) <= set("TtZX"), f"process {pid} has stopped")


def _states(pid: int) -> set[str]:
    states = set()
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        try:
            states.add(stat.read_text().rpartition(")")[2].split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue  # a thread that has ended
    return states
