"""What waits for a client that reads late: real sockets, no daemon."""

import socket
import tracemalloc
from collections.abc import Iterator

import pytest

from perstack_stored.transport.connection import IpcConnection


@pytest.fixture
def ends() -> Iterator[tuple[IpcConnection, socket.socket]]:
    ours, theirs = socket.socketpair()
    connection = IpcConnection(ours, 1, "pid 1", 1 << 20)
    yield connection, theirs
    connection.close()
    theirs.close()


def test_many_small_answers_take_little_more_than_their_bytes(
    ends: tuple[IpcConnection, socket.socket],
) -> None:
    """And come out as they went in, large ones in between, as the client makes room."""
    connection, client = ends
    connection.put(b"", bytes(1 << 20))
    assert not connection.push()
    connection.blocked = True
    sent = [bytes(1 << 20)]
    tracemalloc.start()
    try:
        for n in range(100_000):
            connection.put(b"\0\7", b"%07d" % n)
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert taken < 2 * 900_000
    sent += [b"\0\7%07d" % n for n in range(100_000)]
    for n in range(10):
        connection.put(b"head", b"%d" % n * 20_000)
        connection.put(b"", b"small")
        sent += [b"head", b"%d" % n * 20_000, b"small"]
    wanted, got = b"".join(sent), bytearray()
    client.settimeout(60)
    done = False
    while len(got) < len(wanted):
        got += client.recv(50_000)
        done = connection.push()
    assert done
    assert got == wanted
    assert connection.waiting == 0
