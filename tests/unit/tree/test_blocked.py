"""Which record is to blame where a worker dies, and the list of those that are passed over."""

import os
from pathlib import Path

import pytest

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.process.worker_status import WorkerStatus
from perstack_stored.tree import blocked
from perstack_stored.tree.blocked import BlockedList, BlockedRecord, Deaths
from tests.helpers.datadir import Died, SimulatedDisk

STORE = bytes(16)
RECORDS = (BlockedRecord(3, "job", "jobs/j/job.json"), BlockedRecord(7))


def at(position: int, kind: str = "event") -> WorkerStatus:
    status = WorkerStatus()
    status.at(position)
    if position:
        status.describe(kind, "file")
    return status


def test_a_record_is_to_blame_when_a_worker_died_twice_at_it() -> None:
    """One death may have any cause; deaths at other records in between don't matter."""
    deaths = Deaths()
    assert deaths.note(at(5)) is None
    assert deaths.careful_until == 5
    assert deaths.note(at(9)) is None
    assert deaths.note(at(5)) == BlockedRecord(5, "event", "file")
    assert deaths.note(at(9)) == BlockedRecord(9, "event", "file")


def test_a_worker_that_dies_at_no_record_blames_none() -> None:
    """As while it is idle; while it reads a piece of the journal, the next one reads it in small steps."""
    deaths = Deaths()
    for _ in range(5):
        assert deaths.note(at(0)) is None
    assert deaths.careful_until == 0
    status = WorkerStatus()
    status.read(100)
    for _ in range(5):
        assert deaths.note(status) is None
    assert deaths.careful_until > 100
    status.has_read()
    assert deaths.note(status) is None


def test_a_worker_that_has_not_named_its_record_blames_it_by_position() -> None:
    """What stands there of a record before is not taken for its name."""
    deaths = Deaths()
    status = at(5)
    status.at(6)
    deaths.note(status)
    assert deaths.note(status) == BlockedRecord(6)


@pytest.fixture
def folder(tmp_path: Path) -> int:
    return os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)


def test_the_list_is_of_one_journal_and_of_one_version(folder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another journal has other records; another version tries them again."""
    files = FileSystem()
    assert blocked.load(files, folder, STORE) == BlockedList()
    blocked.save(files, folder, STORE, RECORDS[::-1])
    assert blocked.load(files, folder, STORE) == BlockedList(RECORDS)
    assert blocked.load(files, folder, b"x" * 16) == BlockedList()
    monkeypatch.setattr(blocked, "__version__", "99.0")
    assert blocked.load(files, folder, STORE) == BlockedList(RECORDS, is_current=False)


def test_the_list_is_whole_after_a_crash_at_any_call(tmp_path: Path) -> None:
    """Old or new, and the new one once it was said to be there."""
    for calls in range(20):
        place = tmp_path / str(calls)
        place.mkdir()
        fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        blocked.save(FileSystem(), fd, STORE, RECORDS[:1])
        disk = SimulatedDisk(calls, dies_at=calls)
        allowed = [RECORDS[:1], RECORDS]
        try:
            blocked.save(disk, fd, STORE, RECORDS)
            allowed = [RECORDS]
        except Died:
            pass
        disk.cut_power()
        assert blocked.load(FileSystem(), fd, STORE).records in allowed
        os.close(fd)
