"""Cooperative runtimes, gevent and eventlet, as far as a client can tell: green sockets, and no `poll`."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.daemon import running_daemon

ROOT = Path(__file__).parents[2]
GREEN = """
import select, socket, sys, time
real = socket.socket
class socket_(real):  # a blocking one waits without end: it does not know the timeout of the real one
    def recv_into(self, buffer, size=0, flags=0):
        while True:
            try: return real.recv_into(self, buffer, size, flags | socket.MSG_DONTWAIT)
            except BlockingIOError:
                if self.gettimeout() == 0.0: raise
                select.select([self], [], [])
socket_.__module__ = "green"
socket.socket = socket_
if sys.argv[2] == "no poll": del select.poll
"""
CODE = (
    GREEN
    + """
from perstack_storage import Client, DaemonUnavailable
from tests.client.interruptions import event
with Client(sys.argv[1], timeout_s=20) as client:
    for _ in range(5): client.store_event(event())
    futures = [client.store_event_nowait(event()) for _ in range(50)]
    with client.pipeline() as pipeline:
        for _ in range(50): pipeline.store_event(event())
    client.flush()
    assert all(future.result(0) for future in futures)
listener = real(socket.AF_UNIX); listener.bind(sys.argv[3]); listener.listen()
begun = time.monotonic()
for endpoint in ("ipc://" + sys.argv[3], "ipc://" + sys.argv[3] + ".none"):
    with Client(endpoint, timeout_s=0.5) as client:
        try: client.store_event(event())
        except DaemonUnavailable: print("unavailable")
assert time.monotonic() - begun < 20
"""
)


@pytest.mark.parametrize("lacks", ["nothing", "no poll"])
def test_a_client_works_with_green_sockets_and_waits_no_longer_than_its_timeout(
    tmp_path: Path, lacks: str
) -> None:
    """A green socket that blocks waits without end; the client never lets it block."""
    with running_daemon(tmp_path / "perstack") as daemon:
        ran = subprocess.run(
            [sys.executable, "-c", CODE, daemon.endpoint, lacks, str(tmp_path / "s")],
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
    assert (ran.stdout, ran.stderr) == ("unavailable\nunavailable\n", "")
