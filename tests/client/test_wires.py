"""What carries the frames: our own ZMTP against libzmq and against peers that misbehave; libzmq over tcp."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import zmq

from perstack_storage import AsyncClient, Client, CurveKeys, DaemonUnavailable, ProtocolError
from perstack_storage._wire.wire import open_wire
from perstack_storage._wire.zmq_wire import ZmqWire
from perstack_storage._wire.zmtp import BUFFER_BYTES, ZmtpWire
from tests.client.fake_daemon import FakeDaemon, Store
from tests.helpers.ports import free_port
from tests.helpers.values import anything

LARGE = 3 * 1024 * 1024 + 7  # more than a socket's buffer takes at once


@pytest.fixture
def path(tmp_path: Path) -> str:
    return f"{tmp_path}/d.sock"


@contextmanager
def router(endpoint: str, **options: int) -> Iterator["zmq.Socket[bytes]"]:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as bound:
        bound.linger = 0
        bound.rcvtimeo = 10_000
        for name, value in options.items():
            setattr(bound, name, value)
        bound.bind(endpoint)
        yield bound


@contextmanager
def peer(path: str, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    """A server that does what it likes with the first connection, and keeps it open."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    connections = []

    def run() -> None:
        connection, _ = listener.accept()
        connections.append(connection)
        serve(connection)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join(60)
        for connection in connections:
            connection.close()
        listener.close()


def greeting(mechanism: bytes = b"NULL", version: bytes = b"\x03\x01") -> bytes:
    return (b"\xff" + bytes(8) + b"\x7f" + version + mechanism.ljust(20, b"\0")).ljust(64, b"\0")


def command(name: bytes, data: bytes = b"") -> bytes:
    body = bytes((len(name),)) + name + data
    return bytes((4, len(body))) + body


READY = command(b"READY", b"\x0bSocket-Type\0\0\0\x06ROUTER\x08Identity\0\0\0\0")


def finished(wire: ZmtpWire) -> ZmtpWire:
    """The wire when the other side has said that it is ready."""
    until(wire, lambda: wire.ready)
    return wire


def until(wire: ZmtpWire, condition: Callable[[], object]) -> list[bytes]:
    """Takes frames until the condition holds."""
    frames = []
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        wire.wait(0.05, False)
        frames += taken(wire)
    return frames


def taken(wire: ZmtpWire) -> list[bytes]:
    frames = []
    try:
        while True:
            frames.append(wire.receive())
    except BlockingIOError:
        return frames


def received(wire: ZmtpWire, count: int) -> list[bytes]:
    frames: list[bytes] = taken(wire)
    while len(frames) < count:
        assert wire.wait(10, False)
        frames += taken(wire)
    return frames


