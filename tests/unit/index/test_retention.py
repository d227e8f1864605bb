"""Which jobs retention chooses: by the daemon's time, whole jobs, the oldest first, none that may run."""

from pathlib import Path

import pytest

from perstack_stored.index.retention import Candidate, JournalTimes, Policy, Selection
from perstack_stored.index.sizes import size_of
from perstack_stored.model.kinds import Kind
from tests.helpers.datadir import Base, checkpoint, event, job

DAY_MS = 86_400_000
START_MS = 1_800_000_000_000


class Clock:
    """The journal's time, by hand."""

    def __init__(self) -> None:
        self.ms = START_MS

    def now_ms(self) -> int:
        return self.ms

    @property
    def latest_ms(self) -> int:
        return self.ms


@pytest.fixture(params=[1 << 16, 1 << 24], ids=["small-segments", "one-segment"])
def base(tmp_path: Path, request: pytest.FixtureRequest) -> Base:
    return Base(tmp_path / "base", segment_bytes=request.param)


@pytest.fixture
def clock(base: Base, monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(base.journal, "clock", clock)
    return clock


def fill(base: Base, clock: Clock, *jobs: tuple[str, str]) -> None:
    """Jobs with a status, stored a day after each other. Events say any time: it is that of their client."""
    for name, status in jobs:
        pad = "x" * 300_000  # so that the index has a place of each
        base.store(
            (Kind.EVENT, event(jobId=name, timestamp=1, text=pad)),
            (Kind.JOB, job(id=name, status=status)),
        )
        clock.ms += DAY_MS


def chosen(base: Base, clock: Clock, limit: int = 1000, **policy: int) -> list[tuple[str, str]]:
    times = JournalTimes(base.database, base.reader)
    selection = Selection(
        base.database, Policy(**policy), lambda ms: times.position_at(ms, clock.ms), lambda: 1.0
    )
    return [(one.job, one.why) for one in selection.candidates(clock.ms, limit)]


JOBS = (
    ("a", "completed"), ("b", "stoppedByError"), ("c", "running"), ("d", "completed"), ("e", "completed")
)  # fmt: skip


def test_nothing_goes_unless_it_is_asked_for(base: Base, clock: Clock) -> None:
    fill(base, clock, *JOBS)
    assert chosen(base, clock) == []


def test_jobs_go_by_the_age_of_their_last_record(base: Base, clock: Clock) -> None:
    """A record that comes later keeps the whole job, however old the rest is."""
    fill(base, clock, *JOBS)
    assert chosen(base, clock, days=3) == [("a", "age"), ("b", "age")]
    base.store((Kind.EVENT, event(jobId="a", id="late")))
    assert chosen(base, clock, days=3) == [("b", "age")]
    assert chosen(base, clock, days=3, failed_days=30) == []
    assert chosen(base, clock, failed_days=3) == [("b", "age")]


def test_a_job_that_may_still_run_is_kept(base: Base, clock: Clock) -> None:
    """Unless it was silent for retain-running-days; statuses that are not known may run."""
    fill(base, clock, *JOBS, ("f", "somethingNew"))
    clock.ms += 30 * DAY_MS
    assert ("c", "age") not in chosen(base, clock, days=1)
    assert ("f", "age") not in chosen(base, clock, days=1)
    assert chosen(base, clock, running_days=5) == [("c", "age"), ("f", "age")]


def test_a_job_without_a_job_record_ends_as_its_events_say(base: Base, clock: Clock) -> None:
    for name, type in (("a", "completeRun"), ("b", "stopRunByError"), ("c", "startRun")):
        base.store((Kind.EVENT, event(jobId=name, type=type, text="x" * 300_000)))
        clock.ms += DAY_MS
    base.store((Kind.CHECKPOINT, checkpoint(jobId="d", status="completed")))
    clock.ms += DAY_MS
    base.store((Kind.EVENT, event(jobId="z", text="x" * 300_000)))
    assert chosen(base, clock, days=1) == [("a", "age"), ("b", "age"), ("d", "age")]
    assert chosen(base, clock, jobs=1) == [("a", "jobs"), ("b", "jobs"), ("d", "jobs")]


def test_jobs_go_by_count_and_by_bytes(base: Base, clock: Clock) -> None:
    """The oldest that have ended, until what is left is within the bound; at most a number in a sweep."""
    fill(base, clock, *JOBS)
    assert chosen(base, clock, jobs=3) == [("a", "jobs"), ("b", "jobs")]
    assert chosen(base, clock, jobs=1) == [("a", "jobs"), ("b", "jobs"), ("d", "jobs"), ("e", "jobs")]
    assert chosen(base, clock, jobs=1, limit=1) == [("a", "jobs")]
    size = size_of(base.database, "a")
    one = size.bytes + size.tree_bytes
    assert chosen(base, clock, bytes=4 * one + 100_000) == [("a", "bytes")]
    assert chosen(base, clock, bytes=5 * one + 100_000) == []
    assert size.tree_bytes >= size.bytes > 300_000


def test_a_job_that_goes_on_is_not_deleted(base: Base, clock: Clock) -> None:
    """What was chosen is looked at again."""
    fill(base, clock, *JOBS)
    times = JournalTimes(base.database, base.reader)
    selection = Selection(
        base.database, Policy(days=1), lambda ms: times.position_at(ms, clock.ms), lambda: 1.0
    )
    found: list[Candidate] = selection.candidates(clock.ms)
    assert [one.job for one in selection.unchanged(found)] == [one.job for one in found]
    base.store((Kind.CHECKPOINT, checkpoint(jobId="a")))
    assert [one.job for one in selection.unchanged(found)] == [one.job for one in found[1:]]


def test_a_position_is_found_by_its_time(base: Base, clock: Clock) -> None:
    """Never one that is newer."""
    fill(base, clock, *JOBS)
    times = JournalTimes(base.database, base.reader)
    assert times.position_at(START_MS - 1, clock.ms) == 0
    for days in range(6):
        upto = times.position_at(START_MS + days * DAY_MS, clock.ms)
        assert upto == min(2 * days + 2, 10)


def test_a_clock_that_was_wrong_for_a_while_makes_nothing_old(base: Base, clock: Clock) -> None:
    """Records before and after it are as old as they are, also those with a time of 1970 or 2040."""
    fill(base, clock, ("a", "completed"), ("b", "completed"))
    right = clock.ms
    clock.ms = START_MS + 5000 * DAY_MS
    fill(base, clock, ("ahead", "completed"))
    clock.ms = right
    fill(base, clock, ("c", "completed"))
    right = clock.ms
    clock.ms = 0
    fill(base, clock, *((f"behind-{n}", "completed") for n in range(4)))
    clock.ms = right
    assert chosen(base, clock, days=3) == [("a", "age")]
    clock.ms += DAY_MS
    assert chosen(base, clock, days=3) == [("a", "age"), ("b", "age"), ("ahead", "age")]
    clock.ms += DAY_MS
    assert [name for name, _ in chosen(base, clock, days=3)][3:] == ["c", *(f"behind-{n}" for n in range(4))]
