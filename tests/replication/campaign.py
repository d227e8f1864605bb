"""Writers that move between daemons while servers and daemons die, and the judge of what they stored.

    python -m tests.replication.campaign --seconds 60 --seed 1
    python -m tests.replication.campaign --seconds 3600 --share 1        # each fault as often as in TABLE

The judge looks at the answers that writers had, and at all records of each daemon: nothing that was
acknowledged is lost, nothing stands there twice or out of order, and all daemons hold the same.
"""

import argparse
import contextlib
import random
import secrets
import signal
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import zmq

from perstack_stored.replication.nats_admin import NewStream, create, parse_address
from tests.helpers.daemon import RunningDaemon
from tests.helpers.raw_client import Raw, event

from .client_writer import ClientWriter
from .cluster import Cluster, Place
from .network import Network, is_possible, network

STREAM = "campaign"
WINDOW = 16
TABLE = {
    "leader_killed": 100,
    "all_killed": 50,
    "daemon_killed": 300,
    "leader_paused": 50,
    "cut_off": 50,
    "leader_stopped": 50,
}
"""How often each fault happens in a whole campaign, which takes about an hour."""
LARGE = "x" * (9 << 20)
"""Of a value that goes through the log in pieces."""
_ANSWER_SECONDS = 10.0  # then another daemon is asked
_RETRYABLE = frozenset({"BUSY", "STOPPING", "SEQUENCE_GAP", "DEADLINE"})


class Writer(threading.Thread):
    """Stores events in one session, several in flight, and moves to another daemon now and then."""

    def __init__(self, name: str, daemons: list[RunningDaemon], seed: int) -> None:
        super().__init__(name=name, daemon=True)
        self._daemons = daemons
        self._random = random.Random(seed)
        self.session = secrets.token_hex(16)
        self.acked: dict[int, int] = {}
        self.refused: dict[int, str] = {}
        self._unanswered: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self._next = 1
        self.stopping = False
        self.moves = 0
        self.longest = 0.0  # time without an answer, in seconds
        self._answered = time.monotonic()
        self.fault: BaseException | None = None

    def run(self) -> None:
        """Store until stopped, and all is answered."""
        try:
            while not (self.stopping and not self._unanswered):
                self._visit(self._random.choice(self._daemons))
        except BaseException as error:  # noqa: BLE001 - the judge shows it
            self.fault = error

    def _visit(self, daemon: RunningDaemon) -> None:
        """Store through one daemon for a while."""
        self.moves += 1
        until = time.monotonic() + self._random.uniform(0.5, 3.0)
        with Raw(daemon.endpoint) as raw:
            numbers: dict[int, int] = {}
            for seq, value in self._unanswered.items():
                numbers[self._send(raw, seq, value)] = seq
            while time.monotonic() < until or self._unanswered:
                if time.monotonic() < until and not self.stopping:
                    self._fill(raw, numbers)
                if not self._unanswered:
                    if self.stopping:
                        return
                    continue
                if not raw.socket.poll(500, zmq.POLLIN):
                    if time.monotonic() > until + _ANSWER_SECONDS:
                        return
                    continue
                self.longest = max(self.longest, time.monotonic() - self._answered)
                self._answered = time.monotonic()
                if not self._take(raw, numbers):
                    time.sleep(0.05)
                    return

    def _fill(self, raw: Raw, numbers: dict[int, int]) -> None:
        while len(self._unanswered) < WINDOW:
            seq, self._next = self._next, self._next + 1
            kind = "wrong" if self._random.random() < 0.02 else "startRun"
            value = event(f"{self.name}-{seq}", jobId=self.name, runId="r", stepNumber=seq, type=kind)
            if kind == "wrong":
                value["stepNumber"] = "none"
            elif self._random.random() < 0.002:
                value["text"] = LARGE
            self._unanswered[seq] = value
            numbers[self._send(raw, seq, value)] = seq

    def _send(self, raw: Raw, seq: int, value: dict[str, Any]) -> int:
        settled = next(iter(self._unanswered)) - 1
        return raw.send("storeEvent", value, session=self.session, seq=seq, settled=settled)

    def _take(self, raw: Raw, numbers: dict[int, int]) -> bool:
        answer = raw.receive()
        seq = numbers.pop(answer.header["id"])
        if answer.header["ok"]:
            before = self.acked.setdefault(seq, answer.position)
            assert before == answer.position, f"{self.name}: store {seq} has two positions"
        elif answer.code in _RETRYABLE:
            return False
        else:
            self.refused[seq] = answer.code
        self._unanswered.pop(seq, None)
        return True


