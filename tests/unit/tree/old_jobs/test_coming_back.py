"""A job with a new record comes back whole, through power cuts, errors and crashes."""

import pytest

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.model.kinds import Kind
from tests.helpers.datadir import Base, Died, SimulatedDisk, event, job
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
