"""The daemon's own ZMTP over real Unix sockets: libzmq's peers, half frames, no descriptors, storms."""

import contextlib
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from perstack_storage import Client
from tests.helpers.daemon import RunningDaemon, eventually, refuses_descriptors, running_daemon
from tests.helpers.raw_client import MIB, Raw, event
from tests.hostile.peers import GREETING, Peer, is_closed

PING = b'{"v":1,"op":"ping","id":7}'


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    with running_daemon(tmp_path / "base") as running:
        yield running
        running.assert_alive()


def connections(daemon: RunningDaemon) -> dict[str, Any]:
    """What the daemon says of its connections, with that of the asker."""
    with Raw(daemon.endpoint) as raw:
        told: dict[str, Any] = raw.ask("stats").value["connections"]
        return told


def stranger(daemon: RunningDaemon, said: bytes = b"") -> socket.socket:
    """A bare connection."""
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(60)
    peer.connect(daemon.endpoint.removeprefix("ipc://"))
    if said:  # even nothing can't be sent to a peer that is gone
        peer.sendall(said)
    return peer


# --- peers -----------------------------------------------------------------------------------------


def test_a_router_is_answered_too(daemon: RunningDaemon) -> None:
    """It addresses the daemon by a name that it gave the connection."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.linger = 0
        router.setsockopt(zmq.CONNECT_ROUTING_ID, b"daemon")
        router.connect(daemon.endpoint)
        router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        router.send_multipart([b"daemon", PING])
        assert router.poll(20_000)
        name, answer = router.recv_multipart()
        assert name == b"daemon"
        assert b'"ok":true' in answer


def test_heartbeats_of_a_client_are_answered(daemon: RunningDaemon) -> None:
    """ZeroMQ would drop a connection without a PONG, and come again."""
    with Raw(daemon.endpoint, heartbeat_ivl=100, heartbeat_timeout=1000) as raw:
        raw.ask("ping")
        accepted = connections(daemon)["accepted"]
        assert not raw.socket.poll(3000)
        assert connections(daemon)["accepted"] == accepted + 1  # who asked
        raw.ask("ping")


def test_a_client_that_goes_at_once_has_stored(daemon: RunningDaemon) -> None:
    """It says everything in one go, reads nothing, and its end comes with it: what came before counts."""
    ready = b"\x05READY\x0bSocket-Type\0\0\0\6DEALER"
    for n in range(50):
        body = b'{"v":1,"op":"storeEvent","id":1}\n' + _event(n)
        sent = GREETING + bytes((4, len(ready))) + ready + struct.pack(">BQ", 2, len(body)) + body
        stranger(daemon, sent).close()
    with Raw(daemon.endpoint) as raw:
        eventually(lambda: raw.ask("stats").value["position"] == 50, "all are stored")
        eventually(lambda: raw.ask("stats").value["connections"]["open"] == 1, "all are closed")
        assert raw.ask("stats").value["outbox"]["gone"] > 0


def _event(n: int) -> bytes:
    return (
        b'{"id":"e%d","expertKey":"me","jobId":"j1","runId":"r1","type":"startRun","timestamp":1,"stepNumber":0}'
        % n
    )


def test_a_client_that_reads_late_gets_every_answer(daemon: RunningDaemon) -> None:
    """Its socket is full meanwhile; what waits goes out in order, as it makes room, cut anywhere."""
    with Raw(daemon.endpoint) as raw:
        raw.store("storeEvent", event(text="x" * 100_000))
    late = Peer(daemon.endpoint)
    for n in range(100):
        late.send(b'{"v":1,"op":"getEventContents","id":%d}\n{"jobId":"j1","runId":"r1"}' % n)
        late.send(b'{"v":1,"op":"ping","id":%d}' % (1000 + n))
    with Raw(daemon.endpoint) as raw:
        eventually(lambda: raw.ask("stats").value["outbox"]["stalled"] == 1, "its socket is full")
        eventually(lambda: raw.ask("stats").value["reads"]["pending"] == 0, "all are answered")
    answers = [json.loads(late.receive().split(b"\n")[0]) for _ in range(200)]
    assert sorted(answer["id"] for answer in answers) == [*range(100), *range(1000, 1100)]
    with Raw(daemon.endpoint) as raw:
        assert raw.ask("stats").value["outbox"] == {"stalled": 0, "dropped": 0, "gone": 0}
    late.close()


def test_the_last_answers_come_before_the_end(daemon: RunningDaemon) -> None:
    """A stop answers what had arrived."""
    with Raw(daemon.endpoint) as raw:
        raw.ask("ping")
        sent = [raw.send("storeEvent", event(f"e{n}")) for n in range(200)]
        eventually(lambda: connections_messages(daemon) >= 200, "they have arrived")
        assert daemon.process is not None
        daemon.process.terminate()
        assert sorted(raw.receive(20).header["id"] for _ in sent) == sent
        assert daemon.process.wait(120) == 0
    daemon.start()


def connections_messages(daemon: RunningDaemon) -> int:
    """Messages that the daemon has received."""
    with Raw(daemon.endpoint) as raw:
        return int(raw.ask("stats").value["messages"])


# --- who does not keep to it -----------------------------------------------------------------------


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
        command, cwd=Path(__file__).parents[2], stdin=pipe, stdout=pipe, text=True
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
    body = b'{"v":1,"op":"storeEvent","id":1}\n' + _event(0)
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


# --- descriptors -----------------------------------------------------------------------------------


@pytest.mark.skipif(not refuses_descriptors(), reason="needs Linux 6.16")
def test_open_files_of_clients_are_not_taken(daemon: RunningDaemon) -> None:
    """A TCP socket that lingers takes as long to close as its owner likes, and the receiver waits for it."""
    with stranger(daemon) as peer, pytest.raises(PermissionError):
        socket.send_fds(peer, [GREETING], [0])


_FEW = (
    "import os, resource as r, sys; r.setrlimit(r.RLIMIT_NOFILE, (128, 128));"
    " x = sys.executable; os.execv(x, [x, '-m', 'perstack_stored', 'serve', '--base-path', sys.argv[1]])"
)


def test_with_few_descriptors_a_crowd_waits_and_nobody_else(tmp_path: Path) -> None:
    """A limit of 128, 300 connections: who was there goes on; when they leave, new ones get in."""
    daemon = RunningDaemon(tmp_path / "base")
    with daemon.log.open("wb") as log:
        daemon.process = subprocess.Popen([sys.executable, "-c", _FEW, str(daemon.base)], stderr=log)
    crowd: list[socket.socket] = []
    try:
        eventually(lambda: b'"ready"' in daemon.log.read_bytes(), "the daemon is ready")
        with Client(daemon.endpoint) as client:
            client.store_event(event("first"))
            # Before the crowd: a client that waits for the index to come up connects again, and has no place.
            assert len(client.get_event_contents("j1", "r1")) == 1
            for _ in range(300):
                crowd.append(stranger(daemon))
                with contextlib.suppress(BrokenPipeError):  # it may be sent away at once, for want of room
                    crowd[-1].sendall(GREETING)
            eventually(lambda: bool(daemon.events("accepting_paused")), "no more are let in")
            for n in range(200):
                client.store_event(event(f"e{n}"))
                assert len(client.get_event_contents("j1", "r1")) == n + 2
            assert len(os.listdir(f"/proc/{daemon.pid}/fd")) < 120
            while crowd:
                crowd.pop().close()
            with Client(daemon.endpoint, timeout_s=30) as late:
                late.store_event(event("late"))
            assert len(daemon.events("accepting_paused")) <= 4
        daemon.assert_alive()
        assert daemon.stop() == 0
    finally:
        for peer in crowd:
            peer.close()
        daemon.make_sure_it_ended()


def test_without_any_descriptor_the_daemon_stays_up(daemon: RunningDaemon) -> None:
    """EMFILE at accept, which it did not foresee: it pauses without spinning, and goes on by itself."""
    with Client(daemon.endpoint) as client:
        client.store_event(event("first"))
        assert len(client.get_event_contents("j1", "r1")) == 1
        before = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
        used = 1 + max(int(fd) for fd in os.listdir(f"/proc/{daemon.pid}/fd"))
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (used, before[1]))
        waiting = [Raw(daemon.endpoint) for _ in range(5)]
        try:
            for raw in waiting:
                raw.send("ping")
            eventually(lambda: bool(daemon.events("accepting_paused")), "it is noticed")
            assert daemon.events("accepting_paused")[0]["reason"] == "emfile"
            for n in range(50):
                client.store_event(event(f"e{n}"))
            assert len(client.get_event_contents("j1", "r1")) == 51
            cpu, began = _cpu_seconds(daemon), time.monotonic()
            while time.monotonic() < began + 2:
                assert not waiting[0].socket.poll(500)
            assert _cpu_seconds(daemon) - cpu < 1, "it spins"
            resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, before)
            for raw in waiting:
                assert raw.receive(30).header["ok"]
        finally:
            for raw in waiting:
                raw.close()
        assert connections(daemon)["paused"]["emfile"] >= 1


def test_a_worker_that_finds_no_descriptor_is_started_later(daemon: RunningDaemon) -> None:
    """Its process was killed; stores go on meanwhile, and the tree follows when there is room again."""
    with Client(daemon.endpoint) as client:
        client.store_event(event("first"))
        eventually(lambda: "tree" in daemon.workers(), "the tree's process runs")
        before = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
        used = 1 + max(int(fd) for fd in os.listdir(f"/proc/{daemon.pid}/fd"))
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (used, before[1]))
        os.kill(daemon.workers()["tree"], signal.SIGKILL)
        eventually(lambda: bool(daemon.events("follower_not_started")), "it is noticed")
        for n in range(50):
            client.store_event(event(f"e{n}"))
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, before)
        eventually(lambda: client.stats()["tree"]["lagRecords"] == 0, "the tree follows")
        assert client.stats()["tree"]["fault"] == ""


def _cpu_seconds(daemon: RunningDaemon) -> float:
    fields = Path(f"/proc/{daemon.pid}/stat").read_bytes().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


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
                stack.enter_context(stranger(daemon, GREETING))
            program = (
                "import sys\nfrom perstack_storage import Client\n"
                "with Client(sys.argv[1], timeout_s=30) as client: client.ping(); sys.stdin.read()"
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


# --- storms ----------------------------------------------------------------------------------------


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
