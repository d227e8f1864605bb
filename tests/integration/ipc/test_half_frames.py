"""What is no ZMTP, unfinished or without end costs a bounded amount, and holds nobody up."""

import contextlib
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.daemon import RunningDaemon, eventually, running_daemon
from tests.helpers.raw_client import MIB, Raw, event
from tests.hostile.peers import GREETING, Peer, is_closed
from tests.integration.ipc.strangers import PING, connections, stored_event, stranger


@pytest.mark.parametrize(
    "said",
    [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", bytes(64), GREETING[:10] + b"\x01\x05\x00\x00"],
    ids=["http", "tls", "zeros", "zmtp2"],
)
def test_what_is_no_zmtp_3_is_closed_and_counted(daemon: RunningDaemon, said: bytes) -> None:
    """Ten of them: one line in the log."""
    for _ in range(10):
        with stranger(daemon, said) as peer:
            assert is_closed(peer)
    assert connections(daemon)["failed"]["protocol"] == 10
    assert 1 <= len(daemon.events("handshake_failed")) <= 2


def test_an_unfinished_handshake_is_closed(tmp_path: Path) -> None:
    """Silent, in the middle of the greeting, or byte by byte; who is ready may be silent for ever."""
    with running_daemon(tmp_path / "base", "--handshake-seconds", "2") as daemon:
        quiet = Peer(daemon.endpoint)
        peers = [stranger(daemon, said) for said in (b"", GREETING[:1], GREETING[:40], GREETING)]
        for peer in peers:
            with contextlib.suppress(OSError):
                while not select_readable(peer):
                    peer.sendall(b"") if peer is not peers[1] else peer.sendall(b"\0")
            assert is_closed(peer)
            peer.close()
        assert connections(daemon)["failed"]["timeout"] >= 3
        quiet.send(PING)
        assert b'"ok":true' in quiet.receive()
        quiet.close()


def select_readable(peer: socket.socket) -> bool:
    """Whether the daemon's greeting was read and the end has come; waits a little."""
    peer.settimeout(0.2)
    try:
        return not peer.recv(65_536)
    except TimeoutError:
        return False
    finally:
        peer.settimeout(60)


@contextlib.contextmanager
def other_process(endpoint: str) -> Iterator[subprocess.Popen[str]]:
    """One that sends half a frame, waits for a line, and sends the rest."""
    script = (
        "import sys; from tests.hostile.peers import Peer; peer = Peer(sys.argv[1]);"
        f"peer.begin({4 * MIB}, bytes({2 * MIB})); print('begun', flush=True); sys.stdin.readline();"
        f"peer.send_rest(bytes({2 * MIB})); print(peer.receive())"
    )
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", script, endpoint]
    with subprocess.Popen(
        command, cwd=Path(__file__).parents[3], stdin=pipe, stdout=pipe, text=True
    ) as other:
        try:
            yield other
        finally:
            other.kill()


def test_half_frames_cost_no_more_than_their_budget(tmp_path: Path) -> None:
    """Beyond it those of the process with most are closed, and others go on; they are forgotten with it."""
    limits = ("--half-frames-bytes-max", str(8 * MIB), "--frame-bytes-max", str(8 * MIB))
    with running_daemon(tmp_path / "base", *limits) as daemon, other_process(daemon.endpoint) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "begun\n"
        peers = [Peer(daemon.endpoint) for _ in range(150)]
        for n, peer in enumerate(peers):
            with contextlib.suppress(OSError):
                peer.begin(10 * MIB, bytes(4 * MIB if n < 6 else 60_000))
        eventually(lambda: connections(daemon)["cut"]["memory"] >= 20, "they are cut")
        told = connections(daemon)
        assert told["halfBytes"] <= 8 * MIB
        with Raw(daemon.endpoint) as raw:
            assert raw.store("storeEvent", event("large", text="x" * 3 * MIB)) == 1
        for peer in peers:
            peer.close()
        eventually(lambda: connections(daemon)["halfBytes"] == 2 * MIB, "forgotten with them")
        said, _ = other.communicate("go on\n", timeout=120)
        assert "BAD_FRAME" in said
        eventually(lambda: connections(daemon)["halfBytes"] == 0, "nothing is left")
        assert daemon.events("connection_cut")


def test_clients_that_wait_for_their_turn_are_not_cut(tmp_path: Path) -> None:
    """Nothing of what they sent is unfinished, though more waits to be looked at than may be unfinished."""
    body = b'{"v":1,"op":"storeEvent","id":1}\n' + stored_event(0)
    window = 500 * (struct.pack(">BQ", 2, len(body)) + body)
    limits = ("--half-frames-bytes-max", str(MIB), "--frame-bytes-max", str(MIB))
    with running_daemon(tmp_path / "base", *limits) as daemon:
        peers = [Peer(daemon.endpoint) for _ in range(40)]
        threads = [threading.Thread(target=peer.send_rest, args=(window,)) for peer in peers]
        for thread in threads:
            thread.start()
        for peer in peers:
            for _ in range(500):
                assert b'"ok":true' in peer.receive()
        for thread in threads:
            thread.join()
        assert connections(daemon)["cut"]["memory"] == 0
        for peer in peers:
            peer.close()


def test_a_flood_of_tiny_messages_leaves_room_for_others(daemon: RunningDaemon) -> None:
    """Four that send frames of two bytes as fast as they can: another one is answered all the while."""
    done = threading.Event()

    def flood() -> None:
        peer = Peer(daemon.endpoint)
        with contextlib.suppress(OSError):
            while not done.is_set():
                peer.begin(0, bytes(2) * 20_000)
                peer.drain()
        peer.close()

    threads = [threading.Thread(target=flood) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        with Raw(daemon.endpoint) as raw:
            for n in range(20):
                assert raw.store("storeEvent", event(f"e{n}")) == n + 1
    finally:
        done.set()
        for thread in threads:
            thread.join()
