"""`getEvent`: one record by its position."""

from pathlib import Path

import pytest

from perstack_storage.protocol import ErrorCode
from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.errors import Refusal
from perstack_stored.journal.reader import JournalReader
from perstack_stored.model.kinds import Kind
from tests.helpers.datadir import SAMPLES, Base, event, setting


@pytest.fixture
def base(tmp_path: Path) -> Base:
    return Base(tmp_path / "base")


def test_a_record_of_any_kind_comes_as_from_read_all(base: Base) -> None:
    """Also from the middle of an entry, and from one of many segments."""
    base.store(*SAMPLES.items())
    for i in range(300):
        base.store(*((Kind.EVENT, event(id=f"e{i}-{j}", timestamp=i, pad="x" * 300)) for j in range(3)))
    assert len(base.folder.segments()) > 2
    records, _ = base.ask("readAll")
    assert len(records) == 904
    for record in records:
        assert base.ask("getEvent", position=record["position"]) == (record, {})


def test_a_position_without_a_record_is_not_found(base: Base) -> None:
    """Beyond the end, of a repeat, and of a lost record."""
    base.store((Kind.EVENT, event()), (Kind.EVENT, event()), (Kind.GAP, b""), (Kind.EVENT, event(id="e2")))
    assert base.ask("getEvent", position=4)[0]["value"] == event(id="e2")
    for position in (0, 2, 3, 5, 2**53 - 1):
        with pytest.raises(Refusal) as caught:
            base.ask("getEvent", position=position)
        assert caught.value.code == ErrorCode.NOT_FOUND


class CountingFiles(FileSystem):
    """Adds up what is read."""

    total = 0

    def read(self, fd: int, length: int, offset: int) -> bytes:
        self.total += length
        return super().read(fd, length, offset)


def test_a_record_costs_the_same_wherever_it_is(base: Base) -> None:
    """The journal is read from a place shortly before the record."""
    for i in range(200):
        base.store((Kind.RUN_SETTING, setting(runId=f"r{i}", pad="x" * 4000)))
    files = CountingFiles()
    base.reader = JournalReader(files, base.folder.fd)
    base.ask("getEvent", position=199)
    assert 0 < files.total < 400_000
