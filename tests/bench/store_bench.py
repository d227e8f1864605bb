"""Storing through the daemon against writing the files directly, in alternating rounds of one run.

    python tests/bench/store_bench.py [--rounds N] [--seconds S] [--folder DIR]

Work: 32 agent processes with one 1 KiB event in flight each, and 8 processes with 64 in flight each. The
daemon syncs before each answer; direct_files.mjs, as the reference does, syncs nothing ("plain"), or each
file ("sync").
Each round has fresh folders, removed at the end only: ext4 makes files slowly for minutes after many were
deleted. Reported are medians over the rounds: acknowledged events/s, latencies (of the turn of a whole window
where many are in flight; the mean for direct files), the tree's lag at the last answer, and the rate when the
clock stops only at the tree's last file.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from perstack_storage import Client

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.support import RunningDaemon, eventually

HERE = Path(__file__).parent
PAD = "x" * 850
WORK = ((32, 1), (8, 64))


class Round(NamedTuple):
    """Figures of one contender in one round; rates in events/s, times in ms."""

    rate: float
    p50_ms: float
    p99_ms: float
    lag_records: int
    complete_rate: float


def event(agent: int, i: int) -> dict[str, Any]:
    """The event that direct_files.mjs writes."""
    return {
        "type": "streamReasoning",
        "id": f"{agent}-{i}",
        "expertKey": "@acme/e@1.0.0",
        "timestamp": 1795406152251 + i,
        "jobId": f"job{agent}",
        "runId": "run1",
        "stepNumber": i // 50,
        "delta": PAD,
    }


def one_in_flight(client: Client, agent: int, end: float) -> tuple[int, list[float]]:
    """Store, wait for the answer, store the next."""
    latencies = []
    i = 0
    while time.monotonic() < end:
        before = time.perf_counter()
        client.store_event(event(agent, i))
        latencies.append(time.perf_counter() - before)
        i += 1
    return i, latencies


def many_in_flight(client: Client, agent: int, end: float, in_flight: int) -> tuple[int, list[float]]:
    """Store un-awaited, never more than so many without an answer."""
    i = 0
    latencies = []
    with client.pipeline(max_in_flight=in_flight) as pipeline:
        while time.monotonic() < end:
            before = time.perf_counter()
            for _ in range(in_flight):
                pipeline.store_event(event(agent, i))
                i += 1
            latencies.append(time.perf_counter() - before)
    return i, latencies


def agent_main(endpoint: str, agent: int, seconds: float, in_flight: int, gate: Any, results: Any) -> None:
    """One agent process."""
    with Client(endpoint) as client:
        client.ping()
        gate.wait()
        end = time.monotonic() + seconds
        if in_flight == 1:
            results.put(one_in_flight(client, agent, end))
        else:
            results.put(many_in_flight(client, agent, end, in_flight))


def through_daemon(folder: Path, processes: int, in_flight: int, seconds: float) -> Round:
    """One round through the daemon, and a count of what the tree then holds."""
    daemon = RunningDaemon(folder / "base", "--log-level", "warning")
    daemon.start(wait=False)
    with Client(daemon.endpoint) as client:
        client.ping()
        results: Any = multiprocessing.Queue()
        gate: Any = multiprocessing.Barrier(processes + 1)
        agents = [
            multiprocessing.Process(
                target=agent_main, args=(daemon.endpoint, n, seconds, in_flight, gate, results)
            )
            for n in range(processes)
        ]
        for agent in agents:
            agent.start()
        gate.wait()
        started = time.monotonic()
        parts = [results.get() for _ in agents]
        acknowledged_s = time.monotonic() - started
        stats = client.stats()
        lag = stats["tree"]["lagRecords"]
        eventually(lambda: client.stats()["tree"]["lagRecords"] == 0, "the tree is complete", 600)
        complete_s = time.monotonic() - started
        for agent in agents:
            agent.join()
    daemon.stop()
    count = sum(n for n, _ in parts)
    audit(folder / "base", count)
    latencies = sorted(latency for _, some in parts for latency in some)
    return Round(
        count / acknowledged_s,
        1000 * latencies[len(latencies) // 2],
        1000 * latencies[int(len(latencies) * 0.99)],
        lag,
        count / complete_s,
    )


def directly(folder: Path, processes: int, in_flight: int, seconds: float, mode: str) -> Round:
    """One round of direct_files.mjs."""
    base = folder / "base"
    agents = [
        subprocess.Popen(
            ["node", str(HERE / "direct_files.mjs"), str(base), str(n), str(seconds), str(in_flight), mode],
            stdout=subprocess.PIPE,
        )
        for n in range(processes)
    ]
    counts = [int(agent.communicate()[0]) for agent in agents]
    audit(base, sum(counts))
    # Each process measures its own seconds: starting Node is not counted.
    rate = sum(counts) / seconds
    mean_ms = 1000 * processes * in_flight / rate
    return Round(rate, mean_ms, float("nan"), 0, rate)


def audit(base: Path, expected: int) -> None:
    """Count the event files."""
    found = 0
    for _, _, names in os.walk(base / "jobs"):
        found += sum(name.startswith("event-") for name in names)
    if found != expected:
        raise SystemExit(f"{expected} events were stored, {found} are in the tree {base}")


def sync_ms(folder: Path) -> float:
    """Median time of an fdatasync of 4 KiB into a growing file."""
    times = []
    with (folder / "sync").open("wb", buffering=0) as file:
        for _ in range(100):
            file.write(bytes(4096))
            before = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - before)
    return 1000 * statistics.median(times)


def median(rounds: list[Round]) -> Round:
    """Median of each figure."""
    return Round(*[statistics.median(figures) for figures in zip(*rounds, strict=True)])


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description="Storing through the daemon against writing files directly.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--folder", help="where to write; default: a temporary folder beside the checkout's")
    parser.add_argument("--json", help="write the raw rounds to this file")
    arguments = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="perstack-bench-", dir=arguments.folder or HERE))
    if shutil.which("node") is None:
        raise SystemExit(
            "node is not installed: there is nothing to compare with (Debian: apt-get install nodejs)"
        )
    raw: dict[str, list[Round]] = {}
    try:
        kernel = f"{os.uname().sysname} {os.uname().release}"
        print(f"{kernel}, {os.cpu_count()} cores; fdatasync {sync_ms(root):.2f} ms")
        for processes, in_flight in WORK:
            name = f"{processes} x {in_flight}"
            for n in range(arguments.rounds):
                folder = root / f"{processes}-{in_flight}-{n}"
                for contender in ("daemon", "plain", "sync"):
                    (folder / contender).mkdir(parents=True)
                    if contender == "daemon":
                        found = through_daemon(folder / contender, processes, in_flight, arguments.seconds)
                    else:
                        found = directly(
                            folder / contender, processes, in_flight, arguments.seconds, contender
                        )
                    raw.setdefault(f"{name} {contender}", []).append(found)
                    print(f"  round {n + 1}, {name} {contender}: {found.rate:,.0f}/s", file=sys.stderr)
            show(name, {c: median(raw[f"{name} {c}"]) for c in ("daemon", "plain", "sync")})
    finally:
        shutil.rmtree(root)
    if arguments.json:
        Path(arguments.json).write_text(
            json.dumps({k: [r._asdict() for r in v] for k, v in raw.items()}, indent=1)
        )


def show(name: str, medians: dict[str, Round]) -> None:
    """Print one table."""
    plain = medians["plain"].rate
    print(f"\n{name} in flight, medians")
    heads = ("events/s", "ratio", "p50 ms", "p99 ms", "lag", "complete/s", "ratio")
    print(" " * 10 + "".join([f"{head:>11}" for head in heads]))
    for contender, found in medians.items():
        print(
            f"{contender:10}{found.rate:>11,.0f}{found.rate / plain:>11.2f}{found.p50_ms:>11.2f}"
            f"{found.p99_ms:>11.2f}{found.lag_records:>11,.0f}{found.complete_rate:>11,.0f}"
            f"{found.complete_rate / plain:>11.2f}"
        )


if __name__ == "__main__":
    main()