@pytest.mark.parametrize(
    "size", [0, 1, 255, 256, BUFFER_BYTES - 9, BUFFER_BYTES - 8, BUFFER_BYTES, 200_000, LARGE]
)
def test_frames_of_any_size_come_through_both_ways(path: str, size: int) -> None:
    """Short and long lengths, what fits the buffer and what does not, whole or in pieces of the kernel's."""
    with router(f"ipc://{path}") as bound:
        wire = finished(ZmtpWire(path))
        sent = bytes(range(256)) * (size // 256) + bytes(size % 256)
        for number in range(3):
            wire.send(sent)
            while wire.unsent:
                wire.wait(10, True)
                try:
                    wire.flush()
                except BlockingIOError:
                    continue
            name, came = bound.recv_multipart()
            assert came == sent, number
            bound.send_multipart([name, came])
            bound.send_multipart([name, b"small"])
            assert received(wire, 2) == [sent, b"small"]
        wire.close()


def test_a_frame_is_not_taken_while_one_is_on_its_way_or_the_connection_is_not_finished(path: str) -> None:
    """So what was taken may have arrived, and what was not taken has not."""
    with peer(path, lambda connection: connection.sendall(greeting() + READY)):
        wire = ZmtpWire(path)
        with pytest.raises(BlockingIOError):
            wire.send(b"too early")
        finished(wire)
        wire.send(bytes(LARGE))
        assert wire.unsent
        with pytest.raises(BlockingIOError):
            wire.send(b"too much")
        wire.close()


def test_frames_that_come_byte_by_byte_are_put_together(path: str) -> None:
    """The kernel may cut the stream anywhere: in the greeting, in a length, in a command."""
    stream = (
        greeting() + READY + b"\0\x03abc" + b"\2" + (70_000).to_bytes(8, "big") + b"x" * 70_000 + b"\0\0\0\1z"
    )

    def dribble(connection: socket.socket) -> None:
        for i in range(150):
            connection.sendall(stream[i : i + 1])
        connection.sendall(stream[150:70_000])
        for i in range(70_000, len(stream)):
            connection.sendall(stream[i : i + 1])

    with peer(path, dribble):
        wire = ZmtpWire(path)
        assert received(wire, 4) == [b"abc", b"x" * 70_000, b"", b"z"]
        wire.close()


def test_heartbeats_of_the_other_side_are_answered(path: str) -> None:
    """A ROUTER that asks whether its peer lives keeps the connection while it gets answers."""
    with router(f"ipc://{path}", heartbeat_ivl=30, heartbeat_timeout=300) as bound:
        wire = finished(ZmtpWire(path))
        wire.send(b"here")
        name, _ = bound.recv_multipart()
        end = time.monotonic() + 1.5
        until(wire, lambda: time.monotonic() > end)
        bound.setsockopt(zmq.ROUTER_MANDATORY, 1)
        bound.send_multipart([name, b"still there"])
        assert received(wire, 1) == [b"still there"]
        wire.close()


@pytest.mark.parametrize(
    ("says", "complaint"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak ZeroMQ"),
        (greeting(b"CURVE"), "CURVE"),
        (greeting(version=b"\x01\x00"), "ZMTP 1"),
        (greeting() + READY + b"\2" + b"\x7f" * 8, "another program"),
    ],
)
def test_a_program_that_is_no_daemon_is_named_in_the_error(path: str, says: bytes, complaint: str) -> None:
    """It would be silence otherwise, until the time is over."""
    with (
        peer(path, lambda connection: connection.sendall(says)),
        Client(f"ipc://{path}") as client,
        pytest.raises(ProtocolError, match=complaint),
    ):
        client.ping()


def test_a_peer_that_refuses_or_hangs_up_counts_as_no_daemon(path: str) -> None:
    """As with libzmq it is tried again until the time is over."""
    says = greeting() + command(b"ERROR", b"\x03400")
    with (
        peer(path, lambda connection: connection.sendall(says)),
        Client(f"ipc://{path}", timeout_s=0.5) as client,
        pytest.raises(DaemonUnavailable),
    ):
        client.ping()


def test_the_end_of_a_connection_is_noticed_at_once_and_everything_is_sent_again(path: str) -> None:
    """Not after the silence that tells of a hung daemon: a waiting client goes on when the daemon is back."""
    store = Store()
    silent = FakeDaemon(f"ipc://{path}", store, lambda header, body: [] if "seq" in header else None).start()
    results: list[int] = []
    with Client(f"ipc://{path}") as client:
        thread = threading.Thread(target=lambda: results.append(client.store_event(anything({"id": "e"}))))
        thread.start()
        while not any("seq" in request for request in silent.requests):
            time.sleep(0.001)
        silent.stop()
        with FakeDaemon(f"ipc://{path}", store) as daemon:
            thread.join(60)
            assert results == [1]
            seqs = [request["seq"] for request in daemon.requests if "seq" in request]
            assert seqs == [1]


def test_a_pipeline_larger_than_the_sockets_buffer_does_not_stall(path: str) -> None:
    """The rest of a frame goes when there is room, while answers are taken."""
    with FakeDaemon(f"ipc://{path}") as daemon, Client(f"ipc://{path}") as client:
        with client.pipeline() as pipeline:
            for number in range(40):
                pipeline.store_event(anything({"id": str(number), "delta": "x" * 600_000}))
        assert pipeline.positions == list(range(1, 41))
        futures = [
            client.store_event_nowait(anything({"id": str(n), "delta": "x" * 600_000})) for n in range(40)
        ]
        assert [future.result(60) for future in futures] == list(range(41, 81))
    assert len(daemon.store.records) == 80


async def _store_large(endpoint: str) -> list[int]:
    async with AsyncClient(endpoint) as client:
        large = "x" * 600_000
        return list(
            await asyncio.gather(
                *[client.store_event(anything({"id": str(n), "delta": large})) for n in range(40)]
            )
        )


def test_asyncio_stores_larger_than_the_sockets_buffer_do_not_stall(path: str) -> None:
    """The event loop watches for room only while something is unsent."""
    with FakeDaemon(f"ipc://{path}"):
        before = time.process_time()
        assert asyncio.run(_store_large(f"ipc://{path}")) == list(range(1, 41))
        assert time.process_time() - before < 10


def test_a_name_in_the_abstract_namespace_is_one(path: str) -> None:
    """As libzmq has it: @ stands for the NUL in front."""
    name = f"ipc://@{path}"
    with FakeDaemon(name), Client(name) as client:
        assert client.store_event(anything({"id": "e"})) == 1


@pytest.fixture
def tcp() -> str:
    return f"tcp://127.0.0.1:{free_port()}"


def test_over_tcp_libzmq_carries_stores_reads_and_a_restart(tcp: str) -> None:
    """Plain, pipelined, without waiting, through a restart, and with nobody there."""
    store = Store()
    wire = open_wire(tcp, zmq.Context.instance)
    assert isinstance(wire, ZmqWire)
    wire.close()
    with Client(tcp, timeout_s=60) as client:
        with FakeDaemon(tcp, store):
            assert client.store_event(anything({"id": "a"})) == 1
            with client.pipeline() as pipeline:
                for number in range(200):
                    pipeline.store_event(anything({"id": str(number), "delta": "x" * 5000}))
            assert pipeline.positions == list(range(2, 202))
            assert client.store_event_nowait(anything({"id": "b"})).result(60) == 202
            assert len(client.get_event_contents("j", "r")) == 202
        with FakeDaemon(tcp, store):
            assert client.store_event(anything({"id": "c"})) == 203
    with Client(tcp, timeout_s=0.3) as lonely, pytest.raises(DaemonUnavailable):
        lonely.store_event(anything({"id": "d"}))


def test_over_tcp_asyncio_stores_and_closing_ends_a_call(tcp: str) -> None:
    """The descriptor of libzmq signals changes only: what it might swallow is asked for."""

    async def store() -> list[int]:
        async with AsyncClient(tcp) as client:
            return list(
                await asyncio.gather(*[client.store_event(anything({"id": str(n)})) for n in range(300)])
            )

    with FakeDaemon(tcp):
        assert asyncio.run(store()) == list(range(1, 301))


@contextmanager
def breaking_off() -> Iterator[str]:
    """Where each connection ends at once; its endpoint."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            with suppress(OSError):  # the listener is closed
                while True:
                    listener.accept()[0].close()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("keyed", [False, True])
def test_a_handshake_that_is_broken_off_is_reported_with_what_may_be_wrong(keyed: bool) -> None:
    """A client without a key is not asked for the daemon's."""
    public, secret = (key.decode() for key in zmq.curve_keypair())
    keys = CurveKeys(public, public, secret) if keyed else None
    wanted = "is the server key the daemon's own" if keyed else "does the daemon want CURVE keys"
    with (
        breaking_off() as endpoint,
        Client(endpoint, keys=keys, timeout_s=4) as client,
        pytest.raises(DaemonUnavailable, match=wanted),
    ):
        client.ping()
