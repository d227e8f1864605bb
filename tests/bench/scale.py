"""Work (c), (d), (f), (g): captured runs, sustained load, growing bases, starts."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from perstack_storage import Client
from tests.bench.load import Load, event, percentile
from tests.bench.results import Results
from tests.bench.run_agents import HERE, ROOT, gathered, python_agents
from tests.helpers.daemon import RunningDaemon, eventually

TREE_SECONDS = 900.0
BURSTS = {"start after kill -9 s": 2_000, "start right behind 20,000 s": 20_000}
"""Starts after `kill -9`, and how many events were stored right before; each gets a file."""
NO_FILES = ("--tree-leave-out", event(0, 0)["type"])
"""Settings by which the events of the load get no files."""


def ready_client(daemon: RunningDaemon) -> Client:
    """A client that is connected and had its first answer."""
    client = Client(daemon.endpoint, timeout_s=120)
    client.ping()
    return client


def complete(client: Client) -> None:
    """Waits until tree and index have everything."""
    eventually(
        lambda: all(client.stats()[f]["lagRecords"] == 0 for f in ("tree", "index")),
        "the tree is complete",
        TREE_SECONDS,
    )


def first_ack_s(daemon: RunningDaemon, number: int) -> float:
    """Starts the daemon; seconds until a store is acknowledged."""
    before = time.monotonic()
    daemon.start(wait=False)
    with Client(daemon.endpoint, timeout_s=60) as client:
        client.store_event(
            {
                "type": "x",
                "id": f"s{number}",
                "expertKey": "e",
                "timestamp": number,
                "jobId": "start",
                "runId": "r",
                "stepNumber": 0,
            }
        )
        took = time.monotonic() - before
        complete(client)
    return took


def pss_mib(daemon: RunningDaemon) -> float:
    """PSS of the daemon and its workers."""
    total = 0
    for pid in (daemon.pid, *daemon.workers().values()):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


def starts(daemon: RunningDaemon, results: Results, part: str, rounds: int) -> None:
    """Seconds to the first answer after a clean stop and after kill -9, under load."""
    for n in range(rounds):
        daemon.stop()
        results.sample(part, "start after a clean stop s", first_ack_s(daemon, 10 * n))
        for number, (name, count) in enumerate(BURSTS.items(), 1):
            with Client(daemon.endpoint) as client, client.pipeline() as pipeline:
                for i in range(count):
                    pipeline.store_event(
                        {
                            "type": "x",
                            "id": f"k{n}-{number}-{i}",
                            "expertKey": "e",
                            "timestamp": i,
                            "jobId": "start",
                            "runId": f"r{n}-{number}",
                            "stepNumber": 0,
                        }
                    )
            daemon.kill()
            results.sample(part, name, first_ack_s(daemon, 10 * n + number))


def scale(
    root: Path, results: Results, *, sizes: list[int], rounds: int, seconds: float, files: bool
) -> None:
    """(f): a base of each size, then paired rounds of the same load on each, and their starts.

    Without `files`, the events of the load get none; a tree of 10,000,000 files needs 40 GB.
    """
    part = "scale"
    folder = root / "scale"
    folder.mkdir()
    daemons = {}
    for size in sizes:
        settings = () if files else NO_FILES
        daemon = RunningDaemon(folder / str(size), "--log-level", "warning", *settings).start(wait=False)
        with ready_client(daemon) as client:
            before = time.monotonic()
            fill(daemon, client, size)
            complete(client)
            results.sample(
                part, f"{size:,} filling, tree complete, events/s", size / (time.monotonic() - before)
            )
        daemon.stop()
        daemons[size] = daemon
    for n in range(rounds):
        for size, daemon in daemons.items() if n % 2 == 0 else reversed(daemons.items()):
            daemon.start(wait=False)
            with ready_client(daemon) as client:
                settle(client)
                load = Load(8, 64, seconds)
                worked = python_agents("perstack", daemon.endpoint, load, 1000 + 10 * n)
                results.sample(part, f"{size:,} rate", worked.count / (worked.end - worked.begin))
                results.sample(part, f"{size:,} p99 ms", percentile(worked.latencies_ms, 0.99))
                results.sample(part, f"{size:,} PSS MiB", pss_mib(daemon))
                settle(client)
                worked = python_agents("perstack", daemon.endpoint, Load(8, 1, seconds), 2000 + 10 * n)
                results.sample(
                    part, f"{size:,} one in flight rate", worked.count / (worked.end - worked.begin)
                )
                results.sample(part, f"{size:,} one in flight p99 ms", percentile(worked.latencies_ms, 0.99))
                complete(client)
            daemon.stop()
    for size, daemon in daemons.items():
        index = sum(p.stat().st_size for p in (daemon.base / ".stored").glob("index.sqlite*"))
        results.sample(part, f"{size:,} index MB", index / 1e6)
        daemon.start(wait=False)
        ready_client(daemon).close()
        starts(daemon, results, f"start {size:,}", rounds)
        daemon.stop()


def settle(client: Client) -> None:
    """Wait until all earlier stores are in the tree and on the disk."""
    complete(client)
    os.sync()


def fill(daemon: RunningDaemon, client: Client, size: int) -> None:
    """Stores a number of events from two processes."""
    agents = 100
    each = size // agents
    program = (
        "import sys\nfrom perstack_storage import Client\nfrom tests.bench.load import event\n"
        "endpoint, first, count, each = sys.argv[1], *map(int, sys.argv[2:])\n"
        "with Client(endpoint, timeout_s=600) as client:\n"
        "    for agent in range(first, first + count):\n"
        "        with client.pipeline() as pipeline:\n"
        "            for i in range(each):\n"
        "                pipeline.store_event(event(agent, i))\n"
    )
    halves = [
        subprocess.Popen(
            [sys.executable, "-c", program, daemon.endpoint, str(first), str(agents // 2), str(each)],
            cwd=ROOT,
        )
        for first in (0, agents // 2)
    ]
    for half in halves:
        if half.wait() != 0:
            raise SystemExit("filling the base failed")


def first_start(root: Path, results: Results, *, rounds: int) -> None:
    """(g): seconds from the start on an empty folder to the first answer."""
    for n in range(rounds):
        daemon = RunningDaemon(root / f"start-{n}", "--log-level", "warning")
        results.sample("start", "empty base s", first_ack_s(daemon, n))
        daemon.stop()


def replay(root: Path, results: Results, *, rounds: int) -> None:
    """(c): the captured runs, in their order and as fast as possible, from 1 and 16 processes."""
    if shutil.which("node") is None:
        results.left_out.append("(c): node is not installed (Debian: apt-get install nodejs)")
        return
    for processes in (1, 16):
        part = f"replay {processes}"
        for n in range(rounds):
            for name in ("direct", "perstack"):
                folder = root / f"replay-{processes}-{n}-{name}"
                folder.mkdir()
                base = folder / "base"
                daemon = None
                try:
                    if name == "perstack":
                        daemon = RunningDaemon(base, "--log-level", "warning").start(wait=False)
                        ready_client(daemon).close()
                        command = [sys.executable, "-m", "tests.bench.replay_agent", daemon.endpoint]
                    else:
                        command = ["node", str(HERE / "direct_replay.mjs"), str(base)]
                    worked = gathered([[*command, str(p)] for p in range(processes)])
                    results.sample(part, f"{name} s", worked.end - worked.begin)
                    if daemon is not None:
                        with ready_client(daemon) as client:
                            complete(client)
                            results.sample(part, "perstack tree complete s", time.monotonic() - worked.begin)
                    files = sum(p.stat().st_size > 0 for p in base.glob("jobs/*/runs/*/event-*"))
                    results.sample(part, f"{name} events lost", worked.count - files)
                finally:
                    if daemon is not None:
                        daemon.stop()
