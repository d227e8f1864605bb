"""Clients that misbehave, and many of them: nobody else waits, memory stays bounded, nothing is lost."""

import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from perstack_storage import Client
from tests.helpers import signals
from tests.helpers.daemon import RunningDaemon, eventually, files_of, running_daemon
from tests.helpers.raw_client import MIB, Raw, event, job, session
from tests.helpers.watching import MEMORY_MIB_MAX, PING_P99_MAX_SECONDS, Pings, memory_peak, sockets

pytestmark = pytest.mark.alone  # it measures time, or loads the whole machine


def settled_tree(raw: Raw) -> bool:
    """Whether the tree has come to the journal's end."""
    stats = raw.ask("stats").value
    return bool(stats["tree"]["position"] == stats["position"])


def child_of(daemon: RunningDaemon, kind: str) -> int:
    """Process id of a worker."""
    for pid in Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split():
        if kind.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
            return int(pid)
    raise AssertionError(f"no {kind} follower runs")


# --- clients that don't read -----------------------------------------------------------------------


def test_a_client_that_never_receives_holds_up_nobody(tmp_path: Path) -> None:
    """It sends 5,000 reads of 100 KiB each: others are answered in time, and memory stays bounded."""
    with running_daemon(tmp_path / "base") as daemon, Raw(daemon.endpoint) as raw:
        for n in range(10):
            raw.store("storeEvent", event(f"e{n}", text="x" * 10_000))
        run = {"jobId": "j1", "runId": "r1"}
        with (
            memory_peak(daemon) as memory,
            Pings(daemon.endpoint) as pings,
            Raw(daemon.endpoint, sndhwm=0, rcvhwm=1) as deaf,
        ):
            for _ in range(5000):
                deaf.send("getEventContents", run)
            eventually(lambda: _reads_done(raw, 5000), "the reads are done")
            assert raw.ask("stats").value["outbox"]["dropped"] > 0
            assert len(raw.ask("getEventContents", run).value) == 10
        assert pings.p99 < PING_P99_MAX_SECONDS
        assert max(memory) < memory[0] + MEMORY_MIB_MAX
        eventually(lambda: raw.ask("stats").value["outbox"]["stalled"] == 0, "it is forgotten when it leaves")


def _reads_done(raw: Raw, messages: int) -> bool:
    stats = raw.ask("stats").value
    reads = stats["reads"]
    return bool(stats["messages"] > messages and reads["pending"] == reads["waiting"] == 0)


_AGENT = """
import sys
from perstack_storage import Client
from tests.helpers.raw_client import event
with Client(sys.argv[1], timeout_s=60) as client:
    with client.pipeline() as pipeline:
        for n in range(6000):
            pipeline.store_event(event(f"stopped{n}", jobId="stopped", timestamp=n, text="x" * 1000))
            if n == 2000:
                print("half", flush=True)
    print(len(set(pipeline.positions)), flush=True)
    print(len(client.get_event_contents("stopped", "r1")), flush=True)
"""


