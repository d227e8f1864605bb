"""The index's process: what it does again, what it waits for, and what the server hears of it last."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from perstack_stored.index import disk_reserve as reserve
from perstack_stored.index.file_watch import FileWatch
from perstack_stored.journal.reader import LogPosition
from perstack_stored.model.kinds import Kind
from perstack_stored.process.socket_pair import pair
from perstack_stored.projection.channel import Report, SupervisorChannel, WorkerChannel
from perstack_stored.projection.index_projection import IndexProjection
from tests.helpers.datadir import Base, event


def test_entries_that_were_taken_up_before_a_fault_are_not_taken_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is closed in the middle of a slice: what came after the transaction failed, not itself."""
    base = Base(tmp_path / "base")
    base.index.close()
    projection = IndexProjection(base.index_path, base.folder.reader(), base.journal.store)
    monkeypatch.setattr(base, "index", SimpleNamespace(place=projection._index.place, apply=lambda _: None))
    base.store((Kind.EVENT, event()))
    entries = base.new_entries()
    look, looks = FileWatch._look, 0

    def closed(watch: FileWatch) -> dict[str, tuple[int, ...]]:
        nonlocal looks
        looks += 1
        if looks > 1:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return look(watch)

    with monkeypatch.context() as patched:
        patched.setattr(FileWatch, "_look", closed)
        with pytest.raises(PermissionError):
            projection.apply(entries)
    assert projection._index.place == base.journal.mark
    projection.apply(entries)
    projection.idle(0)
    assert [record["position"] for record in base.ask("readAll")[0]] == [1]
    projection.close()


def test_an_index_whose_place_is_void_continues_at_the_new_place_of_its_records(tmp_path: Path) -> None:
    """Recovery writes again what it can't vouch for, in a new segment; nothing is indexed twice."""
    base = Base(tmp_path / "base")
    for n in range(3):
        base.store((Kind.EVENT, event(id=f"{n}")))
    base.follow()
    before = base.index.place
    base.index.close()
    mark = base.folder.open().mark  # nobody closed it
    reader = base.folder.reader()
    end = reader.chain.end_of(before.segment)
    assert end is not None
    assert end < before.offset
    projection = IndexProjection(base.index_path, reader, base.journal.store)
    place = projection.start(reader, mark)
    assert place.position == before.position
    assert list(reader.entries(place, mark)) == []
    assert not projection.rebuilt
    projection.close()


def test_the_reason_of_an_end_arrives_though_something_was_left_unread() -> None:
    """The kernel reports that first, and the last report after it."""
    ours, theirs = pair()
    server, follower = SupervisorChannel(ours), WorkerChannel(theirs)
    server.send(LogPosition(1, 1, 1))
    follower.report(Report(LogPosition(0, 0, 0), 0, idle=False, fault="why"))
    theirs.close()
    report, gone = server.receive()
    assert gone
    assert report is not None
    assert report.fault == "why"
    server.close()


def test_a_worker_whose_server_was_killed_finishes_what_it_was_sent() -> None:
    """A report that was left unread is no fault of the worker."""
    ours, theirs = pair()
    server, worker = SupervisorChannel(ours), WorkerChannel(theirs)
    worker.report(Report(LogPosition(0, 0, 0), 0, idle=False, fault=""))
    server.send(LogPosition(9, 1, 64))
    server.close()
    worker.wait(10)
    assert (worker.mark, worker.finishing) == (LogPosition(9, 1, 64), True)
    theirs.close()


def test_each_fact_for_a_worker_arrives_as_what_it_is() -> None:
    """Also where all came before it looked."""
    ours, theirs = pair()
    server, worker = SupervisorChannel(ours), WorkerChannel(theirs)
    server.send_aged(1_800_000_000_000)
    server.send_erased(7)
    server.send(LogPosition(9, 1, 64))
    worker.wait(10)
    assert (worker.aged_ms, worker.erased, worker.mark) == (1_800_000_000_000, 7, LogPosition(9, 1, 64))
    server.send_aged(1_800_000_000_999)  # ages are days
    server.send_aged(1_700_000_000_000)  # a step back counts
    worker.wait(10)
    assert worker.aged_ms == 1_700_000_000_000
    server.close()
    theirs.close()


@pytest.mark.parametrize(("error", "again"), [(errno.EMFILE, True), (errno.EOPNOTSUPP, False)])
def test_room_that_could_not_be_kept_is_tried_again_unless_it_never_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int, *, again: bool
) -> None:
    """A fault that passes must not leave the index without its room for ever."""
    tries = 0

    def allocate(_self: reserve.DiskReserve) -> int:
        nonlocal tries
        tries += 1
        return error

    monkeypatch.setattr(reserve, "_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(reserve.DiskReserve, "_allocate", allocate)
    kept = reserve.DiskReserve(str(tmp_path / "index.sqlite"))
    for _ in range(3):
        kept.keep()
    assert tries == (3 if again else 1)
    assert not kept.out_of_space
