"""Group commit: which stores wait for a sync that runs, and that each is answered after its own sync."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from perstack_stored.config.settings import Settings
from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.journal.last_writers import Expectation
from perstack_stored.observe.counters import LoopCounters
from perstack_stored.protocol.frames import decode_header
from perstack_stored.store import group_commit
from perstack_stored.store.commit import Committer
from perstack_stored.store.group_commit import GroupCommit, LoopContext
from perstack_stored.store.large_values import LargeValueQueue
from perstack_stored.store.requests import open_request
from tests.helpers.datadir import JournalFolder, append, dumps, event

PEER = (b"peer", False)
MANY = group_commit._GATHERED_REQUESTS_MAX


class SlowDisk(FileSystem):
    """Syncs of data wait until the test lets them go on."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()
        self.go_on.set()

    def sync_data(self, fd: int) -> None:
        assert self.go_on.wait(60)
        super().sync_data(fd)


class Stores:
    """A group commit with all that the loop has around it."""

    def __init__(self, folder: JournalFolder) -> None:
        self.disk = SlowDisk()
        self.journal = folder.open(self.disk)
        self.answered: list[int] = []
        self.woken = threading.Event()
        context = LoopContext(LoopCounters(), Settings(), self, self.woken.set)
        queue = LargeValueQueue(lambda: None, lambda _: "")
        self.group = GroupCommit(Committer(self.journal, folder.sessions), queue, context)
        self._sent = 0

    def send(self, _envelope: object, frame: bytes) -> None:
        """Take an answer."""
        self.answered.append(json.loads(frame.split(b"\n")[0])["id"])

    def flush(self) -> None:
        """Nothing waits."""

    def store(self, count: int) -> bool:
        """Admit some stores, and commit what may be committed; whether there was anything."""
        for _ in range(count):
            self._sent += 1
            header = decode_header(b'{"v":1,"op":"storeEvent","id":%d}' % self._sent)
            self.group.admit(open_request(PEER, header, dumps(event(id=str(self._sent))), items_max=9))
        self.group.note_arrivals(0.0)
        return self.group.commit_batch()

    def begin_sync(self) -> None:
        """Let a sync begin in its thread, and not end."""
        self.disk.go_on.clear()
        assert self.store(MANY)
        assert self.journal.syncing

    def end_sync(self) -> None:
        """Let the sync end."""
        self.disk.go_on.set()
        assert self.woken.wait(60)
        self.woken.clear()
        assert self.group.collect_sync()


@pytest.fixture
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stores]:
    monkeypatch.setattr(group_commit, "_FEW_REQUESTS", 1)
    monkeypatch.setattr(group_commit, "_INLINE_SECONDS_MAX", -1.0)
    made = Stores(JournalFolder(tmp_path / "journal"))
    yield made
    made.disk.go_on.set()
    made.group.complete()
    made.group.stop()


def test_few_stores_wait_for_the_sync_that_runs_and_many_do_not(stores: Stores) -> None:
    """A write of a few costs as much as one of many; what waits is written as soon as the sync has ended."""
    stores.begin_sync()
    assert not stores.store(MANY - 1)
    assert len(stores.group) == MANY - 1
    assert stores.store(1)
    assert not stores.store(1)
    stores.end_sync()
    assert stores.answered == list(range(1, MANY + 1))
    assert stores.group.commit_batch()
    stores.group.complete()
    assert stores.answered == list(range(1, 2 * MANY + 2))


def test_what_was_written_during_a_sync_is_answered_by_the_next_one(stores: Stores) -> None:
    """It comes by itself, without another store."""
    stores.begin_sync()
    assert stores.store(MANY)
    stores.end_sync()
    assert len(stores.answered) == MANY
    stores.group.sync_written()
    assert stores.journal.syncing
    stores.end_sync()
    assert len(stores.answered) == 2 * MANY


@pytest.mark.parametrize("kind", ["deleted", "copied"])
def test_what_nobody_waits_for_is_synced_by_itself(stores: Stores, kind: str) -> None:
    """Deletions of the daemon's own, and records of a copy: no store has to come for their sync."""
    stored: list[int | None] = []
    if kind == "deleted":
        stores.group.store_deletion(dumps({"jobId": "j"}), Expectation(("j", ""), 0), stored.append)
        assert stored == [1]
    else:
        stores.group.store_copied([append(dumps(event()))], b"")
    assert stores.journal.syncing
    stores.end_sync()
    assert stores.journal.mark.position == 1


def test_at_a_stop_no_store_waits_for_others(stores: Stores) -> None:
    """What arrived before is written, also while a sync runs."""
    stores.begin_sync()
    assert not stores.store(1)
    stores.group.stop_gathering()
    assert stores.group.commit_batch()
    assert len(stores.group) == 0
