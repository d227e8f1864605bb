"""Jobs that have ended leave the tree after some days: whole, slowly, and nothing else does."""

import os
from collections.abc import Callable
from itertools import pairwise

import pytest

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.model.kinds import Kind
from perstack_stored.tree import left_out
from perstack_stored.tree.cursor import CURSOR_NAME
from tests.helpers.datadir import Base, event, job
from tests.unit.tree.old_jobs.sweeping import (
    DAY_MS,
    JOBS,
    Clock,
    Running,
    fill,
    findings,
    jobs_in,
    late_event,
    once,
)


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


def test_a_job_comes_back_by_an_event_that_has_no_file(base: Base, clock: Clock) -> None:
    """It has a new record, so it is not old; that the record is left out changes nothing."""
    fill(base, clock, ("a", "completed"))
    once(base, clock, "c")
    names = base.files().keys()
    clock.ms += 20 * DAY_MS
    once(base, clock, "c")
    assert base.files() == {}
    late_event(base, "a")
    once(base, clock, "c")
    assert base.files().keys() == names
    assert findings(base) == []


def test_a_repeat_of_an_event_brings_no_job_back(base: Base, clock: Clock) -> None:
    """It is no new record; checks agree."""
    fill(base, clock, ("a", "completed"))
    clock.ms += 20 * DAY_MS
    once(base, clock)
    base.store((Kind.EVENT, event(jobId="a", timestamp=2, type="c")))
    once(base, clock)
    assert base.files() == {}
    assert findings(base) == []


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
