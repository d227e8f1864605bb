"""The simulation as a campaign of `make soak`."""

from collections.abc import Callable
from pathlib import Path

from .campaign import Counts, Plan, run

_SEEDS_PER_CAMPAIGN = 100_000


def campaign(rounds: int, seed: int, folder: Path, on_round: Callable[[int], None]) -> dict[str, float]:
    """So many histories, each crashed at every one of its system calls.

    Raises:
        FoundError: a promise was broken; says how to see it again.
    """
    total = Counts()
    for done in range(1, rounds + 1):
        total.add(run(seed * _SEEDS_PER_CAMPAIGN + done, Plan()))
        on_round(done)
    return {
        "calls": total.calls,
        "crashes": total.points + total.nested,
        "recoveries": total.recoveries,
        "faults": total.faults,
        "looks": total.looks,
        "acknowledged": total.acknowledged,
        "lost": 0,
        "doubled": 0,
        "torn": 0,
    }
