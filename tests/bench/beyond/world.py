"""What is measured: a daemon by itself, three that share a journal, and the agents that store."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from perstack_storage import Client
from perstack_stored.replication.nats_admin import NewStream, create, parse_address
from tests.bench.load import Load
from tests.bench.run_agents import Worked, agents_of, gathered
from tests.helpers.daemon import RunningDaemon
from tests.replication.cluster import Cluster

STREAM = "bench"
LIMIT_SECONDS = 300.0
_SETTLE_SECONDS = 60.0


class Plan(NamedTuple):
    """How much is measured.

    Attributes:
        rounds: of local and replicated mode, and of the mirror, in turn.
        seconds: of each.
        faults: of each kind.
        records: that a new node has to catch up with.
        joins: of a new node in each way.
        until: no round begins after this time, of `time.monotonic`.
    """

    rounds: int
    seconds: float
    faults: int
    records: int
    joins: int
    until: float

    @property
    def is_over(self) -> bool:
        """Whether no round may begin any more."""
        return time.monotonic() > self.until


@contextmanager
def ending(daemon: RunningDaemon) -> Iterator[RunningDaemon]:
    """A daemon that ends with the block, whether it was started or not."""
    try:
        yield daemon
    finally:
        daemon.make_sure_it_ended()


@contextmanager
def servers(folder: Path) -> Iterator[Cluster]:
    """Three servers with a stream, which sync always."""
    folder.mkdir()
    cluster = Cluster(folder)
    try:
        cluster.start()
        create(parse_address(cluster.url(STREAM)), NewStream(3, 604_800, 0, 20_000, 1024, 86_400))
        yield cluster
    finally:
        cluster.stop()


@contextmanager
def three_daemons(cluster: Cluster, folder: Path) -> Iterator[list[RunningDaemon]]:
    """One for each server; the last one answers local reads."""
    with ExitStack() as stack:
        found = []
        for i in range(3):
            more = ["--no-strict-reads"] if i == 2 else []
            daemon = RunningDaemon(folder / f"base{i}", "--journal", cluster.url(STREAM, i), *more)
            found.append(stack.enter_context(ending(daemon)).start())
        yield found


def work(endpoints: Sequence[str], load: Load, first: int) -> Worked:
    """Let agents work, spread over daemons. Their numbers begin with `first`: no round stores as another."""
    commands = []
    for i, endpoint in enumerate(endpoints):
        count = len(range(i, load.processes, len(endpoints)))
        if count:
            commands.append(agents_of("perstack", endpoint, load._replace(processes=count), first))
        first += count
    return gathered(commands)


def position(endpoint: str) -> int:
    """The position of a daemon's last record."""
    with Client(endpoint, timeout_s=LIMIT_SECONDS) as client:
        return int(client.stats()["position"])


def settle(endpoints: Sequence[str]) -> None:
    """Wait until the trees are complete, for a minute at most: what follows would share the machine."""
    until = time.monotonic() + _SETTLE_SECONDS
    for endpoint in endpoints:
        with Client(endpoint, timeout_s=LIMIT_SECONDS) as client:
            while client.stats()["tree"]["lagRecords"] and time.monotonic() < until:
                time.sleep(0.1)
