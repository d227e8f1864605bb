"""Peers that break ZeroMQ's own rules, crowds of them, and peers that stop in the middle."""

import contextlib
import json
import secrets
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.helpers.daemon import RunningDaemon, eventually, running_daemon
from tests.helpers.raw_client import MIB, Raw, event, session
from tests.helpers.watching import MEMORY_MIB_MAX, PING_P99_MAX_SECONDS, Pings, memory_peak, sockets
from tests.hostile.peers import Peer

pytestmark = pytest.mark.alone  # it measures time, or loads the whole machine

PING = b'{"v":1,"op":"ping","id":1}'


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """One daemon for all: none of them may harm it."""
    with running_daemon(tmp_path_factory.mktemp("served") / "base") as running:
        yield running


@pytest.fixture
def daemon(served: RunningDaemon) -> Iterator[RunningDaemon]:
    with Raw(served.endpoint) as raw:
        raw.store("storeEvent", event("first"))
        eventually(lambda: raw.ask("stats").value["tree"]["lagRecords"] == 0, "all workers run")
        yield served
        served.assert_alive()
        assert raw.store("storeEvent", event("last")) > 1


# --- routing ids -----------------------------------------------------------------------------------


def test_claimed_automatic_routing_ids_end_nothing(daemon: RunningDaemon) -> None:
    """libzmq#4633: peers claim what ZeroMQ would give out next (a zero byte, then a counter)."""
    peers = []
    guesses = [b"\0" + n.to_bytes(4, "big") for n in range(20)]
    guesses += [b"\0" + secrets.token_bytes(4) for _ in range(20)]
    for identity in guesses:
        with contextlib.suppress(OSError):  # refused is as good as harmless
            peers.append(Peer(daemon.endpoint, identity))
    for _ in range(20):
        with Raw(daemon.endpoint) as ordinary:
            assert ordinary.ask("ping").header["ok"]
    for peer in peers:
        peer.close()


@pytest.mark.parametrize("length", [1, 5, 200, 255])
def test_a_routing_id_that_is_taken_takes_nothing_over(daemon: RunningDaemon, length: int) -> None:
    """Two peers of a name: each gets its own answers."""
    name = b"n" * length
    first = Peer(daemon.endpoint, name)
    first.send(PING)
    assert json.loads(first.receive().split(b"\n")[0])["ok"]
    second = Peer(daemon.endpoint, name)
    for n in range(2, 10):
        first.send(PING.replace(b"1}", b"%d}" % n))
        second.send(PING.replace(b"1}", b"%d}" % (10 * n)))
        assert json.loads(second.receive().split(b"\n")[0])["id"] == 10 * n
        assert json.loads(first.receive().split(b"\n")[0])["id"] == n
    second.close()
    first.send(PING)
    assert json.loads(first.receive().split(b"\n")[0])["ok"]
    first.close()


# --- forged sessions -------------------------------------------------------------------------------


def test_forged_numbers_of_other_sessions_harm_only_the_forger(daemon: RunningDaemon) -> None:
    """Numbers and settled at the end of their range, many sessions: an honest session goes on as it was."""
    mine = session()
    with Raw(daemon.endpoint) as honest, Raw(daemon.endpoint) as forger:
        assert honest.ask("storeEvent", event("a"), session=mine, seq=1).header["ok"]
        top = 2**53 - 1
        for seq, settled in ((top, top - 1), (top, 0), (2**40, 2**40), (1, top), (top, top)):
            forged = session()
            answer = forger.ask("storeEvent", event("f"), session=forged, seq=seq, settled=settled)
            assert answer.header["ok"] or answer.code in {"SEQUENCE_GAP", "SEQUENCE_OLD", "BAD_REQUEST"}
            again = forger.ask("storeEvent", event("f"), session=forged, seq=seq, settled=settled)
            if again.header["ok"]:
                assert again.position == answer.position
            else:
                assert again.code in {"SEQUENCE_GAP", "SEQUENCE_OLD", "BAD_REQUEST"}
        wrong: tuple[object, ...] = (0, -1, 2**53, 2**63, 1.5, "1", None)
        for bad in wrong:
            assert forger.ask("storeEvent", event("f"), session=session(), seq=bad).code == "BAD_REQUEST"
        position = honest.ask("storeEvent", event("b"), session=mine, seq=2, settled=1).position
        assert honest.ask("storeEvent", event("b"), session=mine, seq=2, settled=1).position == position


