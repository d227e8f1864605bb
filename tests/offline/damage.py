"""Damage at thousands of places of a base: each must be found and named, and nothing else may come of it.

    python -m tests.offline.damage --places 5000 --seed 7

A base is made once, damaged at one place at a time, started and asked, checked, and repaired: one that was
stopped in order, and one that was killed with a torn tail. A fault is reported with the seed of its place.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.crash.progress import Figures, Progress, add
from tests.offline.damage_base import make
from tests.offline.damage_places import places
from tests.offline.damage_trial import WrongError, run

_TELL_SECONDS = 5
_PLACES_A_BASE = 50


def campaign(rounds: int, seed: int, folder: Path, progress: Progress) -> Figures:
    """For `make soak`: damage at a number of places; raises if anything was wrong."""
    total: Figures = {"wrong": 0}
    done = 0
    while done < rounds and not progress.time_is_up:
        share = min(_PLACES_A_BASE, rounds - done)
        place = folder / f"from-{done}"
        place.mkdir()
        outcomes, wrong = damages(share, seed + done, place, progress.after(done))
        shutil.rmtree(place)
        done += share
        figures: Counter[str] = Counter()
        for outcome, count in outcomes.items():
            figures[outcome.partition(": ")[2]] += count
        figures["wrong"] += figures.pop("WRONG", 0)
        add(total, dict(figures))
        progress.tell(total)
        assert not wrong, "\n".join(wrong)
    return total


def damages(
    count: int, seed: int, folder: Path, on_round: Callable[[int], None]
) -> tuple[Counter[str], list[str]]:
    """Damage two bases at a number of places; returns what came of it, and what was wrong."""
    bases = [make(folder / "clean", clean=True), make(folder / "crashed", clean=False)]
    pick = random.Random(seed)
    outcomes: Counter[str] = Counter()
    wrong: list[str] = []
    trials = [(made, place) for made in bases for place in places(made, -(-count // len(bases)), pick)]
    for n, (made, place) in enumerate(trials):
        area = place.file.split("/")[1 if place.file.startswith(".stored") else 0].split(".")[0]
        try:
            outcome = run(made, place, folder, seed + n)
        except WrongError as error:
            outcome = "WRONG"
            wrong.append(f"{made.path.name}: {place} (seed {seed + n}): {error}")
        outcomes[f"{area}: {outcome}"] += 1
        on_round(n + 1)
    return outcomes, wrong


def main() -> None:
    """Run the campaign; the exit status is 1 if anything was wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--places", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    said = time.monotonic()

    def tell(done: int) -> None:
        nonlocal said
        if time.monotonic() - said > _TELL_SECONDS:
            said = time.monotonic()
            print(f"{done} of {arguments.places} places", flush=True)

    with tempfile.TemporaryDirectory(prefix="damage-") as folder:
        outcomes, wrong = damages(arguments.places, arguments.seed, Path(folder), tell)
    for line in wrong:
        print(line)
    for outcome, count in sorted(outcomes.items()):
        print(f"{count:6} {outcome}")
    print(f"{sum(outcomes.values())} places, {len(wrong)} wrong")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
