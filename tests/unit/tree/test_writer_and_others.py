"""The tree where others change it, or the disk fails: nothing is written outside of it, and it recovers."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from perstack_stored.datadir.filesystem import Buffer, FileSystem
from perstack_stored.errors import TreeUnsyncedError
from perstack_stored.model import json_text
from perstack_stored.model.kinds import Kind
from perstack_stored.tree import cursor as tree_cursor
from perstack_stored.tree import file_writer
from perstack_stored.tree.cursor import CURSOR_NAME, Cursor, cursor_store, load_cursor, save_cursor
from perstack_stored.tree.write import Write, event_name
from perstack_stored.tree.writer import TreeWriter
from tests.helpers.datadir import (
    Base,
    FailingFiles,
    checkpoint,
    dumps,
    event,
    job,
)

RUN = "jobs/job-1/runs/run-1"


def grown(base: Base) -> TreeWriter:
    """A tree that has come up to the end, opened again."""
    made = base.open_tree()
    base.grow(made)
    return made


def test_a_file_that_is_there_as_it_should_be_is_left_alone(base: Base) -> None:
    """The same bytes are not written again: the file keeps its inode."""
    base.store((Kind.EVENT, event()))
    made = grown(base)
    path = base.path / RUN / "event-1700000000000-0-startRun.json"
    inode = path.stat().st_ino
    del made
    grown(base)
    assert path.stat().st_ino == inode


def test_a_file_with_other_content_is_replaced_whole(base: Base) -> None:
    """Whatever stands under a name of ours is exchanged for what the journal says, not rewritten."""
    base.store((Kind.EVENT, event()))
    path = base.path / RUN / "event-1700000000000-0-startRun.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x" * len(dumps(event())))
    before = path.open("rb")
    grown(base)
    assert path.read_bytes() == dumps(event())
    assert before.read() == b"x" * len(dumps(event()))
    before.close()


@pytest.mark.parametrize("level", ["jobs/job-1", "jobs/job-1/runs", RUN])
def test_no_link_leads_out_of_the_base(base: Base, tmp_path: Path, level: str) -> None:
    """A folder that is a link is never followed: the file is blocked and named, others are written."""
    outside = tmp_path / "outside"
    outside.mkdir()
    link = base.path / level
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside)
    base.store((Kind.EVENT, event()), (Kind.JOB, job(id="other")))
    blocked: list[Write] = []
    made = base.open_tree()
    made.on_blocked = lambda write, _error: blocked.append(write)
    base.grow(made)
    assert not list(outside.iterdir())
    assert blocked[0].name == "event-1700000000000-0-startRun.json"
    assert made.blocked == len(blocked)
    assert "jobs/other/job.json" in base.files()
    assert made.position == base.journal.mark.position


@pytest.mark.parametrize("what", ["link", "file"])
def test_a_tree_whose_top_is_something_else_waits_for_it(base: Base, tmp_path: Path, what: str) -> None:
    """Nothing counts as blocked, and so as done: when the place is free, all of it is written."""
    outside = tmp_path / "outside"
    outside.mkdir()
    top = base.path / "jobs"
    if what == "link":
        top.symlink_to(outside)
    else:
        top.write_bytes(b"")
    base.store((Kind.EVENT, event()), (Kind.JOB, job(id="other")))
    made = base.open_tree()
    with pytest.raises(NotADirectoryError, match="jobs"):
        base.grow(made)
    assert made.blocked == 0
    assert not list(outside.iterdir())
    top.unlink()
    base.grow(made)
    assert "jobs/other/job.json" in base.files()


@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.parametrize("level", ["jobs", "jobs/job-1"])
def test_a_folder_that_was_moved_is_not_written_to_any_more(
    base: Base, tmp_path: Path, level: str, *, replaced: bool
) -> None:
    """What belongs in the tree is made where people look for it."""
    base.store((Kind.EVENT, event()))
    made = grown(base)
    (base.path / level).rename(tmp_path / "moved")
    if replaced:
        (base.path / level).mkdir()
    before = sorted((tmp_path / "moved").rglob("*"))
    base.store((Kind.EVENT, event(timestamp=1700000000001)))
    base.grow(made)
    assert sorted((tmp_path / "moved").rglob("*")) == before
    assert [name for name in base.files() if name.startswith("jobs/")] == [
        f"{RUN}/event-1700000000001-0-startRun.json"
    ]


@pytest.mark.parametrize("what", ["link", "dangling link", "folder", "full folder", "same size folder"])
def test_an_obstacle_in_the_place_of_a_file_stays(base: Base, tmp_path: Path, what: str) -> None:
    """A link or folder under the name of a file blocks this file, is left as it is, and stops no other."""
    target = tmp_path / "target"
    target.write_bytes(b"not ours")
    path = base.path / "jobs" / "job-1" / "job.json"
    path.parent.mkdir(parents=True)
    base.store((Kind.JOB, job()), (Kind.JOB, job(id="other")))
    if what == "link":
        path.symlink_to(target)
    elif what == "dangling link":
        path.symlink_to(tmp_path / "nowhere")
    else:
        path.mkdir()
        if what == "full folder":
            (path / "x").write_bytes(b"x")
        if what == "same size folder":
            filler = path.stat().st_size - len(json_text.indent(dumps(job(text=""))))
            base.store((Kind.JOB, job(text="x" * filler)))
    for _ in range(2):
        made = base.open_tree()
        base.grow(made)
        assert made.blocked == 1
        assert made.position == base.journal.mark.position
    base.store((Kind.JOB, job(n=2)), (Kind.JOB, job(id="another")))
    base.grow(made)
    assert made.blocked == 2
    assert {"jobs/other/job.json", "jobs/another/job.json"} <= set(base.files())
    assert target.read_bytes() == b"not ours"
    assert not (tmp_path / "nowhere").exists()
    assert path.is_symlink() or path.is_dir()
    assert not list((base.path / ".stored" / "staging").iterdir())


def test_a_fifo_in_the_place_of_a_file_stops_nothing(base: Base) -> None:
    """Opening what isn't a file must not wait."""
    base.store((Kind.JOB, job()), (Kind.JOB, job(id="other")))
    path = base.path / "jobs" / "job-1" / "job.json"
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    grown(base)
    assert "jobs/other/job.json" in base.files()


