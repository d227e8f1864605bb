"""The daemon's own ZMTP: libzmq's peers get every answer, late or at the end of either side."""

import json
import struct

import zmq

from tests.helpers.daemon import RunningDaemon, eventually
from tests.helpers.raw_client import Raw, event
from tests.hostile.peers import GREETING, Peer
from tests.integration.ipc.strangers import PING, connections, stored_event, stranger


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
        body = b'{"v":1,"op":"storeEvent","id":1}\n' + stored_event(n)
        sent = GREETING + bytes((4, len(ready))) + ready + struct.pack(">BQ", 2, len(body)) + body
        stranger(daemon, sent).close()
    with Raw(daemon.endpoint) as raw:
        eventually(lambda: raw.ask("stats").value["position"] == 50, "all are stored")
        eventually(lambda: raw.ask("stats").value["connections"]["open"] == 1, "all are closed")
        assert raw.ask("stats").value["outbox"]["gone"] > 0


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
