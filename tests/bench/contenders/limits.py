"""The limit of any daemon with this protocol: an echo ROUTER, with a synced append or without."""

import subprocess
import sys
import tempfile
from pathlib import Path

import zmq

from tests.bench.contenders.base import Server
from tests.bench.load import Load
from tests.bench.run_agents import ROOT, Worked, python_agents


class Limit(Server):
    """echo_router.py with the Python client's agents."""

    def __init__(self, name: str, *, sync: bool) -> None:
        self.name = name
        self._sync = sync

    def missing(self) -> str | None:
        return None

    def sync_mode(self) -> str:
        return "one write and fdatasync for each batch drained, nothing else" if self._sync else "no storage"

    def version(self) -> str:
        return f"libzmq {zmq.zmq_version()}, pyzmq {zmq.__version__}"

    def start(self, folder: Path) -> str:
        self._sockets = tempfile.TemporaryDirectory(prefix="limit-")
        address = f"ipc://{self._sockets.name}/s"
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.bench.echo_router", address),
                str(folder / "log") if self._sync else "-",
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()
        return address

    def work(self, address: str, load: Load) -> Worked:
        return python_agents("perstack", address, load)

    def audit(self, folder: Path, address: str) -> int:
        stored, _ = self._process.communicate("stop\n", timeout=60)
        return int(stored)

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._sockets.cleanup()
