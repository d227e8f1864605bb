"""p99 of stores while complete segments are packed, against the same without packing."""

import shutil
import tempfile
import time
from pathlib import Path

from perstack_storage import Client
from tests.bench.figures import estimate, ratios, short
from tests.bench.load import percentile
from tests.helpers.daemon import eventually, running_daemon
from tests.year.storing import Storing
from tests.year.workload import EVENT_TYPES, say, store_jobs

BOUND = 1.3
_JOBS = 100
_QUIET_SECONDS = 2.0
_SETTINGS = (
    "--segment-bytes",
    str(4 << 20),
    *(w for type in EVENT_TYPES for w in ("--tree-leave-out", type)),
)


def measure(folder: Path | None, rounds: int, seconds: float, agents: int) -> int:
    """Pairs of rounds, each on a copy of one base; returns the status."""
    ours, theirs, shares = [], [], []
    with tempfile.TemporaryDirectory(dir=folder) as name:
        first = Path(name) / "first"
        with running_daemon(first, "--no-pack", *_SETTINGS) as daemon:
            with Client(daemon.endpoint, timeout_s=120) as client:
                store_jobs(client, _JOBS)
                eventually(lambda: _is_projected(client), "index and tree", 600)
            assert daemon.stop() == 0
        for number in range(rounds):
            pair = {}
            for packs in (True, False) if number % 2 else (False, True):
                base = Path(name) / f"{number}-{packs}"
                shutil.copytree(first, base)
                pair[packs], share = _round(base, seconds, agents, packs=packs)
                if packs:
                    shares.append(share)
                shutil.rmtree(base)
            ours.append(pair[True])
            theirs.append(pair[False])
            say(f"round {number + 1}: p99 {ours[-1]:.2f} ms while packing, {theirs[-1]:.2f} ms without")
    ratio = estimate(ratios(ours, theirs))
    say(f"p99 of stores of {agents} agents: {estimate(ours)} ms while packing, {estimate(theirs)} without")
    say(f"ratio {ratio}; bound {BOUND}; of the rounds {short(100 * min(shares))} % or more was packing")
    return 0 if ratio.median <= BOUND else 1


def _is_projected(client: Client) -> bool:
    stats = client.stats()
    return stats["tree"]["lagRecords"] == stats["index"]["lagRecords"] == 0


def _round(base: Path, seconds: float, agents: int, *, packs: bool) -> tuple[float, float]:
    """The p99 in ms, and the share of the round in which segments were packed."""
    with running_daemon(base, "--pack" if packs else "--no-pack", *_SETTINGS) as daemon:
        with Client(daemon.endpoint, timeout_s=120) as client:
            if packs:
                eventually(lambda: _packed(client) > 0, "packing has begun", 60)
            storing = Storing(daemon.endpoint, agents, seconds)
            last, packed_at = _packed(client), time.monotonic()
            while storing.is_going:
                if (now := _packed(client)) > last:
                    last, packed_at = now, time.monotonic()
                time.sleep(0.1)
            found = storing.join()
        daemon.stop()
    start, end = min(found)[0], max(found)[0]
    # Stores after the last segment was packed are none while packing.
    until = packed_at if packs and end - packed_at > _QUIET_SECONDS else end
    assert until > start, "all was packed before the agents had begun: --seconds is too long, or jobs too few"
    return percentile([ms for began, ms in found if began <= until], 0.99), (until - start) / (end - start)


def _packed(client: Client) -> int:
    return int(client.stats()["journal"]["packed"]["segments"])
