"""The rounds of a campaign on real processes: a load that goes on, and blows to the daemon amid it."""

import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from perstack_storage import Client
from tests.crash.judge import Verdict, judge
from tests.crash.load import ALL_KINDS, Load, load
from tests.crash.progress import Figures, Progress, add
from tests.helpers.daemon import START_SECONDS, RunningDaemon, eventually
from tests.offline.bases import Checked

# Small segments: a campaign passes from one to the next many times.
SETTINGS = (
    "--segment-bytes",
    str(1 << 20),
    "--first-segment-bytes",
    str(256 << 10),
    "--erase-within-seconds",
    "1",
)


class Rounds(NamedTuple):
    """How many blows there should be; `over` ends them earlier, `on_round` gets what each blow returned."""

    blows: int
    rng: random.Random
    kinds: tuple[str, ...] = ALL_KINDS
    on_round: Callable[[float], None] = lambda _served_seconds: None
    over: Callable[[], bool] = lambda: False

    def run(
        self, daemon: RunningDaemon, folder: Path, blow: Callable[[int], float], *, look: Path | None = None
    ) -> Verdict:
        """Start the daemon, deal the blows, then judge. The clients go on through all of it.

        Args:
            daemon: not started yet.
            folder: for what the clients record.
            blow: deals one, by its number; returns how long the daemon took to answer again.
            look: whose tree a client opens meanwhile.
        """
        daemon.start()
        try:
            with load(
                daemon.endpoint, folder / "history", self.rng.randrange(10**9), self.kinds, look=look
            ) as clients:
                for number in range(self.blows):
                    if self.over():
                        break
                    await_progress(clients)
                    time.sleep(self.rng.uniform(0, 0.4))
                    self.on_round(blow(number))
                clients.join()
            verdict = judge(clients.histories, daemon.endpoint, daemon.base)
            verdict.erased = await_erased(daemon)
            assert daemon.stop() == 0
            checked = Checked(daemon.base)
            assert not checked.findings, checked.findings[:3]
            return verdict
        finally:
            daemon.make_sure_it_ended()


def await_erased(daemon: RunningDaemon) -> int:
    """Wait until all that was deleted is erased; returns the count of its records since the start."""
    with Client(daemon.endpoint) as client:
        eventually(lambda: client.stats()["deletions"]["pending"] == 0, "all is erased", 240)
        return int(client.stats()["deletions"]["erasedRecords"])


def served_again(daemon: RunningDaemon) -> float:
    """Start it; how long it took until it answered, in seconds.

    The next blow may come before the tree is whole. To wait for that would let the load grow without bound.
    """
    before = time.monotonic()
    daemon.start(wait=False)
    with Client(daemon.endpoint, timeout_s=START_SECONDS) as client:
        client.ping()
    return time.monotonic() - before


def await_progress(clients: Load) -> None:
    """Something must be going on when the blow comes."""
    before = clients.recorded()
    eventually(lambda: clients.recorded() > before + 2000, "the load goes on")


def campaign_of(
    part: Callable[[Path, Rounds], Verdict], rounds_a_base: int
) -> Callable[[int, int, Path, Progress], Figures]:
    """A lane of the soak: many rounds, on a new base every so often; each is judged, and a finding raises."""

    def campaign(rounds: int, seed: int, folder: Path, progress: Progress) -> Figures:
        rng = random.Random(seed)
        total: Figures = {"servedSecondsMax": 0.0}
        done = 0

        def note(served_seconds: float) -> None:
            nonlocal done
            done += 1
            total["servedSecondsMax"] = round(max(total["servedSecondsMax"], served_seconds), 2)
            progress(done)

        while done < rounds and not progress.time_is_up:
            place = folder / f"from-{done}"
            place.mkdir()
            share = min(rounds_a_base, rounds - done)
            verdict = part(place, Rounds(share, rng, on_round=note, over=lambda: progress.time_is_up))
            add(total, dict(verdict.counts()))
            progress.tell(total)
            assert not verdict.kinds, f"in {place}: {verdict}"
            shutil.rmtree(place)
        return total

    return campaign
