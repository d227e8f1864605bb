"""Turns of clients at the endpoints: real Unix sockets, a loop of our own."""

import errno
import select
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from perstack_stored.access.peers import Peers
from perstack_stored.access.rate_limits import RateLimiter
from perstack_stored.access.rules import AccessRules
from perstack_stored.config.settings import Settings
from perstack_stored.protocol.messages import Envelope
from perstack_stored.protocol.zmtp import OPENING
from perstack_stored.transport.connection import IpcConnection
from perstack_stored.transport.endpoints import Endpoints
from perstack_stored.transport.ipc import IpcTransport
from perstack_stored.transport.partial_frames import PartialFrameBudget
from tests.hostile.peers import GREETING

READY = b"\x04\x1c\x05READY\x0bSocket-Type\0\0\0\6DEALER"


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "socket")


@pytest.fixture
def endpoints(path: str) -> Iterator[Endpoints]:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(100)
    made = Endpoints(Peers(AccessRules(), RateLimiter(0, 0)), Settings(), 100)
    made.serve_ipc(listener)
    yield made
    made.close()


def connected(endpoints: Endpoints, path: str, count: int) -> list[socket.socket]:
    """Clients that have said READY."""
    clients = []
    for _ in range(count):
        client = socket.socket(socket.AF_UNIX)
        client.connect(path)
        client.sendall(GREETING + READY)
        clients.append(client)
    while endpoints.wait(0.1) is not None:
        assert endpoints.take(100, 2**20) == []
        endpoints.flush()
    return clients


def test_a_quiet_client_gets_a_turn_beside_busy_ones(endpoints: Endpoints, path: str) -> None:
    """A round takes less than is there; nobody waits for many more rounds than there are clients."""
    *floods, quiet = connected(endpoints, path, 12)
    turns: Counter[object] = Counter()
    for _ in range(40):
        for flood in floods:
            flood.sendall(b"\x00\x05flood")
        endpoints.wait(1)
        turns.update({number for (number, _), _ in endpoints.take(2, 2**20)})
    assert len(turns) == len(floods)
    assert min(turns.values()) > 1
    quiet.sendall(b"\x00\x05quiet")
    for _ in range(15):
        for flood in floods:
            flood.sendall(b"\x00\x05flood")
        endpoints.wait(1)
        if any(frame == b"quiet" for _, frame in endpoints.take(2, 2**20)):
            break
    else:
        pytest.fail("the quiet one had no turn in 15 rounds")
    for client in (*floods, quiet):
        client.close()


@pytest.mark.parametrize("piece", [b"\x01\x00", b"\x04\x07\x04PING\0\0"], ids=["no end", "commands"])
def test_a_round_is_bounded_where_no_message_comes_of_what_is_sent(
    endpoints: Endpoints, path: str, piece: bytes
) -> None:
    """Nobody waits for all that others have sent; what is left is not slept over."""
    *floods, quiet = connected(endpoints, path, 9)
    for flood in floods:
        flood.sendall(piece * 1000 + b"\x00\x04last")
    quiet.sendall(b"\x00\x05quiet")
    came: list[tuple[int, bytes | None]] = []
    rounds = 0
    while len(came) < 9:
        assert endpoints.wait(0) is not None, f"nothing is left after {rounds} rounds"
        came += [(rounds, frame) for _, frame in endpoints.take(128, 2**20)]
        rounds += 1
    assert rounds >= 8 * 1000 / (2 * 128)
    assert next(at for at, frame in came if frame == b"quiet") <= 8
    for client in (*floods, quiet):
        client.close()


