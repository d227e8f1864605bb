"""Writers that move between daemons while servers and daemons die, and a verdict on what they stored.

    python -m tests.replication.campaign --seconds 60 --seed 1    # faults at random
    python -m tests.replication.campaign --share 1                # each as often as in TABLE, in an hour
    python -m tests.replication.campaign --judge FOLDER           # of a campaign that was killed

^C or SIGTERM ends the faults early; what was stored is judged then. One that was killed leaves servers and
daemons behind: end them before its folder is judged.
"""

import argparse
import contextlib
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from perstack_stored.replication.nats_admin import NewStream, create, parse_address
from tests.helpers.daemon import RunningDaemon
from tests.helpers.shifted import Clock, shifted_program

from .answers import Pace, Recorder, answers_in
from .client_writer import ClientWriter
from .cluster import Cluster, Place
from .faults import DAEMON_FAULTS, Bringer, Faults, bringing
from .flips import Flips
from .judge import Verdict, compare, judge, of_base
from .network import Network, is_possible, network
from .raw_writer import Writer

STREAM = "campaign"
TABLE = {
    "leader_killed": 100,
    "all_killed": 50,
    "daemon_killed": 300,
    "leader_paused": 50,
    "cut_off": 50,
    "bit_flipped": 20,
    "clock_stepped": 50,
    "leader_stopped": 25,
}
"""How often each fault happens in a whole campaign, which takes an hour."""
WHOLE_SECONDS = 3600.0
_JUDGED_SHARE = 0.1  # of the time, for what comes after the faults
_PER_SECOND = 50.0  # records of a writer in a campaign of TABLE: a million in an hour
_PROGRESS_SECONDS = 30.0
_ANSWER_SECONDS = 180.0
_LARGE_SECONDS = 480.0  # between two large values of a writer


