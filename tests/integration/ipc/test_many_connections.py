"""A bound of connections is kept, shared between processes, and a storm of them stops no store."""

import contextlib
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from perstack_storage import Client
from tests.helpers.daemon import RunningDaemon, eventually, running_daemon
from tests.helpers.raw_client import event
from tests.hostile.peers import GREETING, Peer
from tests.integration.ipc.strangers import PING, connections, stranger


def test_a_bound_of_connections_is_kept(tmp_path: Path) -> None:
    """A client that comes when all places are taken waits for one."""
    with running_daemon(tmp_path / "base", "--connections-max", "3") as daemon:
        peers = [Peer(daemon.endpoint) for _ in range(3)]
        with stranger(daemon, GREETING) as late:
            late.settimeout(0.5)
            with pytest.raises(TimeoutError):
                late.recv(64)
            peers.pop().close()
            late.settimeout(60)
            assert late.recv(64) == OPENING_BYTES
        for peer in peers:
            peer.send(PING)
            assert b'"ok":true' in peer.receive()
            peer.close()


def test_one_process_with_all_connections_keeps_no_other_out(tmp_path: Path) -> None:
    """It gives up what it opened last while it has most; its further ones wait or are closed."""
    with running_daemon(tmp_path / "base", "--connections-max", "12") as daemon:
        mine = [Peer(daemon.endpoint) for _ in range(12)]
        with contextlib.ExitStack() as stack:
            for _ in range(5):
                further = stack.enter_context(stranger(daemon))
                with contextlib.suppress(ConnectionError):  # it may be closed already
                    further.sendall(GREETING)
            program = (
                "import sys\nfrom perstack_storage import Client\n"
                "with Client(sys.argv[1], timeout_s=90) as client: client.ping(); sys.stdin.read()"
            )
            others = [
                subprocess.Popen([sys.executable, "-c", program, daemon.endpoint], stdin=subprocess.PIPE)
                for _ in range(3)
            ]
            for other in others:
                other.communicate(timeout=120)
            assert [other.returncode for other in others] == [0] * len(others)
        mine[0].send(PING)
        assert b'"ok":true' in mine[0].receive()
        for peer in mine:
            peer.close()
        assert connections(daemon)["cut"]["share"] > 0


OPENING_BYTES = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32)


def test_stores_go_on_through_a_storm_of_connections(daemon: RunningDaemon) -> None:
    """Connections that come, say a part of something and go: what is acknowledged is there, once."""
    done = threading.Event()
    parts = [b"", GREETING[:20], GREETING, GREETING + b"\4\6\5RE", b"no ZeroMQ at all"]

    def storm() -> None:
        n = 0
        while not done.is_set():
            with contextlib.suppress(OSError):
                stranger(daemon, parts[n % len(parts)]).close()
            n += 1

    threads = [threading.Thread(target=storm) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        with Client(daemon.endpoint) as client:
            with client.pipeline() as pipeline:
                for n in range(3000):
                    pipeline.store_event(event(f"e{n}"))
            assert set(pipeline.positions) == set(range(1, 3001))
            assert len(client.get_event_contents("j1", "r1")) == 3000
    finally:
        done.set()
        for thread in threads:
            thread.join()
    eventually(lambda: connections(daemon)["open"] == 1, "all are closed")
    told = connections(daemon)
    assert told["failed"]["broken"] > 0
    assert told["failed"]["protocol"] > 0
    assert told["halfBytes"] == 0
