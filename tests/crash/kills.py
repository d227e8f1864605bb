"""SIGKILL of the daemon, or of one of its followers, at random moments under load; the judge decides."""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.crash.judge import Verdict, judge
from tests.crash.load import ALL_KINDS, Load, load
from tests.support import RunningDaemon, eventually

FOLLOWER_EVERY = 5
# Small segments: a campaign passes from one to the next many times.
SETTINGS = ("--segment-bytes", str(1 << 20), "--first-segment-bytes", str(256 << 10))


def kill_rounds(
    folder: Path,
    rounds: int,
    rng: random.Random,
    *,
    kinds: tuple[str, ...] = ALL_KINDS,
    on_round: Callable[[int], None] = lambda _round: None,
) -> Verdict:
    """Kill a daemon on one base again and again, then judge. Every few rounds it is a follower instead."""
    daemon = RunningDaemon(folder / "base", *SETTINGS).start()
    try:
        with load(
            daemon.endpoint, folder / "history", rng.randrange(10**9), kinds, look=daemon.base
        ) as clients:
            for number in range(rounds):
                await_progress(clients)
                time.sleep(rng.uniform(0, 0.3))
                if number % FOLLOWER_EVERY == FOLLOWER_EVERY - 1:
                    _kill_follower(daemon, rng.choice(("index", "tree")))
                else:
                    daemon.kill()
                    daemon.start()
                on_round(number)
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