class Plan(NamedTuple):
    """What a campaign does.

    Attributes:
        seconds: it ends then, or when the planned faults are over; judging included.
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
    kind: type[Recorder] = Writer

    @property
    def fault_seconds(self) -> float:
        """Time for faults."""
        return self.seconds * (1 - _JUDGED_SHARE) if self.share else self.seconds

    def wanted(self, *, can_cut: bool) -> dict[str, int]:
        """How often each fault shall happen."""
        if not self.share:
            return {}
        found = {name: max(1, round(count * self.share)) for name, count in TABLE.items()}
        return {name: count for name, count in found.items() if can_cut or name != "cut_off"}


class Result(NamedTuple):
    """What came out.

    Attributes:
        verdict: on what was stored.
        wanted, done: how often each fault was to happen, and did.
        seconds: that each fault took, all together.
        figures: time without an answer in seconds, moves of writers between daemons, bits flipped.
    """

    verdict: Verdict
    wanted: dict[str, int]
    done: dict[str, int]
    seconds: dict[str, float]
    figures: dict[str, Any]

    @property
    def is_complete(self) -> bool:
        """Whether each fault happened as often as wanted."""
        return all(self.done.get(name, 0) >= count for name, count in self.wanted.items())

    def table(self) -> str:
        """All of it, for people."""
        names = [*self.wanted, *(name for name in self.done if name not in self.wanted)]
        rows = [f"{'fault':16}{'wanted':>8}{'done':>8}{'mean s':>8}"]
        for name in names:
            done = self.done.get(name, 0)
            mean = self.seconds.get(name, 0.0) / max(1, done)
            rows.append(f"{name:16}{self.wanted.get(name, '-'):>8}{done:>8}{mean:>8.1f}")
        return "\n".join([*rows, shown(self.verdict), f"{self.figures}"])


def shown(verdict: Verdict) -> str:
    """A verdict for people."""
    counts = f"lost {verdict.lost}, doubled {verdict.doubled}, reordered {verdict.reordered}"
    logs = f"logs differ at {verdict.unequal} positions" if verdict.unequal else "logs equal"
    lines = [f"{verdict.records} records: {counts}, never acknowledged {verdict.unasked}, {logs}"]
    return "\n".join(lines + verdict.examples)


def run(
    folder: Path, plan: Plan, machines: Network | None = None, end: threading.Event | None = None
) -> Result:
    """Run a campaign, on machines of a network or on loopback; `end` ends the faults early."""
    places = [Place()] * 3 if machines is None else machines.places
    cluster = Cluster(folder, places=places)
    daemons: list[RunningDaemon] = []
    try:
        begun = time.monotonic()
        cluster.start()
        create(parse_address(cluster.url(STREAM)), NewStream(3, 604_800, 0, 20_000, 1024, 86_400))
        clocks = [Clock(folder / f"clock{i}") for i in range(3)]
        for i in range(3):
            flags = ["--journal", cluster.url(STREAM, i), "--tree-leave-out", "startRun"]
            if plan.kind is ClientWriter:  # which names what it has seen
                flags.append("--no-strict-reads")
            program = shifted_program(clocks[i])
            daemon = RunningDaemon(folder / f"base{i}", *flags, prefix=places[i].prefix, program=program)
            daemons.append(daemon.start())
        faults = Faults(cluster, STREAM, daemons, clocks, plan.seed)
        faults.network = machines
        wanted = plan.wanted(can_cut=machines is not None)
        if "bit_flipped" in wanted or "bit_flipped" in plan.names:
            faults.flips = Flips(cluster, folder / "flips", STREAM, plan.seed)
            faults.flips.fill()
        pace = Pace(folder, *((_PER_SECOND, _LARGE_SECONDS) if plan.share else (2000.0, 8.0)))
        writers = [plan.kind(f"w{i}", daemons, plan.seed * 1000 + i, pace) for i in range(plan.writers)]
        for writer in writers:
            writer.start()
        bringers = _bringers(faults, plan, wanted, begun)
        with bringing(bringers):
            _watch(bringers, writers, faults, wanted, end or threading.Event())
        for writer in writers:
            writer.stopping = True
        for writer in writers:
            writer.join(_ANSWER_SECONDS)
        for one in _all(bringers, writers):
            if one.fault is not None:
                raise AssertionError(f"{one.name} failed") from one.fault
            assert not one.is_alive(), f"{one.name} had no answer"
        _say("judging")
        verdict = judge([writer.answers for writer in writers], daemons)
        figures = {
            "longest": round(max(writer.longest for writer in writers), 2),
            "moves": sum(writer.moves for writer in writers),
            "flipped": faults.flips.flipped if faults.flips else 0,
            "seconds": round(time.monotonic() - begun),
        }
        return Result(verdict, wanted, dict(faults.counts), faults.seconds, figures)
    finally:
        for daemon in daemons:
            with contextlib.suppress(AssertionError):
                daemon.make_sure_it_ended()
        cluster.stop()


def _bringers(faults: Faults, plan: Plan, wanted: dict[str, int], begun: float) -> list[Bringer]:
    """Those of a share of TABLE: one for daemons, one for servers; else one for all."""
    rng, until = random.Random(plan.seed), begun + plan.fault_seconds
    if not plan.share:
        return [Bringer(faults, _endless(rng, plan.names), 1.0, time.monotonic() + plan.seconds, calm=1.0)]
    found = []
    for of_daemons in (True, False):
        names = [
            name
            for name, count in wanted.items()
            for _ in range(count)
            if (name in DAEMON_FAULTS) is of_daemons
        ]
        rng.shuffle(names)
        pause = (until - time.monotonic()) / (len(names) + 1)
        found.append(Bringer(faults, iter(names), pause, until))
    return found


def _endless(rng: random.Random, names: list[str]) -> Iterator[str]:
    while True:
        yield rng.choice(names)


def _watch(
    bringers: list[Bringer],
    writers: list[Recorder],
    faults: Faults,
    wanted: dict[str, int],
    end: threading.Event,
) -> None:
    """Wait for the end of the faults, or for one of the campaign itself; say how far it is."""
    begun = said = time.monotonic()
    while any(bringer.is_alive() for bringer in bringers):
        if end.wait(0.2) or any(one.fault is not None for one in _all(bringers, writers)):
            return
        if time.monotonic() - said > _PROGRESS_SECONDS:
            said = time.monotonic()
            done = ", ".join(f"{name} {faults.counts[name]}/{count}" for name, count in wanted.items())
            acked = sum(len(writer.answers.acked) for writer in writers)
            _say(f"{said - begun:.0f} s: {acked} acknowledged; {done or dict(faults.counts)}")


def _all(bringers: list[Bringer], writers: list[Recorder]) -> list[Bringer | Recorder]:
    return [*bringers, *writers]


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


FAULTS = ["daemon_killed", "leader_killed", "leader_stopped", "all_killed", "leader_paused", "daemon_paused"]


def judge_folder(folder: Path) -> Verdict:
    """Judge a campaign that was cut off, from its files; no daemon of it runs any more."""
    logs = [of_base(folder / f"base{i}") for i in range(3)]
    return compare(answers_in(folder), logs, is_whole=False)


def main() -> int:
    """Run a campaign, or judge one. Status 0: all is well; 1: something is wrong; 2: faults are missing."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, help="60; with --share that share of an hour, at least 60")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--faults", nargs="*", default=FAULTS)
    parser.add_argument("--share", type=float, default=0.0, help="of TABLE, in place of --faults")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--clients", action="store_true", help="writers are clients with several endpoints")
    parser.add_argument("--judge", type=Path, metavar="FOLDER", help="judge a campaign that was cut off")
    given = parser.parse_args()
    if given.judge:
        verdict = judge_folder(given.judge)
        _say(shown(verdict))
        return 0 if verdict.is_clean else 1
    folder = given.folder or Path(tempfile.mkdtemp(prefix="campaign-", dir="/var/tmp"))
    _say(f"seed {given.seed} in {folder}")
    seconds = given.seconds or max(60.0, given.share * WHOLE_SECONDS)
    kind = ClientWriter if given.clients else Writer
    plan = Plan(seconds, given.seed, given.faults, given.share, kind=kind)
    end = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: end.set())
    if is_possible():
        with network(3) as machines:
            result = run(folder, plan, machines, end)
    else:
        _say("no network namespaces here: nothing is cut off")
        result = run(folder, plan, None, end)
    _say(result.table())
    if not result.verdict.is_clean:
        return 1
    return 0 if result.is_complete else 2


if __name__ == "__main__":
    sys.exit(main())
