"""A changed byte of the index at rest is noticed, whatever its last stop was like."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from perstack_stored.errors import IndexUnusableError
from perstack_stored.index import page_checksums as index_sums
from perstack_stored.index.connection import connect
from perstack_stored.index.page_checksums import verify_at_rest
from perstack_stored.index.writer import IndexWriter
from perstack_stored.model.kinds import Kind
from tests.helpers.datadir import Base, event
from tests.helpers.index import count_events


@pytest.fixture
def base(tmp_path: Path) -> Base:
    return Base(tmp_path / "base")


def rows(path: Path) -> int:
    database = connect(str(path), read_only=True)
    count = count_events(database)
    database.close()
    return count


def copy_of(base: Base, target: Path) -> Path:
    """The index as it is at this moment, as a killed process leaves it."""
    target.mkdir()
    for path in (base.path / ".stored").glob("index.sqlite*"):
        shutil.copy(path, target)
    return target / "index.sqlite"


def store(base: Base, first: int, last: int) -> None:
    for n in range(first, last):
        base.store((Kind.EVENT, event(id=f"e{n}", timestamp=1700000000000 + n)))


def test_a_killed_index_is_as_of_its_last_checkpoint(base: Base, tmp_path: Path) -> None:
    """What came since is in SQLite's log, whose damage could bring back old pages; it is followed again."""
    store(base, 0, 20)
    base.index.checkpoint()
    store(base, 20, 30)
    path = copy_of(base, tmp_path / "copy")
    assert rows(path) == 30
    path = copy_of(base, tmp_path / "again")
    verify_at_rest(str(path))
    assert rows(path) == 20
    found = IndexWriter(str(path), base.folder.reader(), base.journal.store)
    assert found.place.position == 20
    found.apply(list(base.reader.entries(found.place, base.journal.mark)))
    found.close()
    verify_at_rest(str(path))
    assert rows(path) == 30


def test_every_page_is_tested(base: Base, tmp_path: Path) -> None:
    store(base, 0, 300)
    base.index.close()
    path = copy_of(base, tmp_path / "copy")
    verify_at_rest(str(path))
    whole = path.read_bytes()
    for page in range(len(whole) // 4096):
        data = bytearray(whole)
        data[page * 4096 + 77] ^= 16
        path.write_bytes(data)
        with pytest.raises(IndexUnusableError, match=f"page {page + 1} of the index"):
            verify_at_rest(str(path))


@pytest.mark.parametrize("offset", [0, 9, 13, 16, 29, 40])
def test_checksums_that_were_changed_are_not_believed(base: Base, tmp_path: Path, offset: int) -> None:
    store(base, 0, 300)
    base.index.close()
    path = copy_of(base, tmp_path / "copy")
    sums = path.with_name("index.sqlite-sums")
    data = bytearray(sums.read_bytes())
    data[offset] ^= 1
    sums.write_bytes(data)
    with pytest.raises(IndexUnusableError):
        verify_at_rest(str(path))


def test_an_index_without_checksums_is_not_believed(base: Base, tmp_path: Path) -> None:
    base.index.close()
    path = copy_of(base, tmp_path / "copy")
    path.with_name("index.sqlite-sums").unlink()
    with pytest.raises(IndexUnusableError, match="no checksums"):
        verify_at_rest(str(path))


def test_one_that_was_cut_is_not_believed(base: Base, tmp_path: Path) -> None:
    base.index.close()
    path = copy_of(base, tmp_path / "copy")
    path.write_bytes(path.read_bytes()[:-4096])
    with pytest.raises(IndexUnusableError, match="another size"):
        verify_at_rest(str(path))


def test_no_index_is_no_damage(tmp_path: Path) -> None:
    verify_at_rest(str(tmp_path / "index.sqlite"))


def test_one_killed_in_a_checkpoint_is_completed(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's log has all pages then; the next checkpoint makes the checksums right."""
    store(base, 0, 20)
    base.index.checkpoint()
    store(base, 20, 30)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    base.database.execute("BEGIN")  # or the log would be emptied in the same step
    base.database.execute("SELECT count(*) FROM event_block").fetchone()
    monkeypatch.setattr(index_sums.CheckpointedChecksums, "_put_sums", die)
    with pytest.raises(KeyboardInterrupt):
        base.index.checkpoint()
    monkeypatch.undo()
    path = copy_of(base, tmp_path / "copy")
    verify_at_rest(str(path))
    assert rows(path) == 30
    found = IndexWriter(str(path), base.folder.reader(), base.journal.store)
    assert found.place.position == 30
    found.close()
    verify_at_rest(str(path))


class _Unsynced:
    """Stands in for `os` beneath the checksums: what they write is on the disk when it is synced."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, bytes, int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        self._waiting.append((fd, data, offset))
        return len(data)

    def fdatasync(self, fd: int) -> None:
        for write in self._waiting:
            os.pwrite(*write)
        self._waiting.clear()


def test_a_power_cut_after_a_checkpoint_takes_no_checksums(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are on disk before it counts as done; that it is under way, before it changes pages."""
    store(base, 0, 20)
    base.index.checkpoint()
    monkeypatch.setattr(index_sums, "os", _Unsynced())
    put_sums = index_sums.CheckpointedChecksums._put_sums

    def cut_power_first(checkpoints: index_sums.CheckpointedChecksums, touched: set[int] | None) -> None:
        cut_within.append(copy_of(base, tmp_path / "within"))
        put_sums(checkpoints, touched)

    cut_within: list[Path] = []
    monkeypatch.setattr(index_sums.CheckpointedChecksums, "_put_sums", cut_power_first)
    store(base, 20, 30)
    base.index.checkpoint()
    monkeypatch.undo()
    for path in (*cut_within, copy_of(base, tmp_path / "behind")):
        verify_at_rest(str(path))
        assert rows(path) == 30
    assert len(cut_within) == 1


def test_a_reader_holds_up_a_checkpoint_but_not_the_index(base: Base, tmp_path: Path) -> None:
    base.database.execute("BEGIN")
    base.database.execute("SELECT count(*) FROM event_block").fetchone()
    store(base, 0, 20)
    base.index.checkpoint()
    store(base, 20, 30)
    base.database.execute("COMMIT")
    base.index.checkpoint()
    path = copy_of(base, tmp_path / "copy")
    verify_at_rest(str(path))
    assert rows(path) == 30


def test_checkpoints_come_when_the_log_is_long(
    base: Base, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(index_sums, "WAL_BYTES", 50_000)
    base.index.checkpoint()
    store(base, 0, 60)
    path = copy_of(base, tmp_path / "copy")
    verify_at_rest(str(path))
    assert rows(path) > 20