def test_a_client_that_is_stopped_in_the_middle_goes_on_later(tmp_path: Path) -> None:
    """SIGSTOP with stores in flight: others store and read meanwhile; after SIGCONT nothing is missing."""
    with running_daemon(tmp_path / "base") as daemon, Raw(daemon.endpoint) as raw:
        agent = subprocess.Popen(
            [sys.executable, "-c", _AGENT, daemon.endpoint],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        try:
            assert agent.stdout is not None
            assert agent.stdout.readline() == b"half\n"
            signals.stop(agent.pid)
            with Pings(daemon.endpoint) as pings:
                for n in range(300):
                    raw.store("storeJob", job(f"j{n}"))
                    assert raw.ask("retrieveJob", {"jobId": f"j{n}"}).value["id"] == f"j{n}"
            assert pings.p99 < PING_P99_MAX_SECONDS
            agent.send_signal(signal.SIGCONT)
            out, _ = agent.communicate(timeout=120)
            assert out.split() == [b"6000", b"6000"]
        finally:
            agent.kill()
            agent.wait()
        assert len(raw.ask("getAllJobs").value) == 300


# --- clients that send too much --------------------------------------------------------------------


def test_a_flood_beyond_every_window_is_throttled(tmp_path: Path) -> None:
    """Stores as fast as the socket takes them, without a look at the answers: each is stored or BUSY."""
    with running_daemon(tmp_path / "base") as daemon:
        text = "x" * 64 * 1024
        sent = 2000
        with (
            memory_peak(daemon) as memory,
            Pings(daemon.endpoint) as pings,
            Raw(daemon.endpoint, sndhwm=0, rcvhwm=0) as flood,
        ):
            for n in range(sent):
                flood.send("storeEvent", event(f"e{n}", timestamp=n, text=text))
            answers = [flood.receive(30) for _ in range(sent)]
        codes = Counter("ok" if answer.header["ok"] else answer.code for answer in answers)
        assert set(codes) <= {"ok", "BUSY"}
        assert max(memory) < memory[0] + MEMORY_MIB_MAX
        assert pings.p99 < PING_P99_MAX_SECONDS
        with Raw(daemon.endpoint) as raw:
            assert raw.ask("ping").header["position"] == codes["ok"]


def test_a_session_that_floods_gets_no_hole(tmp_path: Path) -> None:
    """While the tree hangs, stores beyond the budget are BUSY; sent again, all are there, in order."""
    limits = ("--tree-lag-bytes-max", str(MIB), "--held-bytes-max", str(2 * MIB))
    with running_daemon(tmp_path / "base", *limits) as daemon, Raw(daemon.endpoint) as other:
        other.store("storeEvent", event("first"))
        eventually(lambda: settled_tree(other), "the tree is complete")
        tree = child_of(daemon, "tree")
        name = session()
        bodies = [json.dumps(event(f"{n:04d}", timestamp=n, text="x" * 20_000)).encode() for n in range(400)]
        with Raw(daemon.endpoint, sndhwm=0, rcvhwm=0) as flood:
            signals.stop(tree)
            try:
                for n, body in enumerate(bodies, 1):
                    flood.send("storeEvent", body, session=name, seq=n)
                codes: Counter[str] = Counter()
                eventually(lambda: _take(flood, codes)["BUSY"] > 0, "some are BUSY")
                stats = other.ask("stats").value
                assert stats["held"]["bytes"] <= 2 * MIB
                assert MIB < stats["tree"]["lagBytes"] < 20 * MIB
                with Pings(daemon.endpoint) as pings:
                    assert other.ask("getEventsByRun", {"jobId": "j1", "runId": "r1"}).value
                    for _ in range(20):
                        assert other.ask("readAll", {"limit": 5}).header["ok"]
                assert all(seconds < 5 for seconds in pings.seconds)
            finally:
                os.kill(tree, signal.SIGCONT)
            eventually(lambda: _take(flood, codes).total() == len(bodies), "each is answered")
            assert set(codes) <= {"ok", "BUSY", "SEQUENCE_GAP"}
            last = other.ask("hello", session=name).value["session"]["last"]
            assert last == codes["ok"]
            for n, body in enumerate(bodies, 1):
                answer = flood.ask("storeEvent", body, session=name, seq=n)
                while not answer.header["ok"]:
                    assert answer.code == "BUSY"
                    answer = flood.ask("storeEvent", body, session=name, seq=n)
        ids = [record["value"]["id"] for record in other.read_all()]
        assert ids == ["first", *(f"{n:04d}" for n in range(400))]


def _take(raw: Raw, codes: Counter[str]) -> Counter[str]:
    """Count what has been answered."""
    while raw.socket.poll(0):
        answer = raw.receive()
        codes["ok" if answer.header["ok"] else answer.code] += 1
    return codes


def test_a_tree_that_lags_slows_stores_and_nothing_else(tmp_path: Path) -> None:
    """With the least bound on the lag: reads are answered, and in the end every file is there."""
    with running_daemon(tmp_path / "base", "--tree-lag-bytes-max", str(MIB)) as daemon:
        lag = []
        with Client(daemon.endpoint, timeout_s=60) as client, Raw(daemon.endpoint) as raw:
            eventually(lambda: settled_tree(raw), "the tree is followed")
            with Pings(daemon.endpoint) as pings, client.pipeline() as pipeline:
                for n in range(1500):
                    pipeline.store_event(event(f"e{n}", timestamp=n, stepNumber=n, text="x" * 8000))
                    if n % 100 == 0:
                        lag.append(raw.ask("stats").value["tree"]["lagBytes"] or 0)
                        assert raw.ask("getEventsByRun", {"jobId": "j1", "runId": "r1", "limit": 5}).header[
                            "ok"
                        ]
            assert pings.p99 < PING_P99_MAX_SECONDS
            assert max(lag) < (1 + 16 + 1) * MIB  # the bound, a commit and its overhead
            assert pipeline.positions == list(range(1, 1501))
            eventually(lambda: settled_tree(raw), "the tree is complete")
        assert len(files_of(daemon.base)) == 1500


# --- connections -----------------------------------------------------------------------------------


def test_three_hundred_clients_at_once(tmp_path: Path) -> None:
    """Each stores and reads its own, though the daemon is started with fewer descriptors allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    daemon = RunningDaemon(tmp_path / "base")
    few = len(os.listdir("/proc/self/fd")) + 60  # what this process holds counts for it as well
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    try:
        daemon.start()  # libzmq ends a process that has no descriptor for a connection
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    clients: list[Raw] = []
    try:
        clients += [Raw(daemon.endpoint) for _ in range(300)]
        for n, client in enumerate(clients):
            client.send("storeJob", job(f"j{n}"), session=session(), seq=1)
        positions = {client.receive(30).position for client in clients}
        assert positions == set(range(1, 301))
        for n, client in enumerate(clients):
            client.send("retrieveJob", {"jobId": f"j{n}"})
        for n, client in enumerate(clients):
            assert client.receive(30).value["id"] == f"j{n}"
        assert daemon.stop() == 0
    finally:
        for client in clients:
            client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if daemon.process is not None and daemon.process.poll() is None:
            daemon.kill()


def test_a_storm_of_connections_leaves_nothing_behind(tmp_path: Path) -> None:
    """Two hundred and fifty come and go, half of them without waiting: no descriptor and no queue stays."""
    with running_daemon(tmp_path / "base") as daemon, Raw(daemon.endpoint) as raw:
        raw.store("storeEvent", event("first", text="x" * 100_000))
        eventually(lambda: settled_tree(raw), "all workers run")
        before = sockets(daemon)
        for n in range(250):
            with Raw(daemon.endpoint) as client:
                client.send("storeEvent", event(f"e{n}"))
                client.send("getEventContents", {"jobId": "j1", "runId": "r1"})
                if n % 2:
                    client.receive()
        eventually(lambda: sockets(daemon) <= before, "descriptors are closed")
        stats = raw.ask("stats").value
        assert stats["outbox"]["stalled"] == 0
        assert stats["held"] == {"requests": 0, "bytes": 0}
        assert stats["position"] >= 126


def test_bytes_that_are_no_zeromq_harm_nobody(tmp_path: Path) -> None:
    """Noise, half a greeting, HTTP and silence, written to the Unix socket itself."""
    rng = random.Random(5)
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16 + 32)
    noises = [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(64),
        b"\xff" * 4096,
        greeting[:11],
        greeting,
        greeting + rng.randbytes(5000),
        greeting + b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03PUB" + rng.randbytes(100),
        greeting + b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER" + b"\x02" + b"\xff" * 8,
        *[rng.randbytes(rng.randrange(1, 3000)) for _ in range(30)],
    ]
    with running_daemon(tmp_path / "base") as daemon, Raw(daemon.endpoint) as raw:
        eventually(lambda: settled_tree(raw), "all workers run")
        before = sockets(daemon)
        connections = []
        for noise in noises:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.connect(daemon.endpoint.removeprefix("ipc://"))
            connections.append(connection)
            try:
                connection.sendall(noise)
            except BrokenPipeError:
                continue
            assert raw.ask("ping").header["ok"]
        assert raw.store("storeEvent", event()) == 1
        for connection in connections:
            connection.close()
        eventually(lambda: sockets(daemon) <= before, "they are gone")
        assert daemon.stop() == 0
