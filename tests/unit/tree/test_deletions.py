"""Deletions in the tree: our files go, foreign ones stay, and a replay ends in the same state."""

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.datadir.layout import DataDir
from perstack_stored.model.kinds import Kind
from perstack_stored.offline.check.check import check
from perstack_stored.offline.findings import Finding, Report
from perstack_stored.tree import cursor as tree_cursor
from perstack_stored.tree import remover
from perstack_stored.tree.write import divided
from tests.helpers.datadir import Base, Died, SimulatedDisk, checkpoint, dumps, event, job, setting


def grow(base: Base, *, slice_: int = 1000) -> None:
    """Bring a tree up to the end, by a process that begins at its cursor."""
    tree = base.open_tree()
    base.grow(tree, slice_=slice_)
    tree.sync(clean=True)
    tree.close()


def fill(base: Base, job_id: str = "job-1") -> None:
    base.store((Kind.JOB, job(id=job_id)))
    for run in ("run-1", "run-2"):
        named = {"jobId": job_id, "runId": run}
        base.store((Kind.RUN_SETTING, setting(**named)))
        for n in range(3):
            base.store((Kind.EVENT, event(id=f"e{n}", **named)))
        base.store((Kind.CHECKPOINT, checkpoint(id=f"{run}-cp", **named)))


def delete(base: Base, job_id: str = "job-1", run: str | None = None) -> int:
    return base.store((Kind.DELETION, {"jobId": job_id} | ({} if run is None else {"runId": run})))


def test_a_deleted_job_leaves_nothing(base: Base) -> None:
    """No file and no folder of it; other jobs stay."""
    fill(base)
    fill(base, "job-2")
    grow(base)
    before = base.files()
    delete(base)
    grow(base)
    assert not (base.path / "jobs/job-1").exists()
    assert base.files() == {path: data for path, data in before.items() if "job-2/" in path}


def test_what_stands_in_the_place_of_the_tree_is_no_empty_tree(tmp_path: Path) -> None:
    """The files of a deleted job may come back with their folder: they are not called removed."""
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    one = remover.Remover(FileSystem(), fd, lambda: None)
    one.remove_job("job-1")  # there is no tree
    (tmp_path / "jobs").write_bytes(b"not a folder")
    with pytest.raises(NotADirectoryError):
        one.remove_job("job-1")
    (tmp_path / "jobs").unlink()
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "job-1").write_bytes(b"not ours")
    one.remove_job("job-1")
    os.close(fd)


