"""SIGKILL of the daemon, or of one of its workers, at random moments under load; the judge decides."""

import os
import signal
import time
from functools import partial
from pathlib import Path

from tests.crash.judge import Verdict
from tests.crash.rounds import SETTINGS, Rounds, campaign_of, served_again
from tests.helpers.daemon import RunningDaemon

FOLLOWER_EVERY = 5
KEEPER_EVERY = 4
_KEEPER_STARTS_SECONDS = 15.0


def kill_rounds(folder: Path, rounds: Rounds, *, awaits_keeper: bool = False) -> Verdict:
    """Kill a daemon on one base again and again, then judge. Every few rounds it is a worker instead.

    With `awaits_keeper` some kills wait until the keeper runs; half of these are its own.
    """
    daemon = RunningDaemon(folder / "base", *SETTINGS)

    def kill(number: int) -> float:
        if awaits_keeper and number % KEEPER_EVERY == 0 and _await_keeper(daemon):
            time.sleep(rounds.rng.uniform(0, 0.5))
            if rounds.rng.random() < 0.5:
                _kill_worker(daemon, "keeper")
                return 0
        if number % FOLLOWER_EVERY == FOLLOWER_EVERY - 1:
            _kill_worker(daemon, rounds.rng.choice(("index", "tree", "keeper")))
            return 0
        daemon.kill()
        return served_again(daemon)

    return rounds.run(daemon, folder, kill, look=daemon.base)


def _kill_worker(daemon: RunningDaemon, kind: str) -> None:
    """It may be down already, and waits to be started again; the keeper may have nothing to do."""
    if (pid := daemon.workers().get(kind)) is not None:
        os.kill(pid, signal.SIGKILL)


def _await_keeper(daemon: RunningDaemon) -> bool:
    """Wait for the keeper, which starts some seconds after the daemon; False if it has nothing to do."""
    until = time.monotonic() + _KEEPER_STARTS_SECONDS
    while time.monotonic() < until:
        if "keeper" in daemon.workers():
            return True
        time.sleep(0.05)
    return False


campaign = campaign_of(kill_rounds, rounds_a_base=50)
keeper_campaign = campaign_of(partial(kill_rounds, awaits_keeper=True), rounds_a_base=50)
