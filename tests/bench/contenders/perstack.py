"""The daemon, through each of its clients."""

import itertools
import time
from pathlib import Path

from perstack_storage import Client, __version__
from tests.bench.contenders.base import Server, count_files
from tests.bench.load import Load, event
from tests.bench.run_agents import ROOT, Worked, node_agents, python_agents
from tests.helpers.daemon import RunningDaemon, eventually

TREE_SECONDS = 900.0


class Perstack(Server):
    """A daemon with its defaults; without a driver the agents use the TypeScript client."""

    def __init__(self, name: str, driver: str | None, *options: str) -> None:
        self.name = name
        self._driver = driver
        self._options = options
        self._daemon: RunningDaemon | None = None

    def missing(self) -> str | None:
        if self._driver is None and not (ROOT / "client/typescript/dist/index.js").exists():
            return "the TypeScript client is not built: make typescript"
        return None

    def sync_mode(self) -> str:
        return "fdatasync of the journal before each answer; the tree's files follow"

    def version(self) -> str:
        return f"perstack-stored {__version__}"

    def start(self, folder: Path) -> str:
        self._daemon = RunningDaemon(folder / "base", "--log-level", "warning", *self._options)
        self._daemon.start(wait=False)
        with Client(self._daemon.endpoint, timeout_s=60) as client:
            # Wait until it is ready, also after the first answer: the time of its start is not measured.
            eventually(
                lambda: all(client.stats()[f]["position"] is not None for f in ("tree", "index")), "ready", 60
            )
        return self._daemon.endpoint

    def work(self, address: str, load: Load) -> Worked:
        if self._driver is None:
            return node_agents("perstack_agent.mjs", address, load)
        return python_agents(self._driver, address, load)

    def settle(self, address: str) -> float:
        with Client(address, timeout_s=60) as client:
            eventually(
                lambda: client.stats()["tree"]["lagRecords"] == 0, "the tree is complete", TREE_SECONDS
            )
        return time.monotonic()

    def audit(self, folder: Path, address: str) -> int:
        return count_files(folder / "base")

    def stop(self) -> None:
        if self._daemon is not None:
            self._daemon.stop()


class PerstackNoFiles(Perstack):
    """A daemon that leaves the events of the load out of the tree: journal and index, as other stores."""

    def __init__(self) -> None:
        super().__init__("perstack-no-files", "perstack", "--tree-leave-out", event(0, 0)["type"])

    def sync_mode(self) -> str:
        return "fdatasync of the journal before each answer; `tree-leave-out` names the type of the events"

    def audit(self, folder: Path, address: str) -> int:
        with Client(address, timeout_s=60) as client:
            eventually(lambda: client.stats()["index"]["lagRecords"] == 0, "all is indexed", TREE_SECONDS)
            runs = (client.get_events_by_run(f"job{agent}", "run1") for agent in itertools.count())
            return sum(map(len, itertools.takewhile(len, runs)))