def test_files_that_somebody_removes_meanwhile_do_no_harm(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(base)
    grow(base)
    listing = FileSystem.some_files

    def removing(self: FileSystem, dir_fd: int, wanted: Callable[[str], bool], most: int) -> list[str]:
        names = listing(self, dir_fd, wanted, most)
        for name in names[:1]:
            os.unlink(name, dir_fd=dir_fd)
        return names

    monkeypatch.setattr(FileSystem, "some_files", removing)
    delete(base)
    grow(base)
    assert not (base.path / "jobs/job-1").exists()


def test_a_deleted_run_takes_its_checkpoints_along(base: Base) -> None:
    """They lie in the folder of the job, which stays."""
    fill(base)
    grow(base)
    before = base.files()
    delete(base, run="run-1")
    grow(base)
    gone = ("runs/run-1/", "run-1-cp")
    assert base.files() == {p: data for p, data in before.items() if not any(name in p for name in gone)}
    assert not (base.path / "jobs/job-1/runs/run-1").exists()


@pytest.mark.parametrize("grown_before", [True, False])
@pytest.mark.parametrize("slice_", [1, 1000])
@pytest.mark.parametrize(
    ("stored", "deleted", "left"),
    [
        ((1, 2), 1, 2),  # the run that lives keeps its version
        ((1, 2, 1), 2, 1),
        ((1, 2), 2, None),  # the version of the other run was replaced before: it does not come back
        ((1, 2, 2), 2, None),
    ],
)
def test_a_checkpoint_of_several_runs_goes_with_the_run_of_its_last_version(
    base: Base, stored: tuple[int, ...], deleted: int, left: int | None, slice_: int, *, grown_before: bool
) -> None:
    """In reads and in the tree, whether the tree had the versions before or not."""
    for run in stored:
        base.store((Kind.CHECKPOINT, checkpoint(id="both", runId=f"run-{run}", status=f"of-{run}")))
    if grown_before:
        grow(base, slice_=slice_)
    delete(base, run=f"run-{deleted}")
    grow(base, slice_=slice_)
    found = [one["runId"] for one in base.ask("getCheckpointsByJobId", jobId="job-1")[0]]
    assert found == ([] if left is None else [f"run-{left}"])
    files = [json.loads(data)["runId"] for path, data in base.files().items() if path.endswith("both.json")]
    assert files == found
    base.store((Kind.CHECKPOINT, checkpoint(id="both", runId=f"run-{deleted}", status="again")))
    grow(base, slice_=slice_)
    assert [json.loads(data)["status"] for path, data in base.files().items() if "both" in path] == ["again"]


def test_foreign_files_stay_and_so_do_their_folders(base: Base) -> None:
    """A file of another name, a link, a folder under the name of a file of ours."""
    fill(base)
    grow(base)
    run = base.path / "jobs/job-1/runs/run-1"
    (run / "notes.txt").write_text("mine")
    (run / "event-1-1-x.json").symlink_to("notes.txt")
    (run / "event-2-2-y.json").mkdir()
    (base.path / "jobs/job-1/checkpoints/readme").write_text("mine")
    delete(base)
    grow(base)
    left = sorted(str(p.relative_to(base.path)) for p in (base.path / "jobs").rglob("*"))
    assert left == [
        "jobs/job-1",
        "jobs/job-1/checkpoints",
        "jobs/job-1/checkpoints/readme",
        "jobs/job-1/runs",
        "jobs/job-1/runs/run-1",
        "jobs/job-1/runs/run-1/event-1-1-x.json",
        "jobs/job-1/runs/run-1/event-2-2-y.json",
        "jobs/job-1/runs/run-1/notes.txt",
    ]


def test_files_that_are_back_after_their_deletion_are_named(base: Base, tmp_path: Path) -> None:
    """A tree without `jobs` goes on, as it does for writes; what was moved away meanwhile it can't remove."""
    fill(base)
    fill(base, "job-2")
    grow(base)
    (base.path / "jobs").rename(tmp_path / "aside")
    delete(base)
    grow(base)
    (tmp_path / "aside").rename(base.path / "jobs")
    found: list[Finding] = []
    check(DataDir(str(base.path), FileSystem(), base.folders), Report(found.append))
    in_tree = [(one.name, one.facts["path"]) for one in found if one.name.startswith("tree_")]
    assert in_tree == [("tree_foreign_file", "jobs/job-1")]


def test_no_link_leads_out_of_the_base(base: Base, tmp_path: Path) -> None:
    """A folder of the job that somebody replaced by a link is not followed."""
    fill(base)
    grow(base)
    other = tmp_path / "other"
    other.mkdir()
    (other / "job.json").write_text("theirs")
    os.rename(base.path / "jobs/job-1", base.path / "jobs/moved")
    (base.path / "jobs/job-1").symlink_to(other)
    delete(base)
    grow(base)
    assert (other / "job.json").read_text() == "theirs"


@pytest.mark.parametrize("slice_", [1, 2, 1000])
def test_a_job_that_begins_again_has_its_new_files_only(base: Base, slice_: int) -> None:
    """Whatever stands in one slice: what was stored before the deletion is not written after it."""
    fill(base)
    grow(base, slice_=slice_)
    fill(base)
    delete(base)
    base.store((Kind.JOB, job(status="again")), (Kind.EVENT, event(id="new")))
    grow(base, slice_=slice_)
    assert sorted(base.files()) == [
        "jobs/job-1/job.json",
        "jobs/job-1/runs/run-1/event-1700000000000-0-startRun.json",
    ]


def test_what_is_deleted_later_is_not_written_at_all(base: Base) -> None:
    """The index is ahead of the tree: a setting that is gone stops nothing."""
    fill(base)
    delete(base)
    grow(base, slice_=1)
    assert not (base.path / "jobs/job-1").exists()


def test_a_crash_at_any_call_ends_in_the_same_tree(base: Base) -> None:
    """Killed anywhere, the next process removes the rest, and keeps what came later."""
    fill(base)
    fill(base, "job-2")
    grow(base)
    delete(base, "job-2", "run-1")
    delete(base)
    base.store((Kind.JOB, job(status="again")), (Kind.EVENT, event(id="new")))
    wanted: dict[str, bytes] | None = None
    for dies_at in range(10_000):
        files = SimulatedDisk(dies_at=dies_at)
        died = False
        try:
            tree = base.open_tree(files)
            base.grow(tree)
            tree.sync(clean=False)
        except Died:
            died = True
        if not died:
            break
        if dies_at % 7 == 0:
            grow(base)
            wanted = wanted or base.files()
            assert base.files() == wanted
            # Back to where it was, as far as the cursor says: it is replayed over what is there.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(base.path / ".stored/tree.cursor")
    else:
        raise AssertionError("it never comes to an end")
    assert wanted == base.files()


def test_both_writers_divide_alike_whatever_the_index_knows_by_then(base: Base) -> None:
    """Else a file could be left to the other one by both."""
    for n in range(4):
        fill(base, f"job-{n}")
    tree = base.open_tree()
    entries = list(base.reader.entries(base.reader.start(), base.index.place))
    before = divided(tree._writes(entries, entries[-1].header.position))
    delete(base, "job-0")
    after = divided(tree._writes(entries, entries[-1].header.position))
    assert [[w.position for w in part] for part in after] == [[w.position for w in part] for part in before]
    tree.close()


def test_it_pauses_between_many_files(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a large job does not take the disk for itself."""
    pauses: list[float] = []
    monkeypatch.setattr("perstack_stored.tree.remover.time.sleep", pauses.append)
    base.store(*[(Kind.EVENT, event(id=f"e{n}", timestamp=n)) for n in range(250)])
    grow(base)
    delete(base)
    grow(base)
    assert pauses == [remover.UNLINK_PAUSE_SECONDS] * 2
    assert base.files() == {}


def test_a_replay_keeps_the_files_of_later_records(base: Base) -> None:
    """They don't vanish, not even for the moment until they are written again."""
    fill(base)
    grow(base)
    delete(base)
    base.store((Kind.JOB, job(status="again")), (Kind.EVENT, event(id="new")))
    later = base.store((Kind.RUN_SETTING, setting()))
    tree = base.open_tree()
    base.grow(tree)  # the cursor does not move: a crash before the sync
    wanted = base.files()
    tree = base.open_tree()
    place = base.reader.seek(tree.position, base.index.place)
    entries = list(base.reader.entries(place, base.index.place))
    tree._deleted.remove(entries, tree.position, is_named=False)
    assert base.files() == wanted
    tree.apply([entry for entry in entries if entry.header.position <= later])
    assert base.files() == wanted


@pytest.mark.parametrize("slice_", [1, 1000])
def test_a_redacted_setting_replaces_the_file(base: Base, slice_: int) -> None:
    """The run's other files stay."""
    fill(base)
    grow(base)
    before = base.files()
    value = setting(env={"KEY": "***"})
    base.store((Kind.RUN_SETTING, setting(env={"KEY": "secret"})))
    base.store((Kind.DELETION, {"jobId": "job-1", "runId": "run-1", "setting": value}))
    grow(base, slice_=slice_)
    path = "jobs/job-1/runs/run-1/run-setting.json"
    assert base.files() == before | {path: dumps(value)}


def test_a_replay_removes_what_a_crash_tore_of_a_run_that_was_deleted_later(base: Base) -> None:
    """The daemon is ready before the tree comes to the deletion: nothing that is torn may be there then."""
    fill(base)
    base.store((Kind.EVENT, event(id="e9", jobId="job-2")))
    tree = base.open_tree()
    base.grow(tree)
    tree.close()
    run = base.path / "jobs/job-1/runs/run-1"
    torn = sorted(run.glob("event-*.json"))
    assert len(torn) == 3
    for path in torn:
        path.write_bytes(path.read_bytes()[:9])
    delete(base, run="run-1")
    tree = base.open_tree()
    tree.replay_until = 10
    place = base.reader.seek(tree.position, base.index.place)
    tree.apply(list(base.reader.entries(place, base.index.place))[:-1])
    assert not [path for path in torn if path.exists()]
    assert len(list((base.path / "jobs/job-1/runs/run-2").iterdir())) == 4
    assert list((base.path / "jobs/job-2").rglob("event-*.json"))
    tree.close()


@pytest.mark.parametrize("is_torn", [False, True])
def test_a_replay_keeps_a_checkpoint_that_another_run_has_stored_since(
    base: Base, monkeypatch: pytest.MonkeyPatch, is_torn: bool
) -> None:
    """It is whole and does not vanish, though the run that stored it first was deleted later."""
    monkeypatch.setattr(tree_cursor, "UNSYNCED_RECORDS_MAX", 1)
    base.store((Kind.JOB, job()))
    tree = base.open_tree()
    base.grow(tree)
    tree.sync(clean=False)
    base.store((Kind.CHECKPOINT, checkpoint(id="c", runId="run-1")))
    base.grow(tree)  # and a crash before the next sync
    tree.close()
    path = base.path / "jobs/job-1/checkpoints/c.json"
    whole = path.read_bytes()
    if is_torn:
        path.write_bytes(whole[:9])
    base.store((Kind.CHECKPOINT, checkpoint(id="c", runId="run-2")))
    base.store((Kind.CHECKPOINT, checkpoint(id="never-written", runId="run-1")))
    base.store((Kind.CHECKPOINT, checkpoint(id="never-written", runId="run-2")))
    delete(base, run="run-1")
    tree = base.open_tree()
    assert tree.replay_until == 2
    place = base.reader.seek(tree.position, base.index.place)
    entries = list(base.reader.entries(place, base.index.place))
    tree.apply(entries[:1])
    assert path.read_bytes() == whole
    tree.apply(entries[1:3])
    assert path.read_bytes() != whole
    assert not path.with_name("never-written.json").exists()
    tree.apply(entries[3:])
    assert json.loads(path.read_bytes())["runId"] == "run-2"
    tree.close()
