"""Fuzzed frames as a campaign of `make soak`: a new base and seed every so often."""

import shutil
from pathlib import Path

from tests.crash.progress import Figures, Progress, add

from .fuzz import campaign as fuzz

_FRAMES_A_BASE = 10_000


def campaign(rounds: int, seed: int, folder: Path, progress: Progress) -> Figures:
    """Send a number of messages, none of which may harm the daemon or a client beside it.

    The ping's p99 is reported and not held against a bound: what runs beside it takes the machine's time.

    Raises:
        AssertionError: one did; says with which seed.
    """
    total: Figures = {}
    done = 0
    while done < rounds and not progress.time_is_up:
        share = min(_FRAMES_A_BASE, rounds - done)
        place = folder / f"seed-{seed + done}"
        place.mkdir()
        try:
            figures = fuzz(place / "base", seed + done, share, progress.after(done))
        except AssertionError as error:
            raise AssertionError(f"{share} frames of seed {seed + done}: {error}") from error
        shutil.rmtree(place)
        done += share
        refused = sum(number for code, number in figures.answers.items() if code != "ok")
        add(
            total,
            {
                "accepted": figures.answers.get("ok", 0),
                "refused": refused,
                "memoryMibMax": round(figures.memory_mib, 1),
                "pingP99MsMax": round(figures.ping_p99_ms, 1),
            },
        )
        progress(done)
        progress.tell(total)
    return total
