"""A client's process that stands still longer than its timeout: stopped, paused, suspended, in a debugger."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import signals
from tests.helpers.daemon import RunningDaemon, running_daemon

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 3.0
STOPPED_S = 4.0
CLIENT = """
import json, sys, time
from perstack_storage import Client
from tests.client.interruptions import event
way, endpoint, timeout_s = sys.argv[1], sys.argv[2], float(sys.argv[3])
client = Client(endpoint, timeout_s=timeout_s)
client.store_event(event())
print("ready", flush=True)
sys.stdin.readline()  # until all are ready
made = []
def more():  # not so much that the machine has no time for the others
    time.sleep(0.002)
    return time.monotonic() < end
end = time.monotonic() + 4.2
if way == "store":
    while more():
        made.append(event()); client.store_event(made[-1])
elif way == "nowait":
    while more():
        made.append(event()); client.store_event_nowait(made[-1])
    client.flush()
elif way == "pipeline":
    with client.pipeline() as pipeline:
        while more():
            made.append(event()); pipeline.store_event(made[-1])
elif way == "read":
    while more():
        client.hello(); client.read_all(limit=10)
elif way == "follow":
    for record in client.follow(job_id="another", idle_s=2):
        pass
client.close()
print(json.dumps([one["id"] for one in made]), flush=True)
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with running_daemon(tmp_path_factory.mktemp("standstill") / "perstack") as daemon:
        yield daemon


@pytest.mark.parametrize("both", [False, True], ids=["client", "client and daemon"])
def test_a_standstill_of_the_caller_is_not_taken_for_silence_of_the_daemon(
    daemon: RunningDaemon, both: bool
) -> None:
    """What is unsent is sent, what has arrived is taken, and only then does the time count."""
    ways = ("store", "nowait", "pipeline", "read", "follow")
    running = {
        way: subprocess.Popen(
            [sys.executable, "-c", CLIENT, way, daemon.endpoint, str(TIMEOUT_S)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for way in ways
    }  # fmt: skip
    for process in running.values():
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running.values():
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    stopped = [process.pid for process in running.values()] + ([daemon.pid] if both else [])
    for pid in stopped:
        signals.stop(pid)
    time.sleep(STOPPED_S)  # this is what is tried
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    for way, process in running.items():
        out, err = process.communicate(timeout=120)
        assert (process.returncode, err) == (0, ""), way
        assert isinstance(json.loads(out), list)


def test_a_stop_at_each_step_of_a_store_gives_nothing_up(tmp_path: Path) -> None:
    """The clock is looked at in several places: none of them takes a standstill for time that was waited."""
    code = """
import sys, time
from tests.client.interruptions import Steps, event
from perstack_storage import Client
real = time.monotonic
lost = [0.0]
time.monotonic = lambda: real() + lost[0]
def stand(): lost[0] += 1000.0
client = Client(sys.argv[1], timeout_s=5)
client.store_event(event())
counted = Steps(float("inf"), stand)
counted.run(lambda: client.store_event(event()))
for at in range(1, counted.seen + 1, 3):
    Steps(at, stand).run(lambda: client.store_event(event()))
for at in range(1, 60, 5):
    Steps(at, stand).run(lambda: client.store_event_nowait(event()))
client.flush()
client.close()
print("done")
"""
    with running_daemon(tmp_path / "perstack") as daemon:
        ran = subprocess.run(
            [sys.executable, "-c", code, daemon.endpoint],
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
    assert (ran.stdout, ran.stderr) == ("done\n", "")