# --- crowds ----------------------------------------------------------------------------------------

_CROWD = """
import sys, zmq
context = zmq.Context(io_threads=1)
context.max_sockets = 2000
sockets = []
for n in range(int(sys.argv[2])):
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.connect(sys.argv[1])
    socket.send(b'{"v":1,"op":"ping","id":%d}' % n)
    sockets.append(socket)
for n, socket in enumerate(sockets):
    assert socket.poll(60_000), n
    assert b'"ok":true' in socket.recv()
print("all answered", flush=True)
sys.stdin.read()
"""


def test_a_thousand_connections_at_once_are_served(daemon: RunningDaemon) -> None:
    """They come together and stay; a client that was there before is answered as quickly as ever."""
    before = sockets(daemon)
    with memory_peak(daemon) as memory, Pings(daemon.endpoint) as pings:
        crowd = subprocess.Popen(
            [sys.executable, "-c", _CROWD, daemon.endpoint, "1000"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert crowd.stdout is not None
        assert crowd.stdin is not None
        assert crowd.stdout.readline() == b"all answered\n"
        assert sockets(daemon) >= before + 1000
        crowd.stdin.close()
        assert crowd.wait(timeout=120) == 0
    assert max(memory) < memory[0] + MEMORY_MIB_MAX
    assert pings.p99 < PING_P99_MAX_SECONDS
    eventually(lambda: sockets(daemon) <= before, "the descriptors are closed")


# --- in the middle ---------------------------------------------------------------------------------


def test_a_frame_of_300_mib_cuts_its_connection_only(daemon: RunningDaemon) -> None:
    """Nothing is set aside for it: the length alone is enough to end the connection."""
    with memory_peak(daemon) as memory, Pings(daemon.endpoint) as pings:
        peer = Peer(daemon.endpoint)
        with contextlib.suppress(OSError):
            peer.begin(300 * MIB, bytes(MIB))
        assert peer.closed()
        peer.close()
        with Raw(daemon.endpoint) as raw:  # and as libzmq sends it; it connects again by itself
            raw.socket.send(bytes(300 * MIB), copy=False)
            eventually(lambda: _answered(raw), "the next connection is served")
    assert max(memory) < memory[0] + MEMORY_MIB_MAX
    assert pings.p99 < PING_P99_MAX_SECONDS


def _answered(raw: Raw) -> bool:
    raw.send("ping")
    return bool(raw.socket.poll(200))


def test_half_a_value_in_parts_holds_up_nobody_and_costs_what_was_sent(daemon: RunningDaemon) -> None:
    """Peers that announce much and send little: only what has come takes room, memory stays."""
    codes = []
    with memory_peak(daemon) as memory, Pings(daemon.endpoint) as pings, contextlib.ExitStack() as stack:
        for n in range(30):
            raw = stack.enter_context(Raw(daemon.endpoint))
            answer = raw.ask("storeEvent", b"{", session=session(), seq=1, part=0, parts=100, bytes=200 * MIB)
            codes.append("ok" if answer.header["ok"] else answer.code)
            assert raw.ask("storeEvent", event(f"small{n}")).header["ok"]
    assert codes == ["ok"] * 30  # 6,000 MiB were announced, where all share 512
    assert max(memory) < memory[0] + 50
    assert pings.p99 < PING_P99_MAX_SECONDS
