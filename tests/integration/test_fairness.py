"""A rate for each client: one that floods is held to it, and another never gets BUSY."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from perstack_storage import Client
from tests.helpers.daemon import eventually, running_daemon
from tests.helpers.raw_client import Raw, event, job, session

pytestmark = pytest.mark.alone  # it measures time, or loads the whole machine

RATE = 200
FLOOD = """
import json, sys, zmq
socket = zmq.Context().socket(zmq.DEALER)
socket.linger = 0
socket.connect(sys.argv[1])
body = sys.argv[2].encode()
n = answered = stored = limited = 0
print("ready", flush=True)
poller = zmq.Poller()
poller.register(socket, zmq.POLLIN)
poller.register(sys.stdin.fileno(), zmq.POLLIN)
sending = True
while sending or answered < n:
    while sending and n - answered < 1000:
        n += 1
        event = json.loads(body) | {"id": str(n)}
        head = {"v": 1, "op": "storeEvent", "id": n}
        socket.send(json.dumps(head).encode() + b"\\n" + json.dumps(event).encode())
    ready = dict(poller.poll(30_000))
    if not ready:
        break
    if sys.stdin.fileno() in ready:
        sending = False
        poller.unregister(sys.stdin.fileno())
    while socket.poll(0):
        answer = json.loads(socket.recv())
        answered += 1
        stored += answer["ok"]
        error = answer.get("error", {})
        limited += error.get("code") == "BUSY" and error["retryAfterMs"] > 0
print(json.dumps({"sent": n, "answered": answered, "stored": stored, "limited": limited}))
"""


def test_a_client_that_floods_is_held_to_its_rate_and_starves_nobody(tmp_path: Path) -> None:
    """It sends a thousand at a time and waits for nothing; a polite one beside it never gets BUSY."""
    with running_daemon(tmp_path / "base", "--rate-records-per-second", str(RATE)) as daemon:
        flood = subprocess.Popen(
            [sys.executable, "-c", FLOOD, daemon.endpoint, json.dumps(event(jobId="flood", runId="r"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert flood.stdin is not None
        assert flood.stdout is not None
        try:
            assert flood.stdout.readline() == "ready\n"
            started = time.monotonic()
            with Raw(daemon.endpoint) as polite:

                def held_up() -> bool:
                    return bool(polite.ask("stats").value["refused"].get("BUSY", 0) > 1000)

                eventually(held_up, "the flood waits")
                for n in range(100):
                    assert polite.store("storeEvent", event(f"p{n}", jobId="polite")) > 0
            flood.stdin.close()
            done = json.loads(flood.stdout.readline())
            seconds = time.monotonic() - started
        finally:
            flood.kill()
            flood.wait()
        assert done["answered"] == done["sent"]
        assert done["limited"] == done["answered"] - done["stored"] > 0
        assert 0 < done["stored"] <= RATE * (seconds + 2)


def test_our_own_client_keeps_to_the_rate_by_itself(tmp_path: Path) -> None:
    """It waits as the answer says and sends again: all is stored, in order, and no call fails."""
    with running_daemon(tmp_path / "base", "--rate-records-per-second", "100") as daemon:
        started = time.monotonic()
        with Client(daemon.endpoint, timeout_s=60) as client:
            with client.pipeline() as pipeline:
                for n in range(250):
                    pipeline.store_event(event(f"e{n}"))
            assert [e["id"] for e in client.get_event_contents("j1", "r1")] == [f"e{n}" for n in range(250)]
        # A hundred at once, the rest at a hundred a second.
        assert time.monotonic() - started > 1.2


def test_a_batch_counts_by_its_records_and_bytes_by_their_number(tmp_path: Path) -> None:
    with running_daemon(
        tmp_path / "base", "--rate-records-per-second", "10", "--rate-bytes-per-second", "100000"
    ) as daemon, Raw(daemon.endpoint) as raw:  # fmt: skip
        value = event("b")

        body = json.dumps(value).encode()
        assert raw.ask("store", body * 10, items=[["storeEvent", len(body)]] * 10).header["ok"]
        refused = raw.ask("storeEvent", event("c"))
        assert refused.code == "BUSY"
        assert 0 < refused.error["retryAfterMs"] <= 1000
        assert raw.ask("getAllJobs").value == []  # reads are not held up

        def stored() -> bool:
            return bool(raw.ask("storeEvent", event("d", text="x" * 200_000)).header["ok"])

        eventually(stored, "there is room again")
        assert raw.ask("storeJob", job(), session=session(), seq=1).error["retryAfterMs"] > 500


def test_a_reload_changes_the_rate(tmp_path: Path) -> None:
    path = tmp_path / "stored.toml"
    path.write_text("rate-records-per-second = 1\n")
    with running_daemon(tmp_path / "base", "--config", str(path)) as daemon, Raw(daemon.endpoint) as raw:
        codes = [raw.ask("storeEvent", event(f"e{n}")).header["ok"] for n in range(5)]
        assert codes[0]
        assert not all(codes)
        path.write_text("")
        os.kill(daemon.pid, signal.SIGHUP)
        eventually(lambda: bool(daemon.events("reloaded")), "it has reloaded")
        assert all(raw.ask("storeEvent", event(f"f{n}")).header["ok"] for n in range(20))
