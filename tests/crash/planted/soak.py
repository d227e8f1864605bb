"""The planted bugs as a campaign of `make soak`."""

from collections.abc import Callable
from pathlib import Path
from random import Random

from .runner import planted, try_out


def campaign(rounds: int, seed: int, folder: Path, on_round: Callable[[int], None]) -> dict[str, float]:
    """Plant so many of the bugs, one at a time; the list with who caught each goes to the folder.

    Raises:
        AssertionError: one was not caught.
    """
    mutants = planted()
    Random(seed).shuffle(mutants)
    figures: dict[str, float] = {"planted": 0, "simulation": 0, "test": 0, "argued": 0, "open": 0}
    missed = []
    with (folder / "planted.txt").open("w") as listed:
        for done, mutant in enumerate(mutants[:rounds], start=1):
            verdict = try_out(mutant)
            listed.write(f"{verdict}\n")
            listed.flush()
            figures["planted"] += 1
            if verdict.how:
                figures[verdict.how] += 1
            else:
                missed.append(str(verdict))
            on_round(done)
    assert not missed, "\n".join(missed)
    figures["caught"] = figures["simulation"] + figures["test"]
    return figures
