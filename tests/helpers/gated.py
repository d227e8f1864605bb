"""A daemon whose syncs beside the loop wait for as long as a file is there."""

import os
import subprocess
import sys
from pathlib import Path

from tests.helpers.daemon import RunningDaemon, eventually

GATHERED = 8  # while a sync runs, fewer stores than these are not written yet

_PROGRAM = """
import runpy, sys, threading, time
from pathlib import Path
from perstack_stored.datadir.filesystem import FileSystem
gate, real = Path(sys.argv.pop(1)), FileSystem.sync_data

def sync_data(self, fd):
    if threading.current_thread().name == "sync" and gate.exists():
        gate.with_suffix(".met").touch()
        while gate.exists():
            time.sleep(0.01)
    real(self, fd)

FileSystem.sync_data = sync_data
runpy.run_module("perstack_stored", run_name="__main__", alter_sys=True)
"""


def start_gated(
    daemon: RunningDaemon, gate: Path, *arguments: str, environment: dict[str, str] | None = None
) -> None:
    """Start a daemon; a file with the suffix `.met` appears when the first sync waits for `gate`."""
    command = [
        sys.executable,
        "-c",
        _PROGRAM,
        str(gate),
        "serve",
        "--base-path",
        str(daemon.base),
        *arguments,
    ]
    with daemon.log.open("ab") as log:
        daemon.process = subprocess.Popen(
            command, stderr=log, stdin=subprocess.DEVNULL, env={**os.environ, **(environment or {})}
        )
    eventually(lambda: bool(daemon.events("ready")), "it is ready")
