"""What is synced when: own stores before their answers, those of others soon, and before a read sees them."""

import json
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from perstack_stored.config.settings import Settings
from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.journal.options import History, JournalOptions
from perstack_stored.journal.replicated_sessions import ReplicatedSessions
from perstack_stored.journal.writer import JournalWriter
from perstack_stored.model.kinds import Kind
from perstack_stored.observe.counters import LoopCounters
from perstack_stored.protocol.frames import decode_header
from perstack_stored.replication import group_commit
from perstack_stored.replication import message as log_message
from perstack_stored.replication.apply import LogCommitter
from perstack_stored.replication.group_commit import ReplicatedGroupCommit
from perstack_stored.replication.message import LoggedRequest, MessageType
from perstack_stored.replication.stream import LoggedMessage
from perstack_stored.store.group_commit import HeldRead, LoopContext
from perstack_stored.store.large_values import LargeValueQueue
from perstack_stored.store.requests import open_request
from tests.helpers.datadir import JournalFolder, dumps, event

PEER = (b"peer", False)


class Log:
    """A log of which all messages come back at once."""

    connected, fault = True, ""

    def __init__(self) -> None:
        self.last = 0
        self._messages: deque[LoggedMessage] = deque()

    def publish(self, _number: int, body: bytes) -> None:
        self.last += 1
        self._messages.append(LoggedMessage(self.last, 1_796_000_000_000, body))

    def take_outcomes(self) -> list[tuple[int, int | None]]:
        return []

    def take(self, _bytes_max: int) -> list[LoggedMessage]:
        taken = list(self._messages)
        self._messages.clear()
        return taken

    def stop(self) -> None:
        """Nothing runs."""


class Daemon:
    """A daemon's group commit, with all that the loop has around it."""

    def __init__(self, path: Path) -> None:
        self.log = Log()
        sessions = ReplicatedSessions(sessions_max=9, remembered_records_max=9)
        options = JournalOptions(1 << 20, 1 << 20, ahead=False, history=History(b"s" * 16, b"l" * 16))
        self.journal = JournalWriter(FileSystem(), JournalFolder(path).fd, sessions, options)
        self.answered: list[tuple[int, bool]] = []  # id, and whether all was synced then
        self.woken = threading.Event()
        context = LoopContext(LoopCounters(), Settings(), self, self.woken.set)
        queue = LargeValueQueue(lambda: None, lambda _: "")
        committer = LogCommitter(self.journal, sessions)
        self.group = ReplicatedGroupCommit(committer, queue, context, self.log, 1 << 20)
        self._others = 0

    @property
    def is_synced(self) -> bool:
        """Whether all that is written is on the disk."""
        return self.journal.mark == self.journal.written

    def send(self, _envelope: object, frame: bytes) -> None:
        """Take an answer."""
        self.answered.append((json.loads(frame.split(b"\n")[0])["id"], self.is_synced))

    def flush(self) -> None:
        """Nothing waits."""

    def store(self, id: int) -> None:
        """Admit a store of a client."""
        header = decode_header(b'{"v":1,"op":"storeEvent","id":%d}' % id)
        self.group.admit(open_request(PEER, header, dumps(event(id=str(id))), items_max=9))
        self.group.note_arrivals(0.0)

    def others_store(self) -> None:
        """Let another daemon store something."""
        self._others += 1
        item = int(Kind.EVENT), dumps(event(id=f"other{self._others}"))
        request = LoggedRequest(b"o" * 16, self._others, 0, False, [item])
        self.log.publish(0, log_message.encode(MessageType.STORES, b"other" + bytes(11), 1, [request]))

    def read(self) -> list[int]:
        """Begin a strict read; returns a list that gets the synced position at its start."""
        started: list[int] = []
        mark = self.journal
        self.group.hold(HeldRead(PEER, 1, "op", "", None, lambda: started.append(mark.mark.position)))
        return started

    def turn(self) -> None:
        """A turn of the loop."""
        while self.group.commit_batch():
            pass

    def collect(self) -> None:
        """Wait for the sync of the thread."""
        assert self.woken.wait(60)
        self.woken.clear()
        assert self.group.collect_sync()
        self.group.sync_written()


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    monkeypatch.setattr(group_commit, "_LATE_SYNC_SECONDS", 3600.0)
    made = Daemon(tmp_path / "journal")
    yield made
    made.group.complete()
    made.group.stop()
    made.journal.close()


def test_what_others_store_is_synced_once_within_milliseconds(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        daemon.others_store()
        daemon.turn()
        assert daemon.group.syncs_late
        assert not daemon.is_synced
        assert not daemon.journal.syncing
    later = time.monotonic() + 3601
    monkeypatch.setattr(time, "monotonic", lambda: later)
    daemon.turn()
    daemon.collect()
    assert daemon.is_synced
    assert not daemon.group.syncs_late
    assert daemon.journal.syncs == 1


def test_much_of_others_is_synced_at_once(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "_LATE_BYTES_MAX", 100)
    daemon.others_store()
    daemon.turn()
    daemon.collect()
    assert daemon.is_synced


def test_what_comes_while_a_sync_runs_is_synced_after_it(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if its own time is over before the sync has ended."""
    monkeypatch.setattr(group_commit, "_LATE_SYNC_SECONDS", 0.0)
    go_on = threading.Event()
    sync = FileSystem.sync_data
    monkeypatch.setattr(FileSystem, "sync_data", lambda files, fd: go_on.wait(60) and sync(files, fd))
    daemon.others_store()
    daemon.turn()
    assert daemon.journal.syncing
    daemon.others_store()
    daemon.turn()
    go_on.set()
    daemon.collect()
    daemon.collect()
    assert daemon.is_synced


def test_an_own_store_is_answered_when_it_is_synced_with_what_others_stored(daemon: Daemon) -> None:
    daemon.others_store()
    daemon.turn()
    daemon.store(7)
    daemon.turn()
    assert daemon.answered == [(7, True)]
    assert not daemon.group.syncs_late


def test_a_strict_read_waits_for_no_sync_if_all_records_before_it_are_synced(daemon: Daemon) -> None:
    daemon.store(1)
    daemon.turn()
    syncs = daemon.journal.syncs
    started = daemon.read()
    assert not started
    daemon.turn()
    daemon.turn()
    assert started == [1]
    assert daemon.journal.syncs == syncs


def test_a_strict_read_sees_what_others_stored_before_it(daemon: Daemon) -> None:
    daemon.others_store()
    daemon.turn()
    started = daemon.read()
    daemon.others_store()
    daemon.turn()
    daemon.turn()
    assert started == [2]
