"""The simulation as a campaign of `make soak`."""

from pathlib import Path

from tests.crash.progress import Figures, Progress
from tests.simulation.campaign import Counts, FoundError, Plan, run

_SEEDS_PER_CAMPAIGN = 100_000
_SHORT = 6  # requests: a minute or so, with a crash at every call
_LONG_EVERY = 5
_KINDS = {"is lost": "lost", "twice": "doubled", "torn": "torn"}


def campaign(rounds: int, seed: int, folder: Path, progress: Progress) -> Figures:
    """A number of histories, each crashed at every one of its system calls.

    Raises:
        FoundError: a promise was broken; says how to see it again.
    """
    total = Counts()
    progress.tell(_figures(total))
    for done in range(1, rounds + 1):
        if progress.time_is_up:
            break
        try:
            plan = Plan() if done % _LONG_EVERY == 0 else Plan(requests=_SHORT)
            total.add(run(seed * _SEEDS_PER_CAMPAIGN + done, plan))
        except FoundError as found:
            kinds = [kind for words, kind in _KINDS.items() if words in str(found)] or ["broken"]
            progress.tell({**_figures(total), kinds[0]: 1})
            raise
        progress(done)
        progress.tell(_figures(total))
    return _figures(total)


def _figures(total: Counts) -> Figures:
    """What the first broken promise ends: up to it, nothing was found."""
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
        "broken": 0,
    }
