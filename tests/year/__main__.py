"""`python -m tests.year`: a year of 500 jobs a day at a scale of 1:100, on a real daemon, in minutes.

The clock is set forth by a day again and again. Each day stores five captured runs; retention keeps
90 days. Disk, inodes, memory and the time of a start are sampled. At the end the base is checked.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from perstack_storage import Client
from tests.helpers import commands
from tests.helpers.daemon import eventually
from tests.helpers.replay import METHODS, calls_of
from tests.helpers.shifted import Clock, shifted_daemon
from tests.helpers.watching import memory_mib
from tests.year.picture import Series, picture

DAY_MS = 86_400_000
KEPT_DAYS = 90
JOBS = ("a", "a", "b", "a", "a")  # of a day: captured runs
PERIOD_DAYS = 10  # between two restarts, each with a sample
SETTINGS = {
    "--retain-days": str(KEPT_DAYS),
    "--retain-sweep-seconds": "1",
    "--erase-within-seconds": "1",
    "--segment-bytes": str(4 << 20),
}
LEFT_OUT = ("streamReasoning", "streamRunResult")


class Sample(NamedTuple):
    """What was there on a day, after all work of that day was done."""

    day: int
    jobs: int
    stored_mib: float  # payload stored since the first day
    disk_mib: float
    inodes: int
    memory_mib: float
    start_s: float


def disk_of(base: Path) -> tuple[float, int]:
    """MiB on disk and inodes of a base."""
    blocks = inodes = 0
    for path in (base, *base.rglob("*")):
        found = path.lstat()
        blocks += found.st_blocks
        inodes += 1
    return blocks * 512 / (1 << 20), inodes


def store_day(client: Client, day: int) -> int:
    """Store the jobs of a day; returns the bytes of their values."""
    size = 0
    with client.pipeline() as pipeline:
        for number, run in enumerate(JOBS):
            for op, value in calls_of(run, f"day-{day:03d}-{number}"):
                size += len(json.dumps(value))
                getattr(pipeline, METHODS[op])(value)
    return size


def is_done(client: Client) -> bool:
    """Whether retention, erasing and the tree have nothing left to do."""
    stats = client.stats()
    return (
        stats["retention"]["candidates"] == 0
        and stats["retention"]["sweeps"] > 0
        and stats["deletions"]["pending"] == 0
        and stats["tree"]["lagRecords"] == stats["index"]["lagRecords"] == 0
    )


def run_period(base: Path, clock: Clock, days: range, stored: float) -> Sample:
    """Live through some days in one process of the daemon."""
    words = [word for pair in SETTINGS.items() for word in pair]
    words += [word for type in LEFT_OUT for word in ("--tree-leave-out", type)]
    before = time.monotonic()
    with (
        shifted_daemon(base, clock, *words, passes=True) as daemon,
        Client(daemon.endpoint, timeout_s=120) as client,
    ):
        start_s = time.monotonic() - before
        for day in days:
            clock.set(day * DAY_MS)
            stored += store_day(client, day) / (1 << 20)
        sweeps = client.stats()["retention"]["sweeps"]
        eventually(lambda: client.stats()["retention"]["sweeps"] > sweeps, "a sweep", 300)
        eventually(lambda: is_done(client), "retention and erasing are done", 600)
        memory = memory_mib(daemon)
        if days.start // PERIOD_DAYS % 3:
            daemon.stop()
    # After every third period the daemon is killed instead.
    return Sample(days[-1], jobs_of(base), stored, *disk_of(base), memory, start_s)


def jobs_of(base: Path) -> int:
    """Jobs whose folder is there."""
    return sum(1 for _ in (base / "jobs").iterdir())


def report(samples: list[Sample], seconds: float) -> str:
    """A table."""
    lines = [f"{len(samples) * PERIOD_DAYS} days in {seconds:.0f} s", ""]
    lines.append("| day | jobs | stored MiB | disk MiB | inodes | memory MiB | start s |")
    lines.append("|---|---|---|---|---|---|---|")
    lines += [
        f"| {s.day + 1} | {s.jobs} | {s.stored_mib:,.0f} | {s.disk_mib:,.0f} | {s.inodes:,} "
        f"| {s.memory_mib:.0f} | {s.start_s:.2f} |"
        for s in samples
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run it; status 1 if `check` finds anything."""
    parser = argparse.ArgumentParser(prog="python -m tests.year", description=__doc__)
    parser.add_argument("--days", type=int, default=360)
    parser.add_argument("--out", type=Path, help="where year.svg and year.md go")
    parser.add_argument("--base", type=Path, help="a folder on the disk to be used")
    arguments = parser.parse_args()
    samples: list[Sample] = []
    before = time.monotonic()
    with tempfile.TemporaryDirectory(dir=arguments.base) as folder:
        base, clock = Path(folder) / "base", Clock(Path(folder) / "clock")
        for first in range(0, arguments.days, PERIOD_DAYS):
            days = range(first, first + PERIOD_DAYS)
            samples.append(run_period(base, clock, days, samples[-1].stored_mib if samples else 0.0))
            print(samples[-1], flush=True)
        checked = commands.run("check", "--base-path", str(base))
    text = report(samples, time.monotonic() - before)
    print(text + checked.stdout + checked.stderr)
    if arguments.out is not None:
        (arguments.out / "year.md").write_text(text)
        (arguments.out / "year.svg").write_text(
            picture(
                [s.day + 1 for s in samples],
                [
                    Series("MiB stored", [s.stored_mib for s in samples]),
                    Series("MiB on disk", [s.disk_mib for s in samples]),
                    Series("inodes", [float(s.inodes) for s in samples]),
                    Series("memory, MiB", [s.memory_mib for s in samples]),
                    Series("start, s", [s.start_s for s in samples]),
                ],
            )
        )
    return checked.returncode


if __name__ == "__main__":
    sys.exit(main())
