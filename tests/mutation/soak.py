"""The planted bugs as a campaign of `make soak`."""

from pathlib import Path
from random import Random

from tests.crash.progress import Figures, Progress
from tests.mutation.runner import CAUGHT, planted, try_out


def campaign(rounds: int, seed: int, folder: Path, progress: Progress) -> Figures:
    """Plant a number of the bugs, one at a time; the list with the test that caught each goes to the folder.

    Raises:
        AssertionError: one was not caught, or hangs.
    """
    mutants = planted()
    Random(seed).shuffle(mutants)
    figures: Figures = {"ofAll": len(mutants), "planted": 0, "caught": 0, "missed": 0}
    figures |= {"simulation": 0, "test": 0, "argued": 0, "hangs": 0, "broken": 0}
    missed = []
    with (folder / "planted.txt").open("w") as listed:
        for done, mutant in enumerate(mutants[:rounds], start=1):
            if progress.time_is_up:
                break
            verdict = try_out(mutant)
            listed.write(f"{verdict}\n")
            listed.flush()
            figures["planted"] += 1
            if verdict.how:
                figures[verdict.how] += 1
            if not verdict.is_good:
                figures["missed"] += 1
                missed.append(str(verdict))
            figures["caught"] = sum(figures[how] for how in CAUGHT)
            progress.tell(figures)
            progress(done)
    assert not missed, "\n".join(missed)
    return figures
