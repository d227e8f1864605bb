"""Kills and power cuts while records are stored, deleted, packed and erased: `make erase-kills`.

The rounds are those of the soak, but every fourth kill waits until the keeper runs. In the end of each base
nothing of what was deleted may be left, all else must be as it was sent, and `check` must find nothing.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.crash import cuts, kills
from tests.crash.progress import Progress


def main() -> None:
    """Run both, and print their figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--cuts", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=50.0, help="no round of either begins later")
    given = parser.parse_args()
    parts = (("kills", kills.keeper_campaign, given.kills), ("cuts", cuts.campaign, given.cuts))
    for name, campaign, rounds in parts:
        if not rounds:
            continue
        facts: dict[str, Any] = {}
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix=f"erase-{name}-") as folder:
            campaign(rounds, given.seed, Path(folder), Progress(facts.update, given.minutes * 60))
        seconds = round(time.monotonic() - began)
        sys.stdout.write(f"{facts['round']} {name} in {seconds} s, seed {given.seed}: {facts['figures']}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
