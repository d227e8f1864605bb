"""`python -m tests.year.figures pack|delete|disk`: what packing, a deletion, and many jobs cost.

pack: p99 of stores while segments are packed, against without, in pairs of rounds.
delete: p99 of stores while jobs of 10,000 events are deleted, against without; no reader sees them after.
disk: bytes of jobs on disk, packed and out of the tree, against plain and all in the tree.

Run it on a machine that does nothing else. The status is 1 if a figure misses its bound.
"""

import argparse
import sys
from pathlib import Path

from tests.year import deleting, disk, packing


def main() -> int:
    """Measure, and print a line for each figure."""
    parser = argparse.ArgumentParser(prog="python -m tests.year.figures", description=__doc__)
    parser.add_argument("what", choices=["pack", "delete", "disk"])
    parser.add_argument("--rounds", type=int, default=8, help="pairs of rounds, of pack and delete")
    parser.add_argument("--seconds", type=float, default=5, help="of each round")
    parser.add_argument(
        "--agents", type=int, default=8, help="processes that store, one event in flight each"
    )
    parser.add_argument("--events", type=int, default=10_000, help="of a job that is deleted")
    parser.add_argument("--jobs", default="60,300", help="two counts of jobs, of disk")
    parser.add_argument("--base", type=Path, help="a folder on the disk to be used")
    options = parser.parse_args()
    if options.what == "pack":
        return packing.measure(options.base, options.rounds, options.seconds, options.agents)
    if options.what == "delete":
        return deleting.measure(options.base, options.rounds, options.seconds, options.agents, options.events)
    few, many = (int(count) for count in options.jobs.split(","))
    return disk.measure(options.base, few, many)


if __name__ == "__main__":
    sys.exit(main())
