"""A job that is asked for comes back for a time; other requests stop nothing."""

import os

from perstack_stored.tree.requests import FOLDER_NAME, Requests
from perstack_stored.tree.sweep import write_back
from tests.helpers.datadir import Base
from tests.unit.tree.old_jobs.sweeping import (
    DAY_MS,
    FILES,
    JOBS,
    Clock,
    Running,
    fill,
    findings,
    jobs_in,
    once,
)


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


def test_what_a_power_cut_left_of_an_event_without_a_file_does_not_come_back_torn(
    base: Base, clock: Clock
) -> None:
    """It was written before the setting, and not synced: the job left the tree before it was removed."""
    fill(base, clock, *JOBS)
    once(base, clock, "a", days=0)
    clock.ms += 20 * DAY_MS
    once(base, clock, "a")
    assert jobs_in(base) == {"b"}
    left = base.path / "jobs/a/runs/run-1/event-1-0-a.json"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"{")
    running = Running(base, None, "a")
    running.grow()
    write_back(running.tree, "a", clock.ms)
    running.projection.close()
    assert len(left.read_bytes()) > 300_000
    assert findings(base) == []
