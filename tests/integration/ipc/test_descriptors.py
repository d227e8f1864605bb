"""With few file descriptors, or none, the daemon stays up and answers who was there."""

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from perstack_storage import Client
from tests.helpers.daemon import RunningDaemon, eventually, refuses_descriptors
from tests.helpers.raw_client import Raw, event
from tests.hostile.peers import GREETING
from tests.integration.ipc.strangers import connections, stranger


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
