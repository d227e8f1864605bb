"""The regression guard: python -m tests.bench.guard. Compares a short run with the committed ratios.

A ratio counts as worse if its interval and the committed one don't overlap. Then the status is 1. Ratios of
paired rounds hold on another machine far better than rates do, but not on one that does something else.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench.figures import Estimate, estimate, ratios
from tests.bench.targets import WORK

RESULTS = Path(__file__).parent / "results" / "bench.json"
WORKS = ("32 x 1", "8 x 64")
CONTENDERS = ("perstack", "direct", "direct-timed", "direct-sync", "sqlite", "redis", "postgres")
_FIGURES = {"rate": "rate", "complete": "completeRate", "p50": "p50ms", "p99": "p99ms"}
NOTHING = 3
"""Exit status: there was nothing to compare."""

Rounds = dict[tuple[str, str], list[dict[str, Any]]]


class Verdict(NamedTuple):
    """A ratio of then and now."""

    text: str
    then: Estimate
    now: Estimate
    is_worse: bool

    def __str__(self) -> str:
        return (
            f"{'WORSE' if self.is_worse else 'as before':<10} {self.text}: {self.then} then, {self.now} now"
        )


def rounds_of(path: Path) -> Rounds:
    """The rounds of a result file, by work and contender."""
    found = json.loads(path.read_text())["rounds"]
    return {(one["work"], one["contender"]): one["rounds"] for one in found}


def verdicts(then: Rounds, now: Rounds) -> list[Verdict]:
    """Compare the ratios that both have."""
    found = []
    for work, figure, contender, their_figure, sign, _ in WORK:
        if work not in WORKS:
            continue
        estimates = []
        for rounds in (then, now):
            ours = [one[_FIGURES[figure]] for one in rounds.get((work, "perstack"), [])]
            theirs = [one[_FIGURES[their_figure]] for one in rounds.get((work, contender), [])]
            estimates.append(estimate(ratios(ours, theirs)) if ours and theirs else None)
        before, after = estimates
        if before is not None and after is not None:
            is_worse = after.high < before.low if sign == ">=" else after.low > before.high
            found.append(Verdict(f"{work}: {figure} against {contender}", before, after, is_worse))
    return found


def main() -> int:
    """Run the benchmark shortly, and compare."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.guard", description=__doc__)
    parser.add_argument("--out", default="bench-run", help="folder of the new results")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each round")
    parser.add_argument("--no-run", action="store_true", help="compare the results that are there")
    options = parser.parse_args()
    new = Path(options.out) / "bench.json"
    if not options.no_run:
        command = [sys.executable, "-m", "tests.bench.main", "--only", "ab", "--out", options.out]
        command += ["--works", ",".join(WORKS), "--contenders", ",".join(CONTENDERS)]
        command += ["--rounds", str(options.rounds), "--seconds", str(options.seconds)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    found = verdicts(rounds_of(RESULTS), rounds_of(new))
    for verdict in found:
        print(verdict)
    if not found:
        print("nothing to compare: none of the other stores is installed", file=sys.stderr)
        return NOTHING
    return 1 if any(verdict.is_worse for verdict in found) else 0


if __name__ == "__main__":
    sys.exit(main())