@pytest.mark.parametrize("gone", ["jobs", "jobs/job-1", "jobs/job-1/runs", RUN])
def test_a_folder_that_is_removed_underneath_is_made_again(base: Base, gone: str) -> None:
    """Deleting a job while the daemon runs does not stop what is stored later, in old folders and new."""
    base.store((Kind.EVENT, event()), (Kind.JOB, job()), (Kind.EVENT, event(runId="run-2")))
    made = grown(base)
    later: list[dict[str, Any]] = [
        event(id="b", timestamp=2), event(id="c", runId="run-3"),
        event(id="d", runId="run-2", timestamp=3), event(jobId="new")
    ]  # fmt: skip
    for i, value in enumerate(later):
        shutil.rmtree(base.path / gone, ignore_errors=True)
        base.store((Kind.EVENT, value), (Kind.JOB, job(n=i)))
        base.grow(made)
        name = event_name(value["timestamp"], 0, "startRun", 1)
        assert base.files()[f"jobs/{value['jobId']}/runs/{value['runId']}/{name}"] == dumps(value)
        assert base.files()["jobs/job-1/job.json"] == json_text.indent(dumps(job(n=i)))


def test_a_full_disk_stops_the_tree_and_the_same_entries_succeed_later(base: Base) -> None:
    """An error that is not about one name stops the tree where it is; applied again everything is there."""
    base.store(*((Kind.EVENT, event(id=str(i), timestamp=i)) for i in range(5)), (Kind.JOB, job()))
    for call in ("write", "create_unnamed", "give_name", "make_dir"):
        files = FailingFiles()
        made = base.open_tree(files)
        files.errors[call] = errno.ENOSPC
        with pytest.raises(OSError, match="No space"):
            base.grow(made)
        assert made.position == 0
        assert not made.blocked
    files.errors.clear()
    base.grow(made)
    assert len(base.files()) == 6


def test_a_replacement_that_fails_can_be_tried_again(base: Base) -> None:
    """When the exchange with the old file fails, nothing is left aside that would stop the next one."""
    base.store((Kind.JOB, job(n=1)))
    files = FailingFiles()
    made = base.open_tree(files)
    base.grow(made)
    base.store((Kind.JOB, job(n=2)))
    files.errors["exchange"] = errno.ENOSPC
    for _ in range(2):
        with pytest.raises(OSError, match="No space"):
            base.grow(made)
    assert base.files() == {"jobs/job-1/job.json": json_text.indent(dumps(job(n=1)))}
    files.errors.clear()
    base.grow(made)
    assert base.files() == {"jobs/job-1/job.json": json_text.indent(dumps(job(n=2)))}


