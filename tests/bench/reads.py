"""Work (e): reads through the Python client against reading the files directly, and stores beside them."""

import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from perstack_storage import Client
from tests.bench.load import event, percentile
from tests.bench.results import Results
from tests.bench.run_agents import HERE
from tests.helpers.daemon import RunningDaemon, eventually
from tests.helpers.raw_client import job, setting

PART = "reads"
READS = ("getEventsByRun", "getEventContents", "getAllJobs", "getAllRuns", "getCheckpointsByJobId")
CHECKPOINTS = 100
CHECKPOINT_BYTES = 200_000


def fill(client: Client, number: int) -> None:
    """Stores events of one run, jobs, runs and checkpoints, in the given numbers."""
    with client.pipeline() as pipeline:
        for i in range(number):
            pipeline.store_event(event(0, i))
        for i in range(number):
            pipeline.store_job(job(f"jb{i}", startedAt=1000 + i))
            pipeline.store_run_setting(setting("r1", jobId=f"jb{i}"))
        usage: Any = dict.fromkeys(
            ("inputTokens", "outputTokens", "reasoningTokens", "totalTokens", "cachedInputTokens"), 0
        )
        for i in range(CHECKPOINTS):
            pipeline.store_checkpoint(
                {
                    "id": f"c{i}",
                    "jobId": "job0",
                    "runId": "run1",
                    "status": "proceeding",
                    "stepNumber": i,
                    "messages": [{"type": "userMessage", "id": f"m{i}", "text": "x" * CHECKPOINT_BYTES}],
                    "expert": {"key": "e@1.0.0", "name": "e", "version": "1.0.0"},
                    "usage": usage,
                }
            )
    eventually(lambda: client.stats()["tree"]["lagRecords"] == 0, "the tree is complete", 600)


def reads_of(client: Client) -> dict[str, Callable[[], Any]]:
    """The calls."""
    return {
        "getEventsByRun": lambda: client.get_events_by_run("job0", "run1"),
        "getEventContents": lambda: client.get_event_contents("job0", "run1"),
        "getAllJobs": client.get_all_jobs,
        "getAllRuns": client.get_all_runs,
        "getCheckpointsByJobId": lambda: client.get_checkpoints_by_job_id("job0"),
    }


def drop_caches() -> bool:
    """Drops the page cache; False where that is not allowed."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    except OSError:
        return False
    return True


def restart(daemon: RunningDaemon, client: Client) -> None:
    """Restarts the daemon, so that no earlier read is cached; its index is complete."""
    daemon.stop()
    daemon.start(wait=False)
    client.retrieve_job("none")


def client_ms(endpoint: str, name: str, number: int) -> float:
    """Milliseconds of one read, checked."""
    with Client(endpoint, timeout_s=60) as client:
        read = reads_of(client)[name]
        client.ping()
        before = time.perf_counter()
        found = read()
        took = 1000 * (time.perf_counter() - before)
        assert len(found) == (CHECKPOINTS if name == "getCheckpointsByJobId" else number), (name, len(found))
        return took


def direct_ms(base: Path, name: str, times: int) -> list[float]:
    """Milliseconds of reads by direct_reads.mjs, all in one process of Node; the first ones warm it up."""
    command = ["node", str(HERE / "direct_reads.mjs"), str(base), name, str(times)]
    found: list[float] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return found


def measure(root: Path, results: Results, *, rounds: int, number: int, seconds: float) -> None:
    """Measures all of (e)."""
    if shutil.which("node") is None:
        results.left_out.append("reads: node is not installed (Debian: apt-get install nodejs)")
        return
    folder = root / "reads"
    folder.mkdir()
    base = folder / "base"
    daemon = RunningDaemon(base, "--log-level", "warning").start(wait=False)
    try:
        with Client(daemon.endpoint, timeout_s=120) as client:
            client.ping()
            fill(client, number)
            for name, _ in itertools.product(READS, range(rounds)):
                results.sample(PART, f"{name} direct warm", min(direct_ms(base, name, 3)))
                client_ms(daemon.endpoint, name, number)
                results.sample(PART, f"{name} client warm", client_ms(daemon.endpoint, name, number))
            for name, _ in itertools.product(READS, range(rounds)):
                restart(daemon, client)
                results.sample(PART, f"{name} client first", client_ms(daemon.endpoint, name, number))
            for name in READS if drop_caches() else ():
                drop_caches()
                results.sample(PART, f"{name} direct cold", direct_ms(base, name, 1)[0])
                restart(daemon, client)
                drop_caches()
                results.sample(PART, f"{name} client cold", client_ms(daemon.endpoint, name, number))
            for _ in range(rounds):
                stores_beside(daemon.endpoint, client, results, seconds)
            reads_beside_stores(daemon.endpoint, base, results, rounds, number)
    finally:
        daemon.stop()


def stores_beside(endpoint: str, client: Client, results: Results, seconds: float) -> None:
    """p99 of a store, alone and while another client reads 10,000 events in a loop."""
    latencies = stores(client, seconds)
    results.sample(PART, "store p50 alone", percentile(latencies, 0.5))
    results.sample(PART, "store p99 alone", percentile(latencies, 0.99))
    with reader(endpoint) as process:
        latencies = stores(client, seconds)
        process.kill()
    results.sample(PART, "store p50 beside reads", percentile(latencies, 0.5))
    results.sample(PART, "store p99 beside reads", percentile(latencies, 0.99))


def reader(endpoint: str) -> "subprocess.Popen[bytes]":
    """A client that reads all events of the run in a loop; it has begun."""
    program = (
        "import sys, perstack_storage\n"
        "client = perstack_storage.Client(sys.argv[1])\n"
        "while True:\n"
        "    client.get_event_contents('job0', 'run1'); print(flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, endpoint], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def stores(client: Client, seconds: float) -> list[float]:
    """Latencies of storing one event after the other."""
    found = []
    end = time.monotonic() + seconds
    i = random.randrange(1 << 40)
    while time.monotonic() < end:
        before = time.perf_counter()
        client.store_event(event(9, i))
        found.append(1000 * (time.perf_counter() - before))
        i += 1
    return found


def reads_beside_stores(endpoint: str, base: Path, results: Results, rounds: int, number: int) -> None:
    """Each read while eight agents store with 64 in flight."""
    command = [sys.executable, "-m", "tests.bench.agent", "perstack", endpoint, "20", "8", "64"]
    seconds = 2.0 * rounds + 4.0
    agents = subprocess.Popen(
        [*command, str(seconds), "0"],
        cwd=HERE.parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert agents.stdin is not None
    assert agents.stdout is not None
    agents.stdout.readline()
    agents.stdin.write("go\n")
    agents.stdin.flush()
    for name, _ in itertools.product(("getEventsByRun", "getEventContents"), range(rounds)):
        results.sample(PART, f"{name} direct under load", min(direct_ms(base, name, 2)))
        results.sample(PART, f"{name} client under load", client_ms(endpoint, name, number))
    agents.communicate()
