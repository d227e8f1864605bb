"""Bytes that retention counts in the tree are those of files that are there."""

from pathlib import Path

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.datadir.layout import DataDir
from perstack_stored.index.retention import Policy
from perstack_stored.index.sizes import size_of
from perstack_stored.model.kinds import Kind
from perstack_stored.server.retention import choose
from perstack_stored.tree import left_out
from perstack_stored.tree.left_out import Change, LeftOut
from tests.helpers.datadir import Base, event, job

FILES = FileSystem()
NOW_MS = 1_800_000_000_000
BLOCK = 4096
JOBS = ("old", "mixed", "new")


def fill(base: Base, name: str) -> int:
    """A job with a Job, and events of two types, in a block and in rows; returns its last position."""
    events = [(time, type) for time in (10, 11, 5) for type in ("kept", "left")]
    values = [(Kind.EVENT, event(jobId=name, timestamp=time, type=type)) for time, type in events]
    return base.store(*values, (Kind.JOB, job(id=name, status="completed"))) + len(values)


def test_what_has_no_file_counts_only_in_the_journal(tmp_path: Path) -> None:
    """A job that has left the tree, and types that are left out from a position on."""
    base = Base(tmp_path / "base", segment_bytes=1 << 24)
    old, *_ = [fill(base, name) for name in JOBS]
    datadir = DataDir(str(base.path), FILES, base.folders)
    in_journal = {name: size_of(base.database, name).bytes for name in JOBS}

    def bytes_of(record: LeftOut) -> dict[str, int]:
        left_out.save(FILES, base.stored_dir, base.journal.store, record)
        return {one.job: one.bytes for one in choose(datadir, Policy(bytes=1), NOW_MS)}

    assert bytes_of(LeftOut()) == {name: size + 7 * BLOCK for name, size in in_journal.items()}
    # The first two events of the second job still have their files.
    record = LeftOut((Change(old + 2, frozenset({"left"})),), jobs_until=old)
    files = {"old": 0, "mixed": 5, "new": 4}
    assert bytes_of(record) == {name: in_journal[name] + count * BLOCK for name, count in files.items()}
    there = sum(in_journal.values()) + 9 * BLOCK
    assert choose(datadir, Policy(bytes=there), NOW_MS) == []
