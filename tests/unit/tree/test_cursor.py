"""The tree's cursor moves after a sync only, and one that is not right is not believed."""

import errno
import time

import pytest

from perstack_stored.datadir.background_sync import BackgroundSync
from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.errors import TreeUnsyncedError
from perstack_stored.model.kinds import Kind
from perstack_stored.tree import cursor as tree_cursor
from perstack_stored.tree.cursor import CURSOR_NAME, Cursor, load_cursor, save_cursor
from tests.helpers.datadir import Base, FailingFiles, event
from tests.unit.tree.growing import grown


def test_the_cursor_moves_after_a_sync_only(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the cursor says that files are there they were synced; never more than the bound is unsynced."""
    monkeypatch.setattr(tree_cursor, "UNSYNCED_RECORDS_MAX", 10)
    log: list[str] = []

    class Logged(FileSystem):
        def sync_all(self, fd: int) -> None:
            log.append("syncfs")

        def rename(self, source: str, target: str, *, source_dir: int, target_dir: int) -> None:
            super().rename(source, target, source_dir=source_dir, target_dir=target_dir)
            log.append(f"cursor {load_cursor(FileSystem(), base.stored_dir, base.journal.store).position}")

        def give_name(self, fd: int, name: str, *, dir_fd: int) -> None:
            super().give_name(fd, name, dir_fd=dir_fd)
            log.append("file")

    for i in range(12):
        base.store(*((Kind.EVENT, event(id=f"{i}-{k}", timestamp=i * 10 + k)) for k in range(3)))
    save_cursor(FileSystem(), base.stored_dir, base.journal.store, Cursor(0, clean=True))
    made = base.open_tree(Logged())
    base.grow(made, slice_=1)
    made.sync(clean=True)
    made.sync(clean=True)
    assert log[0] == "cursor 0"
    assert log[-2:] == ["syncfs", "cursor 36"]
    unsynced = 0
    for i, what in enumerate(log):
        if what == "file":
            unsynced += 1
            assert unsynced <= 10
        elif what.startswith("cursor") and what != "cursor 0":
            assert log[i - 1] == "syncfs"
            unsynced = 0


def test_a_sync_beside_the_writing_covers_what_the_cursor_says(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are made meanwhile; the cursor says no more than was written when the sync began."""
    monkeypatch.setattr(tree_cursor, "UNSYNCED_RECORDS_MAX", 10)
    made_files = 0
    covered: list[int] = []
    beside: list[int] = []
    growing = True

    class Slow(FileSystem):
        def sync_all(self, fd: int) -> None:
            before = made_files
            time.sleep(0.02)
            for _ in range(200):  # on a busy machine it takes longer until a file is made beside one of them
                if made_files > before or any(beside) or not growing:
                    break
                time.sleep(0.005)
            beside.append(made_files - before)
            covered.append(before)

        def give_name(self, fd: int, name: str, *, dir_fd: int) -> None:
            nonlocal made_files
            super().give_name(fd, name, dir_fd=dir_fd)
            made_files += 1
            cursor = load_cursor(FileSystem(), base.stored_dir, base.journal.store)
            assert made_files <= cursor.position + 10
            assert cursor.position <= max(covered, default=0)

    for i in range(40):
        base.store(*((Kind.EVENT, event(id=f"{i}-{k}", timestamp=i * 10 + k)) for k in range(3)))
    save_cursor(FileSystem(), base.stored_dir, base.journal.store, Cursor(0, clean=True))
    made = base.open_tree(Slow())
    made.syncer = BackgroundSync(made._files.sync_all)
    base.grow(made, slice_=1)
    growing = False
    made.sync(clean=True)
    made.syncer.stop()
    assert load_cursor(FileSystem(), base.stored_dir, base.journal.store) == Cursor(120, clean=True)
    assert max(beside) > 0


def test_a_sync_beside_the_writing_that_fails_ends_the_writing(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that is waited for: the next process compares what is there."""
    monkeypatch.setattr(tree_cursor, "UNSYNCED_RECORDS_MAX", 10)
    for i in range(20):
        base.store((Kind.EVENT, event(id=f"{i}", timestamp=i)))
    save_cursor(FileSystem(), base.stored_dir, base.journal.store, Cursor(0, clean=True))
    files = FailingFiles()
    files.errors["sync_all"] = errno.EIO
    made = base.open_tree(files)
    made.syncer = BackgroundSync(lambda fd: files.sync_all(fd))  # noqa: PLW0108 - it fails when looked up
    with pytest.raises(TreeUnsyncedError):
        base.grow(made, slice_=1)
    made.syncer.stop()
    assert load_cursor(FileSystem(), base.stored_dir, base.journal.store).position == 0


def test_a_clean_cursor_is_taken_back_before_anything_is_written(base: Base) -> None:
    """What is written after a clean cursor must be replayed after a crash, so the cursor says so first."""
    base.store((Kind.EVENT, event()))
    made = grown(base)
    made.sync(clean=True)
    assert load_cursor(FileSystem(), base.stored_dir, base.journal.store) == Cursor(1, clean=True)
    base.store((Kind.EVENT, event(id="b")))
    files = FailingFiles(create_unnamed=errno.EIO)
    made = base.open_tree(files)
    with pytest.raises(OSError, match="Input/output"):
        base.grow(made)
    assert load_cursor(FileSystem(), base.stored_dir, base.journal.store) == Cursor(1, clean=False)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "longer", "other store"])
def test_a_cursor_that_is_not_right_means_all_is_projected_again(base: Base, damage: str) -> None:
    """A damaged cursor, or one of another journal, is not believed."""
    save_cursor(FileSystem(), base.stored_dir, base.journal.store, Cursor(77, clean=True))
    path = base.path / ".stored" / CURSOR_NAME
    data = path.read_bytes()
    if damage == "flip":
        for i in range(len(data)):
            path.write_bytes(data[:i] + bytes([data[i] ^ 4]) + data[i + 1 :])
            assert load_cursor(FileSystem(), base.stored_dir, base.journal.store) == Cursor(
                0, clean=False, lost=True
            )
        return
    path.write_bytes({"cut": data[:-1], "empty": b"", "longer": data + b"x", "other store": data}[damage])
    store = bytes(16) if damage == "other store" else base.journal.store
    assert load_cursor(FileSystem(), base.stored_dir, store) == Cursor(0, clean=False, lost=True)
    assert load_cursor(FileSystem(), base.stored_dir, base.journal.store).position == (
        77 if damage == "other store" else 0
    )
