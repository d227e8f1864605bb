"""Bytes of jobs on disk: packed and out of the tree, against the first layout, plain and all in the tree.

Two counts of jobs tell what is there once, whatever is stored, and what each job adds.
"""

import shutil
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from perstack_storage import Client
from tests.bench.load import event
from tests.helpers.daemon import RunningDaemon, eventually
from tests.helpers.shifted import Clock, shifted_daemon
from tests.year.__main__ import DAY_MS, disk_of
from tests.year.workload import say, store_jobs

BOUND = 1 / 20
_DAYS = 3
_PLAIN = ("--no-pack", "--segment-bytes", str(4 << 20))
_THIN = ("--pack", "--segment-bytes", str(4 << 20), "--tree-keep-days", "1")


class Size(NamedTuple):
    """MiB of a base while its daemon runs, and after a stop."""

    running: float
    stopped: float


def measure(folder: Path | None, few: int, many: int) -> int:
    """Both layouts with both counts; returns the status."""
    plain, thin = {}, {}
    for count in (few, many):
        with tempfile.TemporaryDirectory(dir=folder) as name:
            base, clock = Path(name) / "base", Clock(Path(name) / "clock")
            plain[count] = _plain(base, clock, count)
            thin[count] = _thin(base, clock)
        say(f"{count} jobs: MiB plain {_text(plain[count])}, packed and old {_text(thin[count])}")
    ratios = []
    for state in Size._fields:
        before, after = ({n: getattr(size, state) for n, size in of.items()} for of in (plain, thin))
        slopes = [(of[many] - of[few]) / (many - few) for of in (before, after)]
        once = after[few] - few * slopes[1]
        ratios.append(after[many] / before[many])
        say(
            f"{state}: 1/{before[few] / after[few]:.0f} at {few} jobs, 1/{1 / ratios[-1]:.0f} at {many};"
            f" a job adds {slopes[0]:.2f} MiB plain, {slopes[1]:.3f} thin (1/{slopes[0] / slopes[1]:.0f});"
            f" once {once:.0f} MiB"
        )
    say(f"bound 1/{1 / BOUND:.0f}, while it runs, at {many} jobs")
    return 0 if ratios[0] <= BOUND else 1


def _text(size: Size) -> str:
    return f"{size.running:.1f} running, {size.stopped:.1f} stopped"


def _plain(base: Path, clock: Clock, count: int) -> Size:
    with (
        shifted_daemon(base, clock, *_PLAIN, passes=True) as daemon,
        Client(daemon.endpoint, timeout_s=120) as client,
    ):
        store_jobs(client, count)
        return _measured(daemon, client)


def _thin(base: Path, clock: Clock) -> Size:
    """The same jobs some days later; all of the tree is written again, as old jobs leave it slowly."""
    with shifted_daemon(base, clock, *_PLAIN, passes=True) as daemon, Client(daemon.endpoint) as client:
        for day in range(1, _DAYS + 1):
            clock.set(day * DAY_MS)
            until = time.time_ns() // 10**6 + day * DAY_MS
            eventually(lambda until=until: client.stats()["retention"]["timeMs"] >= until, "a day")  # type: ignore[misc]
            client.store_event({**event(0, day), "jobId": "today", "timestamp": until})
        assert daemon.stop() == 0
    shutil.rmtree(base / "jobs")
    (base / ".stored" / "tree.cursor").unlink()
    with (
        shifted_daemon(base, clock, *_THIN, passes=True) as daemon,
        Client(daemon.endpoint, timeout_s=120) as client,
    ):
        eventually(lambda: _is_packed(daemon, client), "all complete segments are packed", 3600)
        size = _measured(daemon, client)
    left = [path.name for path in (base / "jobs").iterdir()]
    assert left == ["today"], f"these jobs have not left the tree: {left}"
    return size


def _is_packed(daemon: RunningDaemon, client: Client) -> bool:
    complete = len(list((daemon.base / ".stored" / "journal").glob("*.segment"))) - 1
    return bool(client.stats()["journal"]["packed"]["segments"] >= complete)


def _measured(daemon: RunningDaemon, client: Client) -> Size:
    def is_done() -> bool:
        stats = client.stats()
        return bool(stats["tree"]["lagRecords"] == stats["index"]["lagRecords"] == 0)

    eventually(is_done, "index and tree", 3600)
    running = disk_of(daemon.base)[0]
    assert daemon.stop() == 0
    return Size(running, disk_of(daemon.base)[0])
