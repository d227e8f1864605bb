"""What a base notes about the history that it is a copy of."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.errors import ConfigError
from perstack_stored.server.copying import note_source, source_of

HISTORY = "a1" * 16


class Noting(FileSystem):
    """Notes the calls that change names, and the syncs of folders."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def unlink(self, name: str, *, dir_fd: int) -> None:
        self.calls.append("unlink")
        super().unlink(name, dir_fd=dir_fd)

    def sync(self, fd: int) -> None:
        self.calls.append("sync")
        super().sync(fd)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_a_copy_stays_one_of_its_history(folder: int) -> None:
    """It is known at the next start, and no other history is taken into it."""
    files = FileSystem()
    note_source(files, folder, HISTORY, 0)
    assert source_of(files, folder) == HISTORY
    note_source(files, folder, HISTORY, 7)
    with pytest.raises(ConfigError, match="copy of the history"):
        note_source(files, folder, "b2" * 16, 7)


def test_a_base_that_was_a_copy_is_its_own_before_it_takes_stores(folder: int) -> None:
    """No power cut makes it a copy again, whose history lacks what it has stored since."""
    files = Noting()
    note_source(files, folder, HISTORY, 0)
    files.calls.clear()
    note_source(files, folder, None, 7)
    assert source_of(files, folder) is None
    assert files.calls == ["unlink", "sync"]
    with pytest.raises(ConfigError, match="records of its own"):
        note_source(files, folder, HISTORY, 7)
