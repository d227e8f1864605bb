"""What goes wrong in a campaign: kills, pauses, cuts, stops, steps of clocks, at random."""

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from tests.helpers.daemon import RunningDaemon
from tests.helpers.shifted import Clock

from .cluster import Cluster
from .flips import Flips
from .network import Network

HOUR_MS = 3_600_000
_SHIFTS_MS = (0, 30_000, -30_000, 2 * HOUR_MS, -2 * HOUR_MS, 87_600 * HOUR_MS, -87_600 * HOUR_MS)
_STARTS = 3  # of a daemon that finds no server for a minute
DAEMON_FAULTS = ("daemon_killed", "clock_stepped", "daemon_paused")
"""Those of daemons; they come while those of servers last."""


class Faults:
    """Faults by name. Those of DAEMON_FAULTS may run beside one of the others, in another thread."""

    def __init__(
        self,
        cluster: Cluster,
        stream: str,
        daemons: Sequence[RunningDaemon],
        clocks: Sequence[Clock],
        seed: int,
    ) -> None:
        self.network: Network | None = None
        self.flips: Flips | None = None
        self._cluster = cluster
        self._stream = stream
        self._daemons = daemons
        self._clocks = clocks
        self._random = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.seconds: dict[str, float] = {}

    def happen(self, name: str) -> None:
        """Let one of these happen; it counts when it is over."""
        act: Callable[[], None] = getattr(self, name)
        begun = time.monotonic()
        act()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - begun
        self.counts[name] += 1

    def daemon_killed(self) -> None:
        """A daemon dies, and comes back."""
        daemon = self._random.choice(self._daemons)
        daemon.assert_alive()
        daemon.kill()
        time.sleep(self._random.uniform(0, 0.5))
        start(daemon)

    def daemon_paused(self) -> None:
        """A daemon stands still."""
        daemon = self._random.choice(self._daemons)
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGSTOP)
        time.sleep(self._random.uniform(0.5, 2.0))
        daemon.process.send_signal(signal.SIGCONT)

    def clock_stepped(self) -> None:
        """The clock of a daemon's machine is set, up to ten years forth or back."""
        self._random.choice(self._clocks).set(self._random.choice(_SHIFTS_MS))

    def leader_killed(self) -> None:
        """The stream's leader dies, and comes back."""
        node = self._cluster.leader(self._stream)
        node.kill()
        time.sleep(self._random.uniform(0.2, 1.0))
        node.start()
        self._cluster.await_healthy()

    def leader_stopped(self) -> None:
        """The stream's leader is stopped in order, and comes back."""
        node = self._cluster.leader(self._stream)
        node.terminate()
        node.start()
        self._cluster.await_healthy()

    def all_killed(self) -> None:
        """All servers die at once."""
        for node in self._cluster.nodes:
            node.kill()
        for node in self._cluster.nodes:
            node.start()
        self._cluster.await_healthy()

    def cut_off(self, seconds: float = 10.0) -> None:
        """The network loses a machine with its server, which leads half the time, and its daemon."""
        assert self.network is not None
        node = self._cluster.leader(self._stream)
        if self._random.random() < 0.5:
            node = self._random.choice([other for other in self._cluster.nodes if other is not node])
        number = self._cluster.nodes.index(node)
        self.network.cut(number)
        time.sleep(seconds)
        self.network.heal(number)
        self._cluster.await_healthy()

    def leader_paused(self, seconds: float = 15.0) -> None:
        """The stream's leader stands still."""
        node = self._cluster.leader(self._stream)
        node.signal(signal.SIGSTOP)
        time.sleep(seconds)
        node.signal(signal.SIGCONT)
        self._cluster.await_healthy()

    def bit_flipped(self) -> None:
        """A bit flips on the disk of a server that is down; a daemon names it, and the server is mended."""
        assert self.flips is not None
        self.flips.one()


def start(daemon: RunningDaemon) -> None:
    """Start a daemon, again if it found no server of the stream for a minute, as a service manager does."""
    for attempt in range(_STARTS):
        before = len(daemon.events("failed"))
        try:
            daemon.start()
        except AssertionError:
            ends = daemon.events("failed")[before:]
            if attempt + 1 == _STARTS or [end["error"] for end in ends] != ["StartFailedError"]:
                raise
        else:
            return


class Bringer(threading.Thread):
    """Lets faults happen, spread over a time; late ones follow each other closely."""

    def __init__(
        self, faults: Faults, names: Iterator[str], pause: float, until: float, calm: float = 0.1
    ) -> None:
        """Take what is to happen.

        Args:
            faults: what can happen.
            names: what happens, in this order.
            pause: seconds from one beginning to the next.
            until: nothing begins after this time, of `time.monotonic`.
            calm: seconds from an end to the next beginning, at least.
        """
        super().__init__(daemon=True)
        self._calm = calm
        self._faults = faults
        self._names = names
        self._pause = pause
        self._until = until
        self.stopping = threading.Event()
        self.fault: BaseException | None = None

    def run(self) -> None:
        """Let them happen until there is no more, or the time is over."""
        due = time.monotonic()
        try:
            for name in self._names:
                due += self._pause
                at = min(max(due, time.monotonic() + self._calm), self._until)
                if self.stopping.wait(max(0.0, at - time.monotonic())):
                    return
                if time.monotonic() >= self._until:
                    return
                self._faults.happen(name)
        except BaseException as error:  # noqa: BLE001 - the campaign shows it
            self.fault = error


@contextmanager
def bringing(bringers: Sequence[Bringer]) -> Iterator[None]:
    """They run; at the end none does."""
    for bringer in bringers:
        bringer.start()
    try:
        yield
    finally:
        for bringer in bringers:
            bringer.stopping.set()
        for bringer in bringers:
            bringer.join()
