"""A job with very many runs leaves the tree in steps that are bounded, and all in all linear."""

from pathlib import Path

import pytest

from perstack_stored.datadir.filesystem import FileSystem, Listing
from perstack_stored.model.kinds import Kind
from perstack_stored.tree import remover, sweep
from tests.helpers.datadir import Base, event, job
from tests.unit.tree.old_jobs.sweeping import DAY_MS, Clock, Running, findings, late_event

FEW, MANY = 60, 240  # runs
AT_ONCE = 15


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "_UNLINKS_AT_ONCE", AT_ONCE)


class CountingListing(Listing):
    """Counts the names that it gives."""

    names = 0

    def some(self, most: int) -> list[str]:
        found = super().some(most)
        CountingListing.names += len(found)
        return found


class CountingFiles(FileSystem):
    """Counts folders that were opened, and names that were listed."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = self.names = 0

    def open_dir(self, name: str, *, dir_fd: int | None = None) -> int:
        self.opened += 1
        return super().open_dir(name, dir_fd=dir_fd)

    def list_dir(self, dir_fd: int) -> list[str]:
        found = super().list_dir(dir_fd)
        self.names += len(found)
        return found

    def begin_listing(self, dir_fd: int) -> Listing:
        return CountingListing(dir_fd)


def _fill(base: Base, clock: Clock, runs: int) -> None:
    base.store(*[(Kind.EVENT, event(jobId="a", runId=f"r{n}", timestamp=n, type="c")) for n in range(runs)])
    base.store((Kind.JOB, job(id="a", status="completed")))
    # So the job has no record in the last span of the journal.
    base.store(*[(Kind.EVENT, event(jobId="b", timestamp=n, type="out")) for n in range(1100)])


def _grow_old(running: Running, clock: Clock) -> None:
    """The tree is written and synced; then time passes, and a sweep is due."""
    running.grow()
    running.projection.idle(1.0)
    clock.ms += 20 * DAY_MS
    clock.seconds += 60


def _work(base: Base, clock: Clock) -> list[int]:
    """Let the job leave while others store: folders opened, names listed, opcodes of the index, steps."""
    files, opcodes, steps = CountingFiles(), 0, 0

    def count() -> None:
        nonlocal opcodes
        opcodes += 1

    running = Running(base, files, "out")
    _grow_old(running, clock)
    assert (base.path / "jobs/a/runs/r59").exists()
    base.database.set_progress_handler(count, 1)
    CountingListing.names = files.opened = files.names = 0
    while (base.path / "jobs/a").exists():
        before = files.opened
        running.sweep.step()
        assert files.opened - before < 2 * AT_ONCE + 10
        clock.seconds += 0.5
        late_event(base, "b", steps)
        steps += 1
        assert steps < 100
    base.database.set_progress_handler(None, 1)
    running.projection.close()
    return [files.opened, files.names + CountingListing.names, opcodes, steps]


def test_the_work_is_linear_in_the_runs(tmp_path: Path, base: Base, clock: Clock) -> None:
    """Not each step looks at all runs, neither in the tree nor in the index."""
    _fill(base, clock, FEW)
    few = _work(base, clock)
    other = Base(tmp_path / "other")
    other.journal.clock = clock  # type: ignore[assignment]
    _fill(other, clock, MANY)
    many = _work(other, clock)
    ratio = MANY / FEW
    assert all(more <= 1.3 * ratio * less for less, more in zip(few, many, strict=True)), (few, many)


def test_folders_without_files_are_bounded_too(
    base: Base, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs of which all events are left out have none; foreign files stay, and are looked at once."""
    monkeypatch.setattr(remover, "_FOLDERS_AT_ONCE", 10)
    base.store((Kind.EVENT, event(jobId="a", type="c")), (Kind.JOB, job(id="a", status="completed")))
    files = CountingFiles()
    running = Running(base, files)
    _grow_old(running, clock)
    for n in range(40):
        (base.path / f"jobs/a/runs/empty{n}").mkdir()
    (base.path / "jobs/a/runs/foreign").mkdir()
    (base.path / "jobs/a/runs/foreign/notes.txt").write_text("mine")
    for _ in range(6):
        before = files.opened
        running.sweep.step()
        assert files.opened - before < 30
        clock.seconds += 0.5
    assert set(base.files()) == {"jobs/a/runs/foreign/notes.txt"}
    assert [path.name for path in (base.path / "jobs/a/runs").iterdir()] == ["foreign"]
    running.projection.close()


def test_a_job_that_comes_back_between_two_steps_leaves_whole_later(base: Base, clock: Clock) -> None:
    """The second time it is begun at its first run again."""
    base.store(*[(Kind.EVENT, event(jobId="a", runId=f"r{n}", timestamp=n, type="c")) for n in range(50)])
    base.store((Kind.JOB, job(id="a", status="completed")))
    running = Running(base)
    _grow_old(running, clock)
    whole = len(base.files())
    running.sweep.step()
    clock.seconds += 0.5
    running.sweep.step()
    assert len(base.files()) == whole - AT_ONCE
    late_event(base, "a")
    base.follow()
    mark = base.index.place
    place = base.reader.seek(running.tree.position, mark)
    running.projection.apply(list(base.reader.entries(place, mark)))
    assert len(base.files()) == whole + 1
    running.sweep.step()
    assert len(base.files()) == whole + 1
    clock.ms += 20 * DAY_MS
    running.rest(clock, steps=12)
    assert base.files() == {}
    assert findings(base) == []
    running.projection.close()
