"""SIGKILL of the daemon, or of one of its workers, at random moments under load; the judge decides."""

import os
import signal
from pathlib import Path

from tests.crash.judge import Verdict
from tests.crash.rounds import SETTINGS, Rounds, campaign_of, ready_again
from tests.helpers.daemon import RunningDaemon

FOLLOWER_EVERY = 5


def kill_rounds(folder: Path, rounds: Rounds) -> Verdict:
    """Kill a daemon on one base again and again, then judge. Every few rounds it is a worker instead."""
    daemon = RunningDaemon(folder / "base", *SETTINGS)

    def kill(number: int) -> float:
        if number % FOLLOWER_EVERY == FOLLOWER_EVERY - 1:
            _kill_worker(daemon, rounds.rng.choice(("index", "tree", "keeper")))
            return 0
        daemon.kill()
        return ready_again(daemon)

    return rounds.run(daemon, folder, kill, look=daemon.base)


def _kill_worker(daemon: RunningDaemon, kind: str) -> None:
    """It may be down already, and waits to be started again; the keeper may have nothing to do."""
    if (pid := daemon.workers().get(kind)) is not None:
        os.kill(pid, signal.SIGKILL)


campaign = campaign_of(kill_rounds, rounds_a_base=50)
