"""Named cursors: what is refused, what the journal holds of them, and what a crash leaves of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from perstack_stored.config.settings import Settings
from perstack_stored.errors import Refusal
from perstack_stored.journal import cursors
from perstack_stored.journal.cursors import Cursor, Cursors
from perstack_stored.observe.counters import LoopCounters
from perstack_stored.protocol.frames import decode_header
from perstack_stored.store import cursor_requests
from perstack_stored.store.commit import Committer
from perstack_stored.store.cursor_requests import CursorQueue, CursorRequest
from perstack_stored.store.group_commit import GroupCommit, LoopContext
from perstack_stored.store.large_values import LargeValueQueue
from perstack_stored.store.requests import open_request
from tests.helpers.datadir import Died, FailingFiles, JournalFolder, SimulatedDisk, append, dumps, event

PEER = (b"peer", False)
_ENOSPC = 28


@pytest.fixture
def folder(tmp_path: Path) -> JournalFolder:
    return JournalFolder(tmp_path / "journal")


def sets(name: str, position: int, *, force: bool = False) -> CursorRequest:
    return CursorRequest(PEER, 1, "setCursor", name, position, force)


def deletes(name: str) -> CursorRequest:
    return CursorRequest(PEER, 1, "deleteCursor", name, None)


def send(committer: Committer, *requests: CursorRequest) -> list[Any]:
    """Commit requests as one batch; the code of each error, or nothing."""
    answers = [json.loads(frame.split(b"\n")[0]) for _, frame in committer.commit([], requests)]
    committer.journal.sync()
    return [answer.get("error", {}).get("code") for answer in answers]


def test_a_cursor_goes_forward_only_unless_forced(folder: JournalFolder) -> None:
    """Within a batch too; the same position again is no error, as a retry sends it."""
    committer = Committer(folder.open(), folder.sessions)
    state = folder.sessions.cursors
    assert send(committer, sets("a", 5), sets("a", 5), sets("a", 7)) == [None] * 3
    assert send(committer, sets("a", 6)) == ["CURSOR_BACK"]
    assert send(committer, sets("b", 9), sets("b", 8)) == ["CURSOR_BACK", None]
    assert [(name, cursor.position) for name, cursor in state.all()] == [("a", 7), ("b", 9)]
    assert send(committer, sets("a", 2, force=True), deletes("b"), deletes("nobody")) == [None] * 3
    assert [(name, cursor.position) for name, cursor in state.all()] == [("a", 2)]
    assert send(committer, deletes("a"), sets("a", 1)) == [None] * 2


def test_there_is_a_bound_to_their_number(folder: JournalFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that goes makes room, in the same batch too."""
    monkeypatch.setattr(cursor_requests, "CURSORS_MAX", 3)
    committer = Committer(folder.open(), folder.sessions)
    assert send(committer, *(sets(f"c{n}", n) for n in range(4))) == ["TOO_LARGE", None, None, None]
    assert send(committer, sets("c0", 9)) == [None]
    assert send(committer, deletes("c1"), sets("c9", 1)) == [None] * 2
    assert len(folder.sessions.cursors) == 3


