"""A campaign: histories made from seeds, crashed at their system calls, recovered, and checked.

The history of a seed goes on undisturbed: at each call a copy of everything is crashed and recovered on the
side.
"""

import shutil
import tempfile
from pathlib import Path
from random import Random
from typing import NamedTuple

from perstack_stored.datadir.layout import FileSystemFeatures
from tests.simulation.clients import Client, Ledger, Violation, sessions_of
from tests.simulation.disk import Disk, File, Folder
from tests.simulation.expected import Projection, Stored
from tests.simulation.kernel import Tear
from tests.simulation.patches import random_of, simulated
from tests.simulation.state import Besides, CrashedError, State
from tests.simulation.tasks import BrokenError
from tests.simulation.workload import KINDS, Workload
from tests.simulation.world import World

READERS_EVERY = 3
"""One history in three has readers."""
OLD_JOBS_EVERY = 4
"""One history in four has jobs that end and leave the tree."""
RETIRES_EVERY = 8
"""One history in eight has retention and `tree --write` as well."""
READS_OF_A_LIFE = 20
READS_OF_A_RECOVERY = 2
_SHARED_MEMORY = Path("/dev/shm")


class Plan(NamedTuple):
    """How thoroughly a seed is tried.

    `sample` is the share of calls at which the history is crashed, `nested` the same for calls of a recovery;
    `only` is the one place to crash at, for a replay.
    """

    requests: int = 24
    sample: float = 1.0
    nested: float = 0.002
    fault_odds: float = 0.003
    only: str = ""


class Counts:
    """What was tried."""

    def __init__(self) -> None:
        self.seeds = self.points = self.nested = self.recoveries = self.looks = self.faults = 0
        self.calls = self.acknowledged = self.answers = self.packed = self.recycled = self.erased = 0
        self.left_out = self.reads = self.reads_behind = self.jobs_left = 0
        self.retired = self.written_back = 0

    def add(self, other: "Counts") -> None:
        for name, number in vars(other).items():
            setattr(self, name, getattr(self, name) + number)

    def __str__(self) -> str:
        return (
            f"{self.seeds} histories of {self.calls} system calls, crashed at {self.points} of them and at"
            f" {self.nested} of those of their recoveries; {self.recoveries} recoveries,"
            f" {self.acknowledged} acknowledged stores, {self.looks} looks at files, {self.packed} packed"
            f" segments, {self.recycled} files used again, {self.erased} erased records,"
            f" {self.left_out} files left out, {self.jobs_left} jobs that have left the tree,"
            f" {self.written_back} that were written back, {self.retired} sweeps of retention that delete,"
            f" {self.reads} answers to readers and {self.reads_behind} reads"
            f" while the index did not know of a deletion,"
            f" {self.faults} injected faults"
        )


class FoundError(AssertionError):
    """A promise was broken; says how to see it again."""

    def __init__(self, seed: int, plan: Plan, where: str, reason: BaseException) -> None:
        replay = f"python -m tests.simulation replay {seed}" + (f" --at {where}" if where else "")
        for name in ("requests", "nested", "fault_odds"):
            if getattr(plan, name) != getattr(Plan(), name):
                replay += f" --{name.replace('_', '-')} {getattr(plan, name)}"
        super().__init__(
            f"seed {seed}, crash at {where or 'none'}: {type(reason).__name__}: {reason}\n"
            f"to see it again: {replay}"
        )


