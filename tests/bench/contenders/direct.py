"""Files without a store: as an agent writes them today, and as fast as the file system allows."""

import os
import shutil
import subprocess
import time
from multiprocessing import Process
from pathlib import Path

import orjson

from tests.bench.contenders.base import count_files, figures, output
from tests.bench.load import Load, Round, event
from tests.bench.run_agents import HERE, node_agents

NODE_MISSING = "node is not installed (Debian: apt-get install nodejs)"
SECONDS_MIN = 3.0
"""Its processes start one after the other: in a short round they would hardly meet."""
PLAIN = "nothing is synced, and files may be torn"


class Direct:
    """direct_files.mjs as it is: each process measures its own seconds, so starting Node is not counted."""

    def __init__(self, name: str, mode: str) -> None:
        self.name = name
        self._mode = mode

    def missing(self) -> str | None:
        return None if shutil.which("node") else NODE_MISSING

    def sync_mode(self) -> str:
        return PLAIN if self._mode == "plain" else "fsync of each file, then rename; the folder is not synced"

    def version(self) -> str:
        return f"node {output('node', '--version')}"

    def round(self, folder: Path, load: Load) -> Round:
        base = folder / "base"
        seconds = max(load.seconds, SECONDS_MIN)
        work = [str(seconds), str(load.in_flight), self._mode]
        agents = [
            subprocess.Popen(
                ["node", str(HERE / "direct_files.mjs"), str(base), str(n), *work], stdout=subprocess.PIPE
            )
            for n in range(load.processes)
        ]
        count = sum([int(agent.communicate()[0]) for agent in agents])
        rate = count / seconds
        return Round(count, rate, rate, [], count_files(base))


class DirectTimed:
    """The same calls, with a common start of all processes and the latency of each event."""

    def __init__(self, name: str, mode: str) -> None:
        self.name = name
        self._mode = mode

    def missing(self) -> str | None:
        return None if shutil.which("node") else NODE_MISSING

    def sync_mode(self) -> str:
        return PLAIN

    def version(self) -> str:
        return f"node {output('node', '--version')}"

    def round(self, folder: Path, load: Load) -> Round:
        base = folder / "base"
        worked = node_agents("direct_timed.mjs", str(base), load, self._mode)
        return figures(worked, count_files(base))


class Files:
    """Creates the same files and does nothing else: the limit of the tree."""

    def __init__(self, name: str, processes: int) -> None:
        self.name = name
        self._processes = processes

    def missing(self) -> str | None:
        return None

    def sync_mode(self) -> str:
        return f"nothing is synced; {self._processes} process(es)"

    def version(self) -> str:
        return "open, write, close"

    def round(self, folder: Path, load: Load) -> Round:
        makers = [
            Process(target=make_files, args=(folder / "base", n, load.processes, load.seconds))
            for n in range(self._processes)
        ]
        for maker in makers:
            maker.start()
        for maker in makers:
            maker.join()
        count = count_files(folder / "base")
        return Round(count, count / load.seconds, count / load.seconds, [], count)


def make_files(base: Path, maker: int, jobs: int, seconds: float) -> None:
    """Creates event files in the folders of a number of jobs, in turn."""
    folders = []
    for n in range(jobs):
        path = base / "jobs" / f"job{maker}-{n}" / "runs" / "run1"
        path.mkdir(parents=True)
        folders.append(os.open(path, os.O_RDONLY))
    bodies = [orjson.dumps(event(n, 0)) for n in range(jobs)]
    end = time.monotonic() + seconds
    i = 0
    while time.monotonic() < end:
        job = i % jobs
        name = f"event-{1795406152251 + i}-{i // 50}-streamReasoning.json"
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640, dir_fd=folders[job])
        os.write(file, bodies[job])
        os.close(file)
        i += 1