class Faults:
    """What goes wrong, at random."""

    def __init__(
        self, cluster: Cluster, daemons: list[RunningDaemon], seed: int, network: Network | None
    ) -> None:
        self._network = network
        self._cluster = cluster
        self._daemons = daemons
        self._random = random.Random(seed)
        self.counts: dict[str, int] = {}

    def plan(self, share: float) -> list[str]:
        """Faults of TABLE, a share of each, in an order by chance."""
        planned = [name for name, count in TABLE.items() for _ in range(round(count * share))]
        if self._network is None:
            planned = [name for name in planned if name != "cut_off"]
        self._random.shuffle(planned)
        return planned

    def one(self, names: list[str]) -> None:
        """Let one of these happen."""
        name = self._random.choice(names)
        self.counts[name] = self.counts.get(name, 0) + 1
        act: Callable[[], None] = getattr(self, name)
        act()

    def daemon_killed(self) -> None:
        """A daemon dies, and comes back."""
        daemon = self._random.choice(self._daemons)
        daemon.kill()
        time.sleep(self._random.uniform(0, 0.5))
        daemon.start()

    def leader_killed(self) -> None:
        """The stream's leader dies, and comes back."""
        node = self._cluster.leader(STREAM)
        node.kill()
        time.sleep(self._random.uniform(0.2, 1.0))
        node.start()
        self._cluster.await_healthy()

    def leader_stopped(self) -> None:
        """The stream's leader is stopped in order, and comes back."""
        node = self._cluster.leader(STREAM)
        node.terminate()
        node.start()
        self._cluster.await_healthy()

    def all_killed(self) -> None:
        """All servers die at once."""
        for node in self._cluster.nodes:
            node.kill()
        for node in self._cluster.nodes:
            node.start()
        self._cluster.await_healthy()

    def cut_off(self, seconds: float = 10.0) -> None:
        """The network loses a machine with its server, which leads half the time, and its daemon."""
        assert self._network is not None
        node = self._cluster.leader(STREAM)
        if self._random.random() < 0.5:
            node = self._random.choice([other for other in self._cluster.nodes if other is not node])
        number = self._cluster.nodes.index(node)
        self._network.cut(number)
        time.sleep(seconds)
        self._network.heal(number)
        self._cluster.await_healthy()

    def leader_paused(self, seconds: float = 15.0) -> None:
        """The stream's leader stands still."""
        node = self._cluster.leader(STREAM)
        node.signal(signal.SIGSTOP)
        time.sleep(seconds)
        node.signal(signal.SIGCONT)
        self._cluster.await_healthy()

    def daemon_paused(self) -> None:
        """A daemon stands still."""
        daemon = self._random.choice(self._daemons)
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGSTOP)
        time.sleep(self._random.uniform(0.5, 2.0))
        daemon.process.send_signal(signal.SIGCONT)


def records_of(daemon: RunningDaemon, acked: int) -> list[dict[str, Any]]:
    """All records of a daemon, up to `acked`, the newest that any daemon has acknowledged, at least."""
    with Raw(daemon.endpoint) as raw:
        assert raw.ask("getEvent", {"position": acked}, atLeast=acked).header["ok"]
        return raw.read_all()


