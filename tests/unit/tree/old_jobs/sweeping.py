"""Jobs that end and grow old, and the tree's process that sweeps them."""

from functools import partial

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.datadir.layout import DataDir
from perstack_stored.index.retention import JournalTimes
from perstack_stored.model.kinds import Kind
from perstack_stored.offline.check.check import check
from perstack_stored.offline.findings import Report
from perstack_stored.projection.tree_projection import TreeProjection
from perstack_stored.tree import left_out
from perstack_stored.tree.sweep import Sweep, SweepOptions
from tests.helpers.datadir import Base, checkpoint, event, job, setting

DAY_MS = 86_400_000
START_MS = 1_800_000_000_000
FILES = FileSystem()


class Clock:
    """The time of the journal and of the sweep, by hand."""

    def __init__(self) -> None:
        self.ms = START_MS
        self.seconds = 0.0
        self.counted_ms: int | None = None  # the time by which ages are counted, where it is another

    def aged_ms(self, _now_ms: int) -> int:
        return self.ms if self.counted_ms is None else self.counted_ms

    def now_ms(self) -> int:
        return self.ms

    @property
    def latest_ms(self) -> int:
        return self.ms

    def time_ns(self) -> int:
        return self.ms * 1_000_000

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        raise AssertionError("the tree's process must not sleep")


class Running:
    """The tree's process, without its channel."""

    def __init__(self, base: Base, files: FileSystem | None = None, *types: str, days: int = 10) -> None:
        files = files or FILES
        left_out.take_setting(files, base.stored_dir, base.journal.store, types)
        self.base = base
        self.tree = base.open_tree(files)
        datadir = DataDir(str(base.path), files, base.folders)
        times = JournalTimes(base.database, base.reader)
        self.stopped_helper = 0
        aged = partial(base.journal.clock.aged_ms, 0)
        options = SweepOptions(days, 60)
        self.sweep = Sweep(datadir, self.tree, options, times.position_at, aged, self.stop_helper)
        self.projection = TreeProjection(self.tree, sweep=self.sweep)

    def stop_helper(self) -> None:
        self.stopped_helper += 1

    def grow(self) -> None:
        """Take up what is new, as after a start."""
        mark = self.base.index.place
        place = self.projection.start(self.base.reader, mark)
        entries = list(self.base.reader.entries(place, mark))
        for entry in entries:
            self.projection.apply([entry])

    def rest(self, clock: Clock, steps: int = 5) -> None:
        """Be idle for some seconds, a sweep among them."""
        self.projection.idle(1.0)
        clock.seconds += 60
        for _ in range(steps):
            self.projection.idle(1.0)
            clock.seconds += 0.5


def fill(base: Base, clock: Clock, *jobs: tuple[str, str]) -> None:
    """Jobs with a status, stored a day after each other."""
    for name, status in jobs:
        base.store(
            (Kind.RUN_SETTING, setting(jobId=name)),
            (Kind.EVENT, event(jobId=name, timestamp=1, type="a", text="x" * 300_000)),
            (Kind.EVENT, event(jobId=name, timestamp=2, type="c")),
            (Kind.CHECKPOINT, checkpoint(id="cp", jobId=name)),
            (Kind.JOB, job(id=name, status=status)),
        )
        clock.ms += DAY_MS


JOBS = (("a", "completed"), ("b", "running"), ("c", "stoppedByError"), ("d", "completed"))


def once(base: Base, clock: Clock, *types: str, days: int = 10, files: FileSystem | None = None) -> None:
    """A process that takes up all, rests, and ends."""
    running = Running(base, files, *types, days=days)
    running.grow()
    running.rest(clock)
    running.projection.close()


def jobs_in(base: Base) -> set[str]:
    return {path.split("/")[1] for path in base.files()}


def findings(base: Base) -> list[str]:
    """What `check` finds in the tree."""
    found: list[str] = []
    check(DataDir(str(base.path), FILES, base.folders), Report(lambda finding: found.append(finding.name)))
    return [name for name in found if name.startswith("tree_")]


def late_event(base: Base, name: str, number: int = 0) -> int:
    return base.store((Kind.EVENT, event(jobId=name, id=f"late{number}", timestamp=50 + number, type="c")))