def test_a_client_makes_its_share_of_the_cursors(
    folder: JournalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half alone, so that there is room for others; what it deletes counts no more, nor what failed."""
    monkeypatch.setattr(cursor_requests, "CURSORS_MAX", 12)
    committer = Committer(folder.open(), folder.sessions)

    def made(client: str, *names: str) -> list[Any]:
        return send(committer, *(sets(name, 1)._replace(client=client) for name in names))

    assert made("a", *"12345678") == ["TOO_LARGE", "TOO_LARGE", *[None] * 6]
    assert made("a", "1", "2") == [None] * 2
    assert made("a", "7") == ["TOO_LARGE"]
    assert made("b", *"xyzuv") == ["TOO_LARGE", *[None] * 4]
    assert send(committer, deletes("1"), deletes("2"), deletes("3")) == [None] * 3
    assert made("a", "7", "8") == ["TOO_LARGE", None]
    # After a restart nobody knows whose they are: they only take room.
    again = Committer(folder.open(), folder.sessions)
    assert len(folder.sessions.cursors) == 8
    assert send(again, *(sets(name, 1)._replace(client="a") for name in "mnop")) == [
        "TOO_LARGE", "TOO_LARGE", None, None
    ]  # fmt: skip


def test_requests_that_wait_have_a_bound_and_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cursor_requests, "REQUESTS_MAX", 4)
    queue = CursorQueue()
    mine, other = sets("a", 1)._replace(client="mine"), sets("a", 1)._replace(client="other")
    queue.admit(mine)
    queue.admit(mine)
    with pytest.raises(Refusal, match="too many"):
        queue.admit(mine)
    queue.admit(other)
    assert queue.take() == [mine, mine, other]
    queue.admit(mine)
    assert len(queue) == 1


def test_cursors_are_kept_over_restarts_and_segments(folder: JournalFolder) -> None:
    """They take no position, and a start finds them by the last segment alone."""
    journal = folder.open(segment_bytes=1 << 16, first_segment_bytes=1 << 14)
    committer = Committer(journal, folder.sessions)
    journal.append([append(b"x")])
    send(committer, sets("kept", 1), sets("gone", 1), sets("ünïcode", 0))
    for n in range(40):
        journal.append([append(b"x" * 5000)])
        send(committer, sets("kept", n))
    send(committer, deletes("gone"))
    before = folder.sessions.cursors.all()
    assert [name for name, _ in before] == ["kept", "ünïcode"]
    assert journal.mark.position == 41
    assert len(folder.segments()) > 2
    assert len(folder.payloads(journal.mark)) == 41
    for clean in (False, True):
        if clean:
            journal.close()
        for path in folder.segments()[:-1]:
            path.write_bytes(path.read_bytes()[:64])  # the header alone says where it ended
        journal = folder.open(segment_bytes=1 << 16)
        assert folder.sessions.cursors.all() == before
        assert journal.mark.position == 41


def test_a_cursor_after_the_end_is_put_back_to_it(folder: JournalFolder) -> None:
    """As where the end of the journal was lost, and a repair goes on without it."""
    state = Cursors()
    state.apply({"a": Cursor(9, 1), "b": Cursor(3, 1)})
    state.bound(5)
    assert [(name, cursor.position) for name, cursor in state.all()] == [("a", 5), ("b", 3)]
    journal = folder.open()
    journal.append([append(b"x")])
    journal.write([], cursors.encode({"a": Cursor(99, 1)}))
    journal.sync()
    folder.open()
    assert folder.sessions.cursors.get("a") == Cursor(1, 1)


def test_a_full_disk_changes_no_cursor(folder: JournalFolder) -> None:
    files = FailingFiles()
    committer = Committer(folder.open(files, segment_bytes=4096, first_segment_bytes=4096), folder.sessions)
    assert send(committer, sets("a", 1)) == [None]
    files.errors.update(allocate=_ENOSPC, create=_ENOSPC, write=_ENOSPC)
    journal = committer.journal
    journal._capacity = journal._offset
    assert send(committer, sets("a", 2), sets("b", 1)) == ["STORAGE_FULL"] * 2
    assert [(name, cursor.position) for name, cursor in folder.sessions.cursors.all()] == [("a", 1)]


def test_a_cursor_waits_for_its_own_sync(folder: JournalFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no position: that of the records before it, which are synced, does not tell that it is."""
    journal = folder.open()
    sink = Sink()
    queue = LargeValueQueue(lambda: None, lambda _: "")
    context = LoopContext(LoopCounters(), Settings(), sink, lambda: None)
    group = GroupCommit(Committer(journal, folder.sessions), queue, context)
    monkeypatch.setattr(group, "_syncs_inline", lambda _requests: False)
    monkeypatch.setattr(journal, "sync_soon", lambda _notify: None)
    header = decode_header(b'{"v":1,"op":"storeEvent","id":1}')
    group.admit(open_request(PEER, header, dumps(event()), items_max=9))
    group.note_arrivals(0.0)
    assert group.commit_batch()
    written = journal.written
    group.admit_cursor(sets("a", 0)._replace(id=2))
    assert group.commit_batch()
    journal._note_synced(written, 0.0)
    group.answer_synced()
    assert sink.ids == [1]
    journal.sync()
    group.answer_synced()
    assert sink.ids == [1, 2]
    group.stop()


class Sink:
    """Takes the answers."""

    def __init__(self) -> None:
        self.ids: list[int] = []

    def send(self, _envelope: object, frame: bytes) -> None:
        self.ids.append(json.loads(frame.split(b"\n")[0])["id"])

    def flush(self) -> None:
        """Nothing waits."""


@pytest.mark.parametrize("seed", range(4))
def test_no_crash_takes_back_a_cursor_that_was_acknowledged(tmp_path: Path, seed: int) -> None:
    """Killed before any call, also with a power cut: it is the last one acknowledged, or a later one."""
    dies_at = 3
    while True:
        dies_at += 5
        folder = JournalFolder(tmp_path / f"j{dies_at}")
        disk = SimulatedDisk(seed, dies_at=dies_at)
        acknowledged = sent = 0
        try:
            journal = folder.open(disk, segment_bytes=1 << 14, first_segment_bytes=4096, ahead=False)
            committer = Committer(journal, folder.sessions)
            for sent in range(1, 30):
                if sent % 3 == 0:
                    journal.append([append(b"x" * 700)])
                assert send(committer, sets("c", sent)) == [None]
                acknowledged = sent
            finished = True
        except Died:
            finished = False
        if seed % 2:
            disk.cut_power()
        state = _restored(folder)
        assert acknowledged <= state <= sent
        if finished:
            return


def _restored(folder: JournalFolder) -> int:
    """The cursor after a start; positions of this test are no records, so none is put back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Cursors, "bound", lambda _self, _position: None)
        folder.open(segment_bytes=1 << 14, first_segment_bytes=4096, ahead=False)
    cursor = folder.sessions.cursors.get("c")
    return 0 if cursor is None else cursor.position