class Campaign:
    """One seed."""

    def __init__(self, seed: int, plan: Plan) -> None:
        self.seed = seed
        self.plan = plan
        self.counts = Counts()
        self._retires = seed % RETIRES_EVERY == RETIRES_EVERY - 1
        self._ages_jobs = seed % OLD_JOBS_EVERY == 1 or self._retires
        self._worlds = 0
        self._where = ""
        shared = _SHARED_MEMORY if _SHARED_MEMORY.is_dir() else None
        self._folder = tempfile.mkdtemp(prefix="sim-", dir=shared)

    def run(self) -> Counts:
        """Live, crash, check.

        Raises:
            FoundError: a promise was broken.
        """
        try:
            with simulated():
                self._run()
        except BrokenError as error:
            cause = error.__cause__ or error
            raise FoundError(self.seed, self.plan, self._where, cause) from cause
        except Exception as error:
            raise FoundError(self.seed, self.plan, self._where, error) from error
        finally:
            shutil.rmtree(self._folder)
        self.counts.seeds = 1
        return self.counts

    # --- the history -------------------------------------------------------------------------------

    def _run(self) -> None:
        random = random_of(self.seed, "history")
        ends_jobs = 5 if self._retires else 2 if self._ages_jobs else 0
        workload = Workload(random_of(self.seed, "workload"), ends_jobs=ends_jobs)
        state = self._begin(random)
        # An import leaves out, by name, what it can't read: then the tree is not what the journal says.
        faulty = random.random() < 0.4 and not state.ledger.imported
        lives = random.choice([1, 2, 3]) + 2 * faulty
        for life in range(lives):
            self._where = ""
            state = self._life(
                state, random_of(self.seed, "life", life), workload, life, lives, faulty=faulty
            )
        self._where = ""
        state = self._recover(state, random_of(self.seed, "end"), "end", depth=9)
        self.counts.acknowledged += len(state.ledger.acknowledged)

    def _begin(self, random: Random) -> State:
        keys = sessions_of(self.seed)
        count = random.choice([1, 2, 3, 4])
        clients = [Client(name, next(keys)) for name in range(count)]
        if random.random() < 0.5:
            clients.append(Client(count, b""))
        state = State(Disk(), [None], clients, Ledger())
        state.disk.ways = _ways(self.seed)
        if random.random() < 0.25:
            _put_tree(state, Workload(random_of(self.seed, "tree")))
        return state

    def _life(
        self, state: State, random: Random, workload: Workload, life: int, lives: int, *, faulty: bool
    ) -> State:
        with self._world(state, random, workload) as world:
            kernel = world.kernel
            kernel.switch_odds = random.choice([0.0, 0.1, 0.5])
            kernel.fault_odds = self.plan.fault_odds if faulty else 0.0
            kernel.before = lambda _name, tear: self._crash_here(world, f"{life}.{kernel.calls}", tear, 0)
            try:
                world.boot()
                world.to_make = -(-self.plan.requests // lives)
                steps = world.to_make * 8
                world.live(steps)
                if random.random() < 0.5:
                    world.settle()
                if random.random() < 0.6:
                    world.stop()
            except CrashedError:
                pass
            self._count(world)
            self.counts.calls += kernel.calls
            self.counts.faults += len(kernel.faults)
            left = world.state
            return left.after_kill() if random.random() < 0.5 else left.after_power_cut(random)

    # --- crashes -----------------------------------------------------------------------------------

    def _crash_here(self, world: World, where: str, tear: Tear | None, depth: int) -> None:
        """Crash a copy of the world, and see what its recovery makes of it."""
        random = random_of(self.seed, where)
        chosen = random.random() < (self.plan.nested if depth else self.plan.sample)
        if only := self.plan.only:
            chosen = where == only or only.startswith(f"{where}.")
        if not chosen:
            return
        state = world.state
        disk = state.disk.copy()
        if tear is not None and random.random() < 0.7:
            tear(disk, random)
        torn = State(disk, state.index_states, state.clients, state.ledger)
        state = torn.after_kill() if random.random() < 0.3 else torn.after_power_cut(random)
        if depth:
            self.counts.nested += 1
        else:
            self.counts.points += 1
        before, self._where = self._where, where
        faults, kernel_calls = world.kernel.faults, world.kernel.calls
        try:
            state = self._recover(state, random, where, depth)
            self._recover(self._crashed_again(state, random), random, f"{where}.again", depth=9)
        except Exception as error:
            raise BrokenError from error
        world.kernel.faults, world.kernel.calls = faults, kernel_calls
        self._where = before

    def _crashed_again(self, state: State, random: Random) -> State:
        """What was acknowledged after a recovery must outlive the next crash: the worst one, mostly."""
        how = random.random()
        if how < 0.6:
            clients = [client.copy() for client in state.clients]
            return State(
                state.disk.after_worst_power_cut(), state.index_states[:1], clients, state.ledger.copy()
            )
        return state.after_kill() if how < 0.7 else state.after_power_cut(random)

    def _recover(self, state: State, random: Random, where: str, depth: int) -> State:
        """Recover, let the clients have their answers, and check all promises."""
        with self._world(state, random, None) as world:
            kernel = world.kernel
            if depth < 2:
                kernel.before = lambda _name, tear: self._crash_here(
                    world, f"{where}.{kernel.calls}", tear, depth + 1
                )
            try:
                world.boot()
                world.settle()
            except CrashedError:
                # A write-back had failed before the crash, and the first sync reports it.
                state = world.state.after_kill()
            else:
                kernel.before = lambda _name, _tear: None
                world.check_end()
                self._count(world)
                self.counts.recoveries += 1
                if random.random() < 0.3:
                    world.stop()
                return world.state
        return self._recover(state, random, f"{where}.anew", depth=9)

    def _count(self, world: World) -> None:
        self.counts.looks += world.looks
        self.counts.answers += world.answers
        self.counts.packed += world.packed
        self.counts.erased += world.erased
        self.counts.left_out += world.left_out
        self.counts.jobs_left += world.jobs_left
        self.counts.retired += world.retired
        self.counts.written_back += world.written_back
        self.counts.recycled += world.kernel.granted
        if world.readers is not None:
            self.counts.reads += world.readers.answers
            self.counts.reads_behind += world.readers.lagging

    def _world(self, state: State, random: Random, workload: Workload | None) -> World:
        self._worlds += 1
        reads = 0
        if self.seed % READERS_EVERY == READERS_EVERY - 1:
            reads = READS_OF_A_LIFE if workload else READS_OF_A_RECOVERY * (self._worlds % 2)
        besides = Besides(reads, self._ages_jobs, self._retires)
        return World(state, random, f"{self._folder}/{self._worlds}", workload, besides)


def _ways(seed: int) -> FileSystemFeatures:
    """Most file systems have all that the tree can use; some lack one thing or both."""
    if seed % 4:
        return FileSystemFeatures()
    return FileSystemFeatures(unnamed=bool(seed % 8), exchange=False)


def _put_tree(state: State, workload: Workload) -> None:
    """A tree that was there before the daemon; all of it is on disk."""
    projection = Projection()
    for position in range(1, 9):
        value = workload.value()
        projection.extend([Stored(position, b"", 0, KINDS[value.op], 1, 0, value.payload)])
    for path, content in projection.files.items():
        *folders, name = path.split("/")
        folder = state.disk.folder(*folders)
        assert isinstance(folder, Folder)
        file = File(0o100640)
        file.write(content, 0)
        file.begin_sync().end()
        folder.names[name] = folder.disk[name] = file
        state.ledger.imported.add(content)


def run(seed: int, plan: Plan) -> Counts:
    """Try one seed.

    Raises:
        FoundError: a promise was broken.
    """
    return Campaign(seed, plan).run()


__all__ = ["Counts", "FoundError", "Plan", "Violation", "run"]