def test_descriptors_are_bounded(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many folders there are, few are open at a time, and none after the close."""
    monkeypatch.setattr(file_writer, "_FOLDERS_OPEN_MAX", 8)
    before = len(os.listdir("/proc/self/fd"))
    base.store(*((Kind.EVENT, event(jobId=f"j{i}", runId=f"r{i}")) for i in range(40)))
    made = base.open_tree()
    opened = len(os.listdir("/proc/self/fd"))
    base.grow(made)
    assert len(os.listdir("/proc/self/fd")) <= opened + 10
    made.close()
    assert len(os.listdir("/proc/self/fd")) <= before + 4
    assert len(base.files()) == 40


def test_a_sync_that_failed_is_not_tried_again(base: Base) -> None:
    """Linux tells of a failed write-back once: a second sync would report a success, and move the cursor."""
    base.store((Kind.JOB, job(n=1)))
    files = FailingFiles()
    made = base.open_tree(files)
    base.grow(made)
    files.errors["sync_all"] = errno.EIO
    with pytest.raises(TreeUnsyncedError):
        made.sync(clean=True)
    assert load_cursor(FileSystem(), base.stored_dir, base.journal.store).position == 0


def test_a_file_that_can_t_be_looked_at_is_not_replaced_by_an_older_one(base: Base) -> None:
    """During a replay, a disk error while looking for a file does not mean that it is not there."""
    for i in range(3):
        base.store((Kind.JOB, job(n=i)))
    grown(base)
    newest = base.files()

    class OnceUnreadable(FileSystem):
        looks = 0

        def stat(self, name: str, *, dir_fd: int) -> os.stat_result:
            if name == "job.json":
                self.looks += 1
                if self.looks == 1:
                    raise OSError(errno.EIO, os.strerror(errno.EIO), name)
            return super().stat(name, dir_fd=dir_fd)

    files = OnceUnreadable()
    made = base.open_tree(files)
    with pytest.raises(OSError, match=r"job\.json"):
        base.grow(made, slice_=1)
    assert base.files() == newest
    base.grow(made, slice_=1)
    assert files.looks > 1
    assert base.files() == newest


def test_a_replay_reads_what_is_on_the_disk(base: Base) -> None:
    """Before a file is taken for right, its clean pages are dropped: after a failed write-back they lie."""
    forgotten: list[str] = []

    class Forgetful(FileSystem):
        def forget_cached(self, fd: int) -> None:
            forgotten.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
            super().forget_cached(fd)

    base.store((Kind.JOB, job(n=1)), (Kind.CHECKPOINT, checkpoint()))
    grown(base)
    base.grow(base.open_tree(Forgetful()))
    assert sorted(forgotten) == ["cp-1.json", "job.json"]


def test_a_left_over_in_staging_does_not_stop_the_tree(base: Base) -> None:
    """When what was exchanged could not be removed once, the next replacement removes it."""
    base.store((Kind.JOB, job(n=0)))
    files = FailingFiles()
    made = base.open_tree(files)
    base.grow(made)
    base.store((Kind.JOB, job(n=1)))
    files.errors["unlink"] = errno.EIO
    with pytest.raises(OSError, match="unlink"):
        base.grow(made)
    files.errors.clear()
    base.store((Kind.JOB, job(n=2)))
    base.grow(made)
    assert base.files()["jobs/job-1/job.json"] == json_text.indent(dumps(job(n=2)))
    assert not list((base.path / ".stored" / "staging").iterdir())


def test_a_reader_never_sees_half_a_file(base: Base) -> None:
    """Between any two calls of the writer each file in the tree is whole."""
    checked = 0

    class Looking(FileSystem):
        def write(self, fd: int, buffers: list[Buffer], offset: int) -> None:  # type: ignore[override]
            super().write(fd, buffers, offset)
            look()

        def give_name(self, fd: int, name: str, *, dir_fd: int) -> None:
            look()
            super().give_name(fd, name, dir_fd=dir_fd)
            look()

        def exchange(self, *args: Any, **kwargs: Any) -> None:
            look()
            super().exchange(*args, **kwargs)
            look()

    def look() -> None:
        nonlocal checked
        for name, content in base.files().items():
            assert content in allowed, name
            checked += 1

    values = [job(n=i) for i in range(5)]
    allowed = {json_text.indent(dumps(v)) for v in values} | {dumps(checkpoint(n=i)) for i in range(5)}
    for i, value in enumerate(values):
        base.store((Kind.JOB, value), (Kind.CHECKPOINT, checkpoint(n=i)))
    save_cursor(FileSystem(), base.stored_dir, base.journal.store, Cursor(0, clean=True))
    base.grow(base.open_tree(Looking()), slice_=1)
    assert checked > 50


def test_a_cursor_with_any_bad_byte_counts_as_lost(base: Base) -> None:
    """Wherever the cursor's file is damaged or cut, it is not believed."""
    save_cursor(FileSystem(), base.stored_dir, base.journal.store, Cursor(7, clean=True))
    assert load_cursor(FileSystem(), base.stored_dir, base.journal.store) == Cursor(7, clean=True)
    path = base.path / ".stored" / CURSOR_NAME
    good = path.read_bytes()
    damaged = [good[:i] + bytes([good[i] ^ 1]) + good[i + 1 :] for i in range(len(good))]
    assert cursor_store(FileSystem(), base.stored_dir) == base.journal.store
    for data in (*damaged, good[:-1], good + b"\0", b""):
        path.write_bytes(data)
        assert load_cursor(FileSystem(), base.stored_dir, base.journal.store).lost
        assert cursor_store(FileSystem(), base.stored_dir) is None


def test_a_lost_cursor_brings_back_no_older_version(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a cursor that can be believed all is projected again, and no file becomes older on the way."""
    monkeypatch.setattr(tree_cursor, "UNSYNCED_RECORDS_MAX", 4)
    for i in range(30):
        base.store((Kind.JOB, job(n=i)))
    made = grown(base)
    made.sync(clean=True)
    newest = base.files()
    cursor = base.path / ".stored" / CURSOR_NAME
    for damage in (lambda: cursor.write_bytes(b"damaged"), cursor.unlink):
        damage()
        made = base.open_tree()
        place = base.reader.start()
        for entry in base.reader.entries(place, base.journal.mark):
            made.apply([entry])
            assert base.files() == newest
        made.sync(clean=True)
