"""SIGKILL of the daemon, or of one of its followers, at random moments under load; the judge decides."""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.crash.judge import Verdict, judge
from tests.crash.load import ALL_KINDS, Load, load
from tests.crash.progress import Figures, Progress, add
from tests.support import RunningDaemon, eventually

FOLLOWER_EVERY = 5
ROUNDS_A_BASE = 50
# Small segments: a campaign passes from one to the next many times.
SETTINGS = ("--segment-bytes", str(1 << 20), "--first-segment-bytes", str(256 << 10))


def kill_rounds(
    folder: Path,
    rounds: int,
    rng: random.Random,
    *,
    kinds: tuple[str, ...] = ALL_KINDS,
    on_round: Callable[[float], None] = lambda _ready_seconds: None,
    over: Callable[[], bool] = lambda: False,
) -> Verdict:
    """Kill a daemon on one base again and again, then judge. Every few rounds it is a follower instead.

    Args:
        folder: an empty folder.
        rounds: number of kills.
        rng: for the moments and whom it hits.
        kinds: the clients.
        on_round: told after each round how long the next daemon took to be ready, 0 for a follower.
        over: whether to judge what there is, however few rounds that are.
    """
    daemon = RunningDaemon(folder / "base", *SETTINGS).start()
    try:
        with load(
            daemon.endpoint, folder / "history", rng.randrange(10**9), kinds, look=daemon.base
        ) as clients:
            for number in range(rounds):
                if over():
                    break
                await_progress(clients)
                time.sleep(rng.uniform(0, 0.3))
                before = time.monotonic()
                if number % FOLLOWER_EVERY == FOLLOWER_EVERY - 1:
                    _kill_follower(daemon, rng.choice(("index", "tree")))
                    before = time.monotonic()
                else:
                    daemon.kill()
                    daemon.start()
                on_round(time.monotonic() - before)
            clients.join()
        verdict = judge(clients.histories, daemon.endpoint, daemon.base)
        assert daemon.stop() == 0
        return verdict
    finally:
        daemon.make_sure_it_ended()


def _kill_follower(daemon: RunningDaemon, kind: str) -> None:
    """It may be down already, and waits to be started again."""
    if (pid := daemon.followers().get(kind)) is not None:
        os.kill(pid, signal.SIGKILL)


def await_progress(clients: Load) -> None:
    """Something must be going on when the kill comes."""
    before = clients.recorded()
    eventually(lambda: clients.recorded() > before + 2000, "the load goes on", 60)


def judged_campaign(
    rounds: int,
    folder: Path,
    progress: Progress,
    rounds_a_base: int,
    part: Callable[[Path, int, Callable[[float], None]], Verdict],
) -> Figures:
    """Many rounds, on a new base every so often: each is judged, and what is found raises."""
    total: Figures = {"readySecondsMax": 0.0}
    done = 0

    def note(ready_seconds: float) -> None:
        nonlocal done
        done += 1
        total["readySecondsMax"] = round(max(total["readySecondsMax"], ready_seconds), 2)
        progress(done)

    while done < rounds and not progress.time_is_up:
        place = folder / f"from-{done}"
        place.mkdir()
        verdict = part(place, min(rounds_a_base, rounds - done), note)
        add(total, dict(verdict.counts()))
        progress.tell(total)
        assert not verdict.kinds, f"in {place}: {verdict}"
        shutil.rmtree(place)
    return total


def campaign(rounds: int, seed: int, folder: Path, progress: Progress) -> Figures:
    """A lane of the soak."""
    rng = random.Random(seed)
    return judged_campaign(
        rounds,
        folder,
        progress,
        ROUNDS_A_BASE,
        lambda place, share, note: kill_rounds(
            place, share, rng, on_round=note, over=lambda: progress.time_is_up
        ),
    )
