"""Retention and `tree --write` in a simulated history, by random numbers of their own.

What retention sets about is noted before it is written, so that `promises.py` can say whether it might.
"""

from random import Random
from typing import TYPE_CHECKING

from perstack_stored.config.settings import Settings
from perstack_stored.datadir.layout import STORED_NAME
from perstack_stored.model import deletions
from perstack_stored.model.deletions import Deletion
from perstack_stored.server.retention import Retention
from perstack_stored.store.group_commit import GroupCommit
from perstack_stored.tree.requests import FOLDER_NAME, Requests
from tests.simulation.clients import Retired
from tests.simulation.disk import Disk, Folder
from tests.simulation.kernel import Kernel

DAY_MS = 86_400_000
_SWEEP_SECONDS = 0.01
_RETENTION_ODDS, _ASK_ODDS = 0.5, 0.006


class SimulatedRetention(Retention):
    """The daemon's retention; a day ago is now, or some milliseconds before."""

    def __init__(self, world: "World", settings: Settings, random: Random) -> None:
        object.__setattr__(settings, "retain_days", 1)
        object.__setattr__(settings, "retain_jobs", random.choice([0, 1]))
        object.__setattr__(settings, "retain_sweep_seconds", _SWEEP_SECONDS)
        super().__init__(world.datadir, settings, self._now_for_ages)
        self._world = world
        self._jobs = settings.retain_jobs
        self._lag_ms = random.choice([0, 0, 10, 60])
        self._aged_ms = 0

    def _now_for_ages(self) -> int:
        self._aged_ms = int(Kernel.current.clock.ms) - self._lag_ms
        return self._aged_ms + DAY_MS

    def _delete(self, group_commit: GroupCommit) -> None:
        for one in self._verified:
            payload = deletions.encode(Deletion(one.job, why=one.why))
            self._world.ledger.retired.add(
                Retired(bytes(payload), self._verified_to, self._aged_ms, self._jobs)
            )
        super()._delete(group_commit)
        self._world.retired += 1


class Retiring:
    """What happens in a history of this kind besides all else."""

    def __init__(self, world: "World", settings: Settings, random: Random) -> None:
        self._world = world
        self._random = random
        self._retention = SimulatedRetention(world, settings, random)

    def step(self) -> None:
        """Maybe the next step of retention, maybe a request for a job."""
        if self._random.random() < _RETENTION_ODDS:
            self.retire()
            self._run_thread()
        if self._random.random() < _ASK_ODDS:
            job = f"j{self._random.randrange(3)}"  # one of them is unknown
            Kernel.current.scheduler.spawn("tree --write", lambda: self._ask(job))

    def retire(self) -> None:
        """The next step of retention, as the loop takes it."""
        world = self._world
        if world.index.place is not None:
            tree = world.tree.place
            position = 0 if tree is None else tree.position
            self._retention.follow(Kernel.current.clock.monotonic(), world.server._group_commit, position)

    def _run_thread(self) -> None:
        """Its thread makes many calls for each choice; a life is short."""
        scheduler = Kernel.current.scheduler
        for task in [task for task in scheduler.tasks if task.name == "retention"]:
            scheduler.run(task, self._random.choice([0, 10, 100]))

    def _ask(self, job: str) -> None:
        Requests(self._world.files, self._world.folders.stored).ask(job)
        self._world.asked += 1


def requests_left(disk: Disk) -> list[str]:
    """Requests that the tree's process has not come to."""
    folder = disk.find(STORED_NAME, FOLDER_NAME)
    return [name for name in folder.names if name.endswith(".json")] if isinstance(folder, Folder) else []


if TYPE_CHECKING:
    from tests.simulation.world import World