def test_answers_that_nobody_reads_are_bounded_over_all_clients(path: str) -> None:
    """The client with most unread is closed, and no other; what is read, or dropped, counts no longer."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(100)
    endpoints = Endpoints(
        Peers(AccessRules(), RateLimiter(0, 0)), Settings(unread_answers_bytes_max=8 << 20), 100
    )
    endpoints.serve_ipc(listener)
    clients = connected(endpoints, path, 5)
    envelopes: list[Envelope] = []
    for client in clients:
        client.sendall(b"\0\3who")
        while not (came := endpoints.take(100, 2**20)):
            assert endpoints.wait(60) is not None
        envelopes += [envelope for envelope, _ in came]

    def leave(number: int, answers: int) -> None:
        for _ in range(answers):
            endpoints.send(envelopes[number], bytes(1 << 20))
            endpoints.flush()

    for number in range(4):
        leave(number, 1)
    leave(4, 6)
    assert (endpoints.answers()["stalled"], endpoints.connections()["cut"]["memory"]) == (4, 1)
    for client in clients[:4]:
        client.settimeout(60)
        left = len(OPENING) + 9 + (1 << 20)
        while left:
            left -= len(client.recv(min(left, 1 << 20)))
            endpoints.wait(0)
            endpoints.take(100, 2**20)
    assert endpoints.answers()["stalled"] == 0
    for number in range(4):
        leave(number, 7)
        assert (endpoints.answers()["stalled"], endpoints.connections()["cut"]["memory"]) == (1, 1)
        clients[number].close()
        while endpoints.answers()["stalled"]:
            assert endpoints.wait(60) is not None
            endpoints.take(100, 2**20)
    endpoints.close()
    clients[4].close()


def test_a_listener_is_listened_to_again_where_nothing_more_can_be_watched(path: str) -> None:
    """A user's watches (epoll) are bounded: a pause gives up none that it needs afterwards."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(100)
    epoll = Mock(wraps=select.epoll())
    ipc = IpcTransport(epoll, Peers(AccessRules(), RateLimiter(0, 0)), Settings(), 100)
    ipc.listen(listener)
    epoll.register.side_effect = OSError(errno.ENOSPC, "no more watches")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        ipc.happened(epoll.poll(60))
        ipc.take([], 100, 2**20)
        assert (ipc.connections, ipc.pauses["enospc"]) == (0, 1)
        assert not epoll.poll(0)
    ipc.on_tick(time.monotonic() + 1)
    epoll.register.side_effect = None
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        ipc.happened(epoll.poll(60))
        ipc.take([], 100, 2**20)
        assert ipc.connections == 1
    ipc.close(0)
    epoll.close()


def test_a_client_to_which_nothing_can_be_sent_sees_the_end(
    endpoints: Endpoints, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel may have no memory for an answer: left open, its client would wait for good."""
    (client,) = connected(endpoints, path, 1)
    client.settimeout(60)
    assert len(client.recv(1000)) == len(OPENING)
    client.sendall(b"\0\3who")
    assert endpoints.wait(60) is not None
    ((envelope, _),) = endpoints.take(100, 2**20)
    monkeypatch.setattr(IpcConnection, "push", Mock(side_effect=OSError(errno.ENOBUFS, "no buffer space")))
    endpoints.send(envelope, b"answer")
    endpoints.flush()
    assert client.recv(1000) == b""
    assert endpoints.answers()["gone"] == 1
    client.sendall(b"\0\4last")
    assert endpoints.wait(60) is not None
    assert [frame for _, frame in endpoints.take(100, 2**20)] == [b"last"]
    client.close()
    assert endpoints.wait(60) is not None
    endpoints.take(100, 2**20)
    assert endpoints.connections()["open"] == 0


def test_half_frames_of_one_process_are_closed_before_those_of_others() -> None:
    """However many connections it opens; within a process the one that has stood longest is first."""
    halves = PartialFrameBudget(100)
    kept: dict[int, int] = {}

    def grow(connection: IpcConnection, to: int) -> list[int]:
        halves.note(connection, to)
        kept[connection.number] = to
        closed = []
        while (one := halves.excess()) is not None:
            halves.note(one, 0)
            del kept[one.number]
            closed.append(one.number)
        assert halves.bytes == sum(kept.values())
        return closed

    ours = [socket.socketpair()[0] for _ in range(12)]
    large, *small = (IpcConnection(sock, n, f"pid {int(n > 0)}", 1000) for n, sock in enumerate(ours))
    assert grow(large, 45) == []
    assert [closed for one in small[:5] for closed in grow(one, 10)] == []
    assert grow(small[0], 11) == []
    assert [closed for one in small[5:] for closed in grow(one, 10)] == [2, 3, 4, 5, 1, 6]
    assert grow(large, 61) == [0]
    assert grow(small[6], 0) == []
    assert halves.bytes == 40
    for connection in (large, *small):
        connection.close()