def judge(writers: Sequence[Writer | ClientWriter], daemons: list[RunningDaemon]) -> dict[str, int]:
    """Compare what was acknowledged with what is there; raises AssertionError."""
    for writer in writers:
        if writer.fault is not None:
            raise AssertionError(f"{writer.name} failed") from writer.fault
    acked = max(position for writer in writers for position in writer.acked.values())
    all_of = [records_of(daemon, acked) for daemon in daemons]
    for daemon, records in zip(daemons[1:], all_of[1:], strict=True):
        assert records == all_of[0], f"{daemon.base} holds other records than {daemons[0].base}"
    records = all_of[0]
    assert [record["position"] for record in records] == list(range(1, len(records) + 1))
    found: dict[str, list[tuple[int, int]]] = {}
    for record in records:
        name, _, seq = record["value"]["id"].rpartition("-")
        found.setdefault(name, []).append((int(seq), record["position"]))
    for writer in writers:
        stored = found.get(writer.name, [])
        seqs = [seq for seq, _ in stored]
        assert seqs == sorted(set(seqs)), f"{writer.name}: stored twice or out of order"
        positions = dict(stored)
        for seq, position in writer.acked.items():
            assert positions.get(seq) == position, (
                f"{writer.name}: store {seq} acked at {position}, {positions.get(seq)}"
            )
        assert set(positions) == set(writer.acked), f"{writer.name}: stored, and refused"
        assert set(writer.refused.values()) <= {"BAD_VALUE"}, writer.refused
    return {"records": len(records), "moves": sum(writer.moves for writer in writers)}


class Plan(NamedTuple):
    """What a campaign does.

    Attributes:
        seconds: it ends then, or when the planned faults are over.
        seed: of all that is by chance.
        names: faults, one of which happens about each second.
        share: of TABLE, in place of `names`; 0 for those.
        writers: how many store.
        kind: how they store.
    """

    seconds: float
    seed: int
    names: list[str]
    share: float = 0.0
    writers: int = 6
    kind: type[Writer | ClientWriter] = Writer


def run(folder: Path, plan: Plan, machines: Network | None = None) -> dict[str, Any]:
    """Run a campaign, on machines of a network or on loopback. Returns its figures."""
    places = [Place()] * 3 if machines is None else machines.places
    cluster, seed = Cluster(folder, places=places), plan.seed
    daemons: list[RunningDaemon] = []
    try:
        cluster.start()
        create(parse_address(cluster.url(STREAM)), NewStream(3, 604_800, 0, 20_000, 1024, 86_400))
        for i in range(3):
            flags = ["--journal", cluster.url(STREAM, i), "--tree-leave-out", "startRun"]
            if plan.kind is ClientWriter:  # which names what it has seen
                flags.append("--no-strict-reads")
            daemon = RunningDaemon(folder / f"base{i}", *flags, prefix=places[i].prefix)
            daemons.append(daemon.start())
        faults = Faults(cluster, daemons, seed, machines)
        threads = [plan.kind(f"w{i}", daemons, seed * 1000 + i) for i in range(plan.writers)]
        for thread in threads:
            thread.start()
        until = time.monotonic() + plan.seconds
        planned = faults.plan(plan.share)
        while time.monotonic() < until and (planned or not plan.share):
            time.sleep(1.0)
            faults.one([planned.pop()] if planned else plan.names)
        for thread in threads:
            thread.stopping = True
        for thread in threads:
            thread.join(120)
            assert not thread.is_alive(), f"{thread.name} had no answer"
        figures: dict[str, Any] = judge(threads, daemons)
        figures["longest"] = round(max(thread.longest for thread in threads), 2)
        figures["faults"] = faults.counts
        return figures
    finally:
        for daemon in daemons:
            with contextlib.suppress(AssertionError):
                daemon.make_sure_it_ended()
        cluster.stop()


FAULTS = ["daemon_killed", "leader_killed", "leader_stopped", "all_killed", "leader_paused", "daemon_paused"]


def main() -> int:
    """Run a campaign from the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--faults", nargs="*", default=FAULTS)
    parser.add_argument(
        "--share", type=float, default=0.0, help="of the counts in TABLE, in place of --faults"
    )
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--clients", action="store_true", help="writers are clients with several endpoints")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="campaign-", dir="/var/tmp"))
    print(f"seed {arguments.seed} in {folder}", flush=True)  # noqa: T201 - a program
    plan = Plan(
        arguments.seconds,
        arguments.seed,
        arguments.faults,
        arguments.share,
        kind=ClientWriter if arguments.clients else Writer,
    )
    if is_possible():
        with network(3) as machines:
            print(run(folder, plan, machines))  # noqa: T201 - a program
        return 0
    print("no network namespaces here: nothing is cut off")  # noqa: T201 - a program
    print(run(folder, plan))  # noqa: T201 - a program
    return 0


if __name__ == "__main__":
    sys.exit(main())
