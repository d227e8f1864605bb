"""Power cuts at random moments under load: the disk is gone from one moment to the next, then comes back.

The daemon is stopped a moment before, as no program runs on without power. Were it to run on, ext4 could lie
to it: a fdatasync that is under way while the file system is shut down may return success, although what it
wrote into space that was only reserved is not part of the file after the next mount.
"""

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.crash.image import image
from tests.crash.judge import Verdict, judge
from tests.crash.kills import SETTINGS, await_progress, judged_campaign
from tests.crash.load import ALL_KINDS, load
from tests.crash.progress import Figures, Progress
from tests.support import RunningDaemon, eventually

IMAGE_BYTES = 1 << 30
ROUNDS_A_BASE = 20


def power_cuts(
    folder: Path,
    rounds: int,
    rng: random.Random,
    *,
    kinds: tuple[str, ...] = ALL_KINDS,
    on_round: Callable[[float], None] = lambda _ready_seconds: None,
    over: Callable[[], bool] = lambda: False,
) -> Verdict:
    """Cut the power of one base again and again, then judge. The clients go on through all of it."""
    with image(folder, IMAGE_BYTES) as disk:
        # The log lies elsewhere: it tells what happened, however the disk fares.
        daemon = RunningDaemon(disk.path / "base", *SETTINGS, log=folder / "daemon.log").start()
        try:
            with load(daemon.endpoint, folder / "history", rng.randrange(10**9), kinds) as clients:
                for _ in range(rounds):
                    if over():
                        break
                    await_progress(clients)
                    time.sleep(rng.uniform(0, 0.4))
                    pids = halt(daemon)
                    disk.cut_power()
                    daemon.kill()
                    for pid in pids:
                        kill(pid)  # a follower that has just been started does not yet die with its daemon
                    disk.unmount()
                    disk.check()
                    disk.mount()
                    before = time.monotonic()
                    daemon.start()
                    on_round(time.monotonic() - before)
                clients.join()
            verdict = judge(clients.histories, daemon.endpoint, daemon.base)
            assert daemon.stop() == 0
            return verdict
        finally:
            daemon.make_sure_it_ended()


def halt(daemon: RunningDaemon) -> list[int]:
    """Stop a daemon and its followers: when this returns, none of their threads runs a step further.

    Returns:
        process ids of the followers.
    """
    os.kill(daemon.pid, signal.SIGSTOP)
    followers = list(daemon.followers().values())
    for pid in followers:
        kill(pid, signal.SIGSTOP)
    eventually(lambda: all(map(_stands_still, [daemon.pid, *followers])), "it stands still", 60)
    return followers


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to a follower, which may have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _stands_still(pid: int) -> bool:
    """Whether all threads of a process are stopped, or will be before they leave the kernel (D)."""
    for thread in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if (thread / "stat").read_text().rpartition(") ")[2][0] not in "TDZX":
                return False
    return True


def campaign(rounds: int, seed: int, folder: Path, progress: Progress) -> Figures:
    """A lane of the soak."""
    rng = random.Random(seed)
    return judged_campaign(
        rounds,
        folder,
        progress,
        ROUNDS_A_BASE,
        lambda place, share, note: power_cuts(
            place, share, rng, on_round=note, over=lambda: progress.time_is_up
        ),
    )
