"""Jobs that have ended leave the tree after some days: whole, slowly, and they come back whole."""

import os
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.datadir.layout import DataDir
from perstack_stored.index.retention import JournalTimes
from perstack_stored.model.kinds import Kind
from perstack_stored.offline.check.check import check
from perstack_stored.offline.findings import Report
from perstack_stored.projection.tree_projection import TreeProjection
from perstack_stored.tree import left_out, sweep
from perstack_stored.tree.cursor import CURSOR_NAME
from perstack_stored.tree.requests import FOLDER_NAME, Requests
from perstack_stored.tree.sweep import Sweep, SweepOptions
from tests.helpers.datadir import Base, Died, SimulatedDisk, checkpoint, event, job, setting

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


@pytest.fixture
def base(tmp_path: Path) -> Base:
    return Base(tmp_path / "base")


@pytest.fixture(autouse=True)
def clock(base: Base, monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(base.journal, "clock", clock)
    monkeypatch.setattr(sweep, "time", clock)
    return clock


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


def test_nothing_leaves_while_the_clock_is_doubted(base: Base, clock: Clock) -> None:
    """Also where the whole tree is written again; the server says what time counts, or none yet."""
    fill(base, clock, *JOBS)
    begun = clock.ms
    clock.ms += 3650 * DAY_MS
    for clock.counted_ms in (begun, 0):
        once(base, clock)
        assert jobs_in(base) == {"a", "b", "c", "d"}
        (base.path / ".stored" / CURSOR_NAME).unlink()
    clock.counted_ms = None
    once(base, clock)
    assert jobs_in(base) == {"b"}


def late_event(base: Base, name: str, number: int = 0) -> int:
    return base.store((Kind.EVENT, event(jobId=name, id=f"late{number}", timestamp=50 + number, type="c")))


def test_jobs_that_ended_leave_by_the_age_of_their_last_record(base: Base, clock: Clock) -> None:
    """One that may run stays, however old; nothing leaves without the setting; `check` agrees always."""
    fill(base, clock, *JOBS)
    once(base, clock, days=0)
    whole = base.files()
    assert jobs_in(base) == {"a", "b", "c", "d"}
    once(base, clock, days=3)
    assert jobs_in(base) == {"b", "c", "d"}
    assert findings(base) == []
    once(base, clock, days=1)
    assert jobs_in(base) == {"b"}
    assert findings(base) == []
    assert base.files() == {path: data for path, data in whole.items() if path.startswith("jobs/b/")}
    assert not (base.path / "jobs/a").exists()


def test_a_job_with_a_new_record_comes_back_whole(base: Base, clock: Clock) -> None:
    """Also by a process that begins later, and one that is in the middle of its sweep."""
    fill(base, clock, *JOBS)
    once(base, clock, days=0)
    whole = base.files()
    once(base, clock, days=1)
    late_event(base, "a")
    assert findings(base) == ["tree_behind"]
    once(base, clock, days=30)
    assert jobs_in(base) == {"a", "b"}
    assert findings(base) == []
    for path in whole:
        if path.startswith(("jobs/a/", "jobs/b/")):
            assert base.files()[path] == whole[path]
    clock.ms += 40 * DAY_MS
    once(base, clock, days=30)
    assert jobs_in(base) == {"b"}


def test_a_record_of_a_job_that_is_leaving_keeps_it(base: Base, clock: Clock) -> None:
    """Half of its files are gone already: they are written again."""
    base.store(*[(Kind.EVENT, event(jobId="a", timestamp=n, type="c")) for n in range(300)])
    fill(base, clock, ("a", "completed"), ("b", "running"))
    once(base, clock, days=0)
    whole = base.files()
    clock.ms += 20 * DAY_MS
    running = Running(base)
    running.grow()
    running.rest(clock, steps=1)
    assert 50 < len(base.files()) < len(whole) - 50
    position = late_event(base, "a")
    place = base.reader.seek(position - 1, base.index.place)
    running.projection.apply(list(base.reader.entries(place, base.index.place)))
    assert base.files().items() >= whole.items()
    running.rest(clock)
    assert base.files().items() >= whole.items()
    running.projection.close()
    assert findings(base) == []


def test_a_power_cut_while_a_job_comes_back_leaves_it_whole(base: Base, clock: Clock) -> None:
    """What was written again and not synced is written once more, however late it is by then."""
    fill(base, clock, ("a", "completed"))
    once(base, clock, days=0)
    whole = base.files()
    clock.ms += 20 * DAY_MS
    once(base, clock)
    assert base.files() == {}
    base.store((Kind.JOB, job(id="a", status="running")))
    clock.ms += 20 * DAY_MS
    base.store((Kind.EVENT, event(jobId="b", type="c")))
    running = Running(base)
    running.grow()
    clock.seconds += 100
    running.sweep.step()
    # It is not synced: the power cut takes the files, and not the record.
    for path in whole:
        (base.path / path).unlink()
    assert findings(base) == ["tree_behind"]
    once(base, clock)
    assert base.files().keys() > whole.keys()
    assert findings(base) == []


def test_a_job_may_leave_and_come_back_twice(base: Base, clock: Clock) -> None:
    """In the life of one process."""
    fill(base, clock, ("a", "completed"))
    running = Running(base)
    running.grow()
    whole = base.files()
    for number in range(2):
        running.rest(clock)
        clock.ms += 20 * DAY_MS
        running.rest(clock)
        assert base.files() == {}
        late_event(base, "a", number)
        running.grow()
        assert base.files().items() > whole.items()
    running.projection.close()


def test_an_error_while_a_job_comes_back_leaves_nothing_out(
    base: Base, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same slice is taken again, and the job is not whole before."""
    fill(base, clock, ("a", "completed"))
    once(base, clock, days=0)
    whole = base.files()
    clock.ms += 20 * DAY_MS
    once(base, clock)
    position = late_event(base, "a")
    running = Running(base)
    place = running.projection.start(base.reader, base.index.place)
    entries = list(base.reader.entries(place, base.index.place))
    give_name, given = FileSystem.give_name, []

    def full(self: FileSystem, fd: int, name: str, *, dir_fd: int) -> None:
        given.append(name)
        if len(given) == 3:
            raise OSError(28, "No space left on device")
        give_name(self, fd, name, dir_fd=dir_fd)

    monkeypatch.setattr(FileSystem, "give_name", full)
    with pytest.raises(OSError, match="No space"):
        running.projection.apply(entries)
    running.projection.apply(entries)
    assert base.files().items() > whole.items()
    assert running.tree.position == position
    running.projection.close()


def test_files_are_removed_slowly(base: Base, clock: Clock) -> None:
    """No more than 200 in a second, and 100 at a time: long rows of unlinks are slow on ext4."""
    base.store(*[(Kind.EVENT, event(jobId="a", timestamp=n, type="c")) for n in range(1000)])
    base.store((Kind.JOB, job(id="a", status="completed")))
    clock.ms += 20 * DAY_MS
    once(base, clock, days=0)
    running = Running(base)
    running.grow()
    running.rest(clock, steps=1)
    left = [len(base.files())]
    for _ in range(6):
        clock.seconds += 0.25
        running.projection.idle(1.0)
        left.append(len(base.files()))
    assert all(before - after <= 100 for before, after in pairwise(left))
    assert 200 <= left[0] - left[-1] <= 400
    running.projection.close()


def test_foreign_files_stay(base: Base, clock: Clock) -> None:
    fill(base, clock, *JOBS)
    once(base, clock, days=0)
    (base.path / "jobs/a/notes.txt").write_text("mine")
    (base.path / "jobs/z").mkdir()
    once(base, clock, days=3)
    assert {path for path in base.files() if "/a/" in path} == {"jobs/a/notes.txt"}
    assert (base.path / "jobs/z").exists()


def test_a_tree_that_is_written_again_has_no_old_jobs(base: Base, clock: Clock) -> None:
    """Neither where the cursor is lost, nor where all is: then the age is looked at before anything else."""
    fill(base, clock, *JOBS)
    once(base, clock, days=1)
    stored = base.path / ".stored"
    for lost in ((CURSOR_NAME,), (left_out.FILE_NAME,), (CURSOR_NAME, left_out.FILE_NAME)):
        for name in lost:
            (stored / name).unlink()
        running = Running(base, days=1)
        running.grow()
        assert jobs_in(base) == {"b"}
        running.projection.close()
        assert findings(base) == []


def test_it_goes_together_with_types_that_are_left_out(base: Base, clock: Clock) -> None:
    """A job that comes back has no files of events that were left out."""
    fill(base, clock, ("a", "completed"))
    once(base, clock, "a")
    names = {os.path.basename(path) for path in base.files()}
    assert names == {"job.json", "cp.json", "run-setting.json", "event-2-0-c.json"}
    clock.ms += 20 * DAY_MS
    once(base, clock, "a")
    assert base.files() == {}
    late_event(base, "a")
    once(base, clock, "a")
    assert {os.path.basename(path) for path in base.files()} == names | {"event-50-0-c.json"}
    assert findings(base) == []


def test_a_crash_at_any_call_ends_in_the_same_tree(base: Base, clock: Clock) -> None:
    """Old jobs leave, one comes back, another is deleted: killed anywhere, the next process gets there."""
    fill(base, clock, ("a", "completed"), ("b", "completed"), ("c", "completed"), ("d", "running"))
    once(base, clock, days=0)
    clock.ms += 20 * DAY_MS
    base.store((Kind.EVENT, event(jobId="d", id="x", timestamp=9, type="c")))
    before_files, before_state = base.files(), state_of(base)
    late_event(base, "b")
    base.store((Kind.DELETION, {"jobId": "c"}))
    wanted = None
    for dies_at in range(0, 10_000, 3):
        died = False
        try:
            once(base, clock, files=SimulatedDisk(dies_at=dies_at))
        except Died:
            died = True
        if dies_at % 5 == 0:
            assert set(findings(base)) <= {"tree_behind", "tree_foreign_file"}
        once(base, clock)
        wanted = wanted or base.files()
        assert base.files() == wanted
        if not died:
            break
        put_back(base, before_files, before_state)
    else:
        raise AssertionError("it never comes to an end")
    assert findings(base) == []
    assert jobs_in(base) == {"b", "d"}


def state_of(base: Base) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (base.path / ".stored").glob("tree.*")}


def put_back(base: Base, files: dict[str, bytes], state: dict[str, bytes]) -> None:
    """The tree as it was."""
    for path in (base.path / ".stored").glob("tree.*"):
        path.unlink()
    for name, data in state.items():
        (base.path / ".stored" / name).write_bytes(data)
    for name in base.files().keys() - files.keys():
        (base.path / name).unlink()
    for name, data in files.items():
        (base.path / name).parent.mkdir(parents=True, exist_ok=True)
        (base.path / name).write_bytes(data)


def test_a_job_that_is_asked_for_comes_back_and_stays_for_the_time(base: Base, clock: Clock) -> None:
    fill(base, clock, *JOBS)
    once(base, clock, days=0)
    whole = base.files()
    clock.ms += 20 * DAY_MS
    once(base, clock)
    assert jobs_in(base) == {"b"}
    requests = Requests(FILES, base.stored_dir)
    requests.ask("a")
    once(base, clock)
    assert requests.pending() == []
    assert jobs_in(base) == {"a", "b"}
    assert base.files().items() <= whole.items()
    assert findings(base) == []
    os.unlink(base.path / "jobs/a/job.json")
    assert findings(base) == ["tree_missing_file"]
    clock.ms += 9 * DAY_MS
    once(base, clock)
    assert "a" in jobs_in(base)
    clock.ms += 2 * DAY_MS
    once(base, clock)
    assert jobs_in(base) == {"b"}
    assert findings(base) == []


def test_requests_that_can_t_be_met_are_dropped(base: Base, clock: Clock) -> None:
    """One of an unknown job, one that is no request, and one that is too large."""
    fill(base, clock, *JOBS)
    requests = Requests(FILES, base.stored_dir)
    requests.ask("../../etc")
    for name, data in (("x.json", b"{"), ("y.json", b'{"job":"' + b"a" * 5000 + b'"}')):
        (base.path / ".stored" / FOLDER_NAME / name).write_bytes(data)
    once(base, clock)
    assert requests.pending() == []
    assert jobs_in(base) == {"a", "b", "c", "d"}


def test_requests_that_can_t_be_read_stop_nothing(base: Base, clock: Clock) -> None:
    """As where another user made the folder: here it is none."""
    fill(base, clock, *JOBS)
    (base.path / ".stored" / FOLDER_NAME).write_text("no folder")
    once(base, clock)
    assert jobs_in(base) == {"a", "b", "c", "d"}


def test_a_job_that_can_t_be_removed_stops_no_other(
    base: Base, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(base, clock, *JOBS)
    once(base, clock, days=0)
    listing = FileSystem.some_files

    def failing(self: FileSystem, dir_fd: int, wanted: Callable[[str], bool], most: int) -> list[str]:
        if os.readlink(f"/proc/self/fd/{dir_fd}").endswith("jobs/a"):
            raise PermissionError(13, "Permission denied")
        return listing(self, dir_fd, wanted, most)

    monkeypatch.setattr(FileSystem, "some_files", failing)
    once(base, clock, days=1)
    assert jobs_in(base) == {"a", "b"}
