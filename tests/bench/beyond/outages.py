"""How long stores wait when a server of the stream dies, or is stopped."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

from perstack_storage import Client
from tests.bench.load import event
from tests.helpers.daemon import eventually
from tests.replication.cluster import Cluster, Node

from .report import Figures
from .world import LIMIT_SECONDS, STREAM, Plan, servers, three_daemons

PART = "without an ack"
_PAUSE_SECONDS = 0.002
_CALM_SECONDS = 2.0
_AFTER_SECONDS = 1.0  # a fault shows within this time
_ACKS = 20


class Writer(threading.Thread):
    """Stores one event after the other at one daemon, and notes when each was acknowledged."""

    def __init__(self, endpoint: str, number: int) -> None:
        super().__init__(daemon=True)
        self._endpoint = endpoint
        self._number = number
        self.acks: list[float] = []
        self.stopping = False
        self.fault: BaseException | None = None

    def run(self) -> None:
        try:
            with Client(self._endpoint, timeout_s=LIMIT_SECONDS) as client:
                while not self.stopping:
                    client.store_event(event(self._number, len(self.acks)))
                    self.acks.append(time.monotonic())
                    time.sleep(_PAUSE_SECONDS)
        except BaseException as error:  # noqa: BLE001 - the measurement shows it
            self.fault = error


def longest_wait(acks: Sequence[float], begun: float) -> float:
    """The longest time between two acks that follow each other, of those that end after a time."""
    return max((after - before for before, after in pairwise(acks) if after > begun), default=0.0)


def measure(root: Path, figures: Figures, plan: Plan) -> None:
    """Take each fault in turn, as often as planned."""
    root.mkdir()
    faults: dict[str, tuple[bool, Callable[[Node], None]]] = {
        "leader killed, s": (True, Node.kill),
        "leader stopped in order, s": (True, Node.terminate),
        "follower killed, s": (False, Node.kill),
    }
    with ExitStack() as stack:
        cluster = stack.enter_context(servers(root / "servers"))
        daemons = stack.enter_context(three_daemons(cluster, root))
        writers = [Writer(daemon.endpoint, i) for i, daemon in enumerate(daemons)]
        for writer in writers:
            writer.start()
        try:
            for n in range(plan.faults):
                for name, (of_leader, act) in faults.items():
                    if plan.is_over:
                        figures.left_out.append(f"{PART}: {name}: time {n + 1} and later ones, time was up")
                        continue
                    leader = cluster.leader(STREAM)
                    followers = [node for node in cluster.nodes if node is not leader]
                    node = leader if of_leader else followers[n % len(followers)]
                    figures.add(PART, name, _outage(cluster, writers, node, act))
        finally:
            for writer in writers:
                writer.stopping = True
            for writer in writers:
                writer.join(LIMIT_SECONDS)


def _outage(cluster: Cluster, writers: Sequence[Writer], node: Node, act: Callable[[Node], None]) -> float:
    """Seconds without an ack, of the writer that waited longest; then the server is back."""
    time.sleep(_CALM_SECONDS)
    begun = time.monotonic()
    act(node)
    eventually(lambda: all(_goes_on(writer, begun) for writer in writers), "acks come", LIMIT_SECONDS)
    longest = max(longest_wait(list(writer.acks), begun) for writer in writers)
    node.start()
    cluster.await_healthy()
    eventually(lambda: cluster.has_all(node), "the server has all", LIMIT_SECONDS)
    return longest


def _goes_on(writer: Writer, begun: float) -> bool:
    if writer.fault is not None:
        raise AssertionError("a writer failed") from writer.fault
    return sum(ack > begun + _AFTER_SECONDS for ack in writer.acks[-_ACKS:]) >= _ACKS
