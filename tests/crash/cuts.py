"""Power cuts at random moments under load: the disk is gone from one moment to the next, then comes back.

The daemon is stopped a moment before, as no program runs on without power. Were it to run on, ext4 would lie
to it. Measured on Linux 6.18, three writers running on, 25 cuts for each kind of space and flag: fdatasync
returned 0 for 20 writes into reserved space and 2 at the end of a growing file that were gone after the mount
(the extent could not be marked as written any more, which nobody learns), each after the ioctl had begun;
for none into written zeros, and for none with the writers stopped first.
"""

import contextlib
import os
import signal
from pathlib import Path

from tests.crash.judge import Verdict
from tests.crash.rounds import SETTINGS, Rounds, campaign_of, served_again
from tests.helpers.daemon import RunningDaemon, eventually
from tests.helpers.image import image

IMAGE_BYTES = 1 << 30


def power_cuts(folder: Path, rounds: Rounds) -> Verdict:
    """Cut the power of one base again and again, then judge; the image stays if something is found."""
    with image(folder, IMAGE_BYTES) as disk:
        # The log lies elsewhere: it tells what happened, however the disk fares.
        daemon = RunningDaemon(disk.path / "base", *SETTINGS, log=folder / "daemon.log")

        def cut(_number: int) -> float:
            pids = halt(daemon)
            disk.cut_power()
            daemon.kill()
            for pid in pids:
                kill(pid)  # a worker that has just been started does not yet die with its daemon
            disk.unmount()
            disk.check()
            disk.mount()
            return served_again(daemon)

        verdict = rounds.run(daemon, folder, cut)
        disk.is_evidence = bool(verdict.kinds)
        return verdict


def halt(daemon: RunningDaemon) -> list[int]:
    """Stop a daemon and its workers: when this returns, none of their threads runs a step further.

    Returns:
        process ids of the workers.
    """
    os.kill(daemon.pid, signal.SIGSTOP)
    workers = list(daemon.workers().values())
    for pid in workers:
        kill(pid, signal.SIGSTOP)
    eventually(lambda: all(map(_stands_still, [daemon.pid, *workers])), "it stands still")
    return workers


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to a worker, which may have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _stands_still(pid: int) -> bool:
    """Whether all threads of a process are stopped, or will be before they leave the kernel (D)."""
    for thread in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if (thread / "stat").read_text().rpartition(") ")[2][0] not in "TDZX":
                return False
    return True


campaign = campaign_of(power_cuts, rounds_a_base=20)
