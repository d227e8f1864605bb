"""The journal's writing end: appending, rotating, failing, stopping."""

import contextlib
import errno
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from perstack_stored.datadir.filesystem import Buffer, FileSystem
from perstack_stored.errors import JournalFailedError, StorageFullError
from perstack_stored.journal import entry_format
from perstack_stored.journal.chain import Chain
from perstack_stored.journal.clock import CLOCK_STEP_MS
from perstack_stored.journal.options import JournalOptions
from perstack_stored.journal.writer import GROWTH_BYTES, JournalWriter
from tests.helpers.datadir import (
    SESSION_A,
    Died,
    FailingFiles,
    JournalFolder,
    SimulatedDisk,
    append,
    sessions,
)


def append_until_it_fails(journal: JournalWriter, payloads: list[bytes], acknowledged: list[bytes]) -> None:
    """Append one by one, noting what was acknowledged."""
    for payload in payloads:
        journal.append([append(payload)])
        acknowledged.append(payload)


def test_positions_count_up_by_one_over_batches_and_restarts(folder: JournalFolder) -> None:
    """The first record has position 1, each further one the next, also after a clean stop."""
    journal = folder.open()
    assert journal.append([append(b"1", b"2"), append(b"3")]) == [1, 3]
    assert journal.append([append(b"4")]) == [4]
    journal.close()
    journal = folder.open()
    assert journal.recovered.kept == []
    assert journal.recovered.torn_bytes == 0
    assert journal.append([append(b"5")]) == [5]
    assert folder.payloads(journal.mark) == [b"1", b"2", b"3", b"4", b"5"]
    assert [s.position for s in folder.read(journal.mark)] == [1, 2, 3, 4, 5]


def test_a_segment_is_on_disk_before_the_next_one_begins(folder: JournalFolder) -> None:
    """Also what was written and not synced yet: no later sync would reach it."""
    disk = SimulatedDisk()
    journal = folder.open(disk, first_segment_bytes=4096, segment_bytes=4096)
    payloads: list[bytes] = []
    while len(folder.segments()) == 1:
        payloads.append(b"%d" % len(payloads) * 300)
        journal.write([append(payloads[-1])])
    disk.lose_data()
    assert folder.payloads(folder.open().mark) == payloads[:-1]


def test_a_clean_stop_goes_on_in_the_same_segment(folder: JournalFolder) -> None:
    """Many clean restarts need no new segment, and the mark is written again at its place."""
    journal = folder.open()
    journal.append([append(b"x")])
    store = journal.store
    for _ in range(5):
        journal.close()
        end = journal.mark.offset
        journal = folder.open()
        assert journal.store == store
        assert journal.mark.offset == end
    assert len(folder.segments()) == 1


def test_a_journal_that_was_never_written_to_restarts(folder: JournalFolder) -> None:
    """An empty journal survives clean and unclean stops, and begins with position 1."""
    folder.open().close()
    folder.open()
    journal = folder.open()
    assert journal.mark.position == 0
    assert journal.append([append(b"x")]) == [1]
    assert folder.payloads(journal.mark) == [b"x"]


def test_bytearrays_and_memoryviews_are_journalled_as_they_are(folder: JournalFolder) -> None:
    """A value that came in parts is a bytearray: its bytes reach the disk all the same."""
    journal = folder.open()
    item = entry_format.Record(3, 0, bytearray(b"abc"))
    view = entry_format.Record(3, 0, memoryview(b"xdefx")[1:4])
    journal.append([append()._replace(records=[item, view])])
    assert folder.payloads(journal.mark) == [b"abc", b"def"]


def test_more_buffers_than_one_call_takes_are_all_written(folder: JournalFolder) -> None:
    """A batch of thousands of entries exceeds the kernel's limit of buffers and is still whole."""
    journal = folder.open()
    expected = [b"%d" % i for i in range(3000)]
    journal.append([append(payload) for payload in expected])
    assert folder.payloads(journal.mark) == expected


def test_a_full_segment_is_followed_by_the_next(folder: JournalFolder) -> None:
    """Records go on in a new segment when one is full; nothing is lost between them."""
    journal = folder.open(segment_bytes=4096, first_segment_bytes=4096)
    expected = [b"%04d" % i * 50 for i in range(200)]
    for payload in expected:
        journal.append([append(payload)])
    assert len(folder.segments()) > 5
    assert folder.payloads(journal.mark) == expected
    journal.close()
    journal = folder.open()
    assert folder.payloads(journal.mark) == expected
    assert journal.append([append(b"x")]) == [201]


def test_segments_are_made_ahead_and_used(folder: JournalFolder) -> None:
    """The journal rotates into what the preparer's thread made, and leaves nothing behind at the stop."""
    journal = folder.open(segment_bytes=4096, first_segment_bytes=4096, ahead=True)
    count = 0
    deadline = time.monotonic() + 10
    while len(folder.segments()) < 4 and time.monotonic() < deadline:
        journal.append([append(b"x" * 500)])
        count += 1
    assert len(folder.segments()) >= 4
    journal.close()
    assert not list(folder.path.glob("*.part"))
    assert len(folder.payloads(folder.open().mark)) == count


def test_an_entry_larger_than_a_segment_is_stored_whole(folder: JournalFolder) -> None:
    """A value of several segments' size stands in one that grows for it, in both states of the preparer."""
    large = os.urandom(50_000)
    for ahead in (False, True):
        journal = folder.open(segment_bytes=4096, first_segment_bytes=4096, ahead=ahead)
        journal.append([append(b"small"), append(large), append(b"after")])
        journal.append([append(b"next")])
        assert folder.payloads(journal.mark)[-4:] == [b"small", large, b"after", b"next"]
        journal.close()
    assert folder.payloads(folder.open().mark) == [b"small", large, b"after", b"next"] * 2


def test_a_segment_grows_by_written_zeros(folder: JournalFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is only reserved syncs slower: after the batch that grew it, all that was reserved is written."""
    files = FailingFiles()
    journal = folder.open(files, segment_bytes=4096, first_segment_bytes=4096)
    files.errors = {"create": errno.ENOSPC}  # there is no next segment
    reserved: list[tuple[int, int]] = []
    written: list[tuple[int, int]] = []
    allocate, write = files.allocate, files.write

    def noted_allocate(fd: int, offset: int, length: int) -> None:
        reserved.append((offset, offset + length))
        allocate(fd, offset, length)

    def noted_write(fd: int, buffers: Sequence[bytes | bytearray | memoryview], offset: int) -> None:
        written.append((offset, offset + sum(map(len, buffers))))
        write(fd, buffers, offset)

    monkeypatch.setattr(files, "allocate", noted_allocate)
    monkeypatch.setattr(files, "write", noted_write)
    for size in (5000, GROWTH_BYTES * 2, 10, GROWTH_BYTES + 5):
        before = len(reserved)
        journal.append([append(bytes(size))])
        for start, end in reserved[before:]:
            assert end == journal._capacity == files.size(journal._fd)
            covered = start
            for first, last in sorted(written):
                covered = last if first <= covered < last else covered
            assert covered == end
    assert len(reserved) == 4
    assert [len(payload) for payload in folder.payloads(journal.mark)][-1] == GROWTH_BYTES + 5


@pytest.mark.parametrize(("back_ms", "kept"), [(5_000, True), (CLOCK_STEP_MS, True), (10**9, False)])
def test_time_waits_for_a_clock_that_is_set_back_a_little_and_follows_it_further(
    folder: JournalFolder, monkeypatch: pytest.MonkeyPatch, back_ms: int, *, kept: bool
) -> None:
    """Also over a restart: a clock that was far ahead was wrong, and later records have the right time."""
    first = now = 2_000_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: now * 1_000_000)
    journal = folder.open()
    journal.append([append(b"1")])
    now -= back_ms
    journal.append([append(b"2")])
    journal.close()
    journal = folder.open()
    journal.append([append(b"3")])
    del journal
    journal = folder.open()
    assert journal.clock.now_ms() == (first if kept else now)
    journal.append([append(b"4")])
    assert [s.time_ms - first for s in folder.read(journal.mark)] == [0] + [0 if kept else -back_ms] * 3


def test_bytes_between_counts_over_segments(folder: JournalFolder) -> None:
    """The distance from any place to the end is the bytes of the entries and headers between."""
    journal = folder.open(segment_bytes=4096, first_segment_bytes=4096)
    before = journal.mark
    assert journal.bytes_between(before) == 0
    for _ in range(40):
        journal.append([append(b"x" * 300)])
    chain = Chain(FileSystem(), folder.fd)
    ends = [chain.end_of(n) or journal.mark.offset for n in sorted(chain.headers)]
    assert len(ends) > 2
    assert journal.bytes_between(before) == sum(ends) - before.offset
    del journal
    journal = folder.open()
    assert journal.bytes_between(before) > sum(ends) - before.offset


@pytest.mark.parametrize("call", ["write", "sync_data"])
def test_a_failed_write_or_sync_ends_the_journal(folder: JournalFolder, call: str) -> None:
    """An error of the disk is never retried: the process must end, and a new start loses nothing."""
    files = FailingFiles()
    journal = folder.open(files)
    journal.append([append(b"good")])
    files.errors[call] = errno.EIO
    with pytest.raises(JournalFailedError):
        journal.append([append(b"bad")])
    files.errors.clear()
    reopened = folder.open()
    assert folder.payloads(reopened.mark) in ([b"good"], [b"good", b"bad"])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("ahead", [False, True])
def test_a_full_disk_refuses_and_goes_on_when_there_is_room(
    folder: JournalFolder, number: int, ahead: bool
) -> None:
    """Nothing of a refused batch is written, positions have no gap, and the same batch succeeds later."""
    files = FailingFiles()
    journal = folder.open(files, segment_bytes=4096, first_segment_bytes=4096, ahead=ahead)
    journal._preparer.stop()
    files.errors = {"allocate": number, "create": number}
    stored: list[bytes] = []
    with pytest.raises(StorageFullError):
        append_until_it_fails(journal, [b"%03d" % i * 30 for i in range(100)], stored)
    assert stored
    mark = journal.mark
    for _ in range(3):
        with pytest.raises(StorageFullError):
            journal.append([append(b"x" * 500), append(b"y")])
    assert journal.mark == mark
    journal.append([append(b"fits")]) if journal._offset + 80 <= journal._capacity else None
    files.errors = {}
    (first,) = journal.append([append(b"x" * 500)])
    assert first == journal.mark.position
    assert [p for p in folder.payloads(journal.mark) if p not in {b"fits", b"x" * 500}] == stored
    expected = folder.payloads(journal.mark)
    journal.close()
    assert folder.payloads(folder.open().mark) == expected


def test_a_full_disk_at_the_start_says_so(folder: JournalFolder) -> None:
    """Without room for a segment the start fails with a storage error, and the next start works."""
    with pytest.raises(StorageFullError):
        folder.open(FailingFiles(write=errno.ENOSPC))
    assert folder.open().append([append(b"x")]) == [1]


def test_a_full_disk_while_a_segment_is_begun_costs_nothing(folder: JournalFolder) -> None:
    """If the head of a prepared segment finds no room, the old one goes on, and a later rotation works."""
    files = FailingFiles()
    journal = folder.open(files, segment_bytes=4096, first_segment_bytes=4096)
    stored = [b"%03d" % i * 100 for i in range(10)]
    for payload in stored:
        journal.append([append(payload)])
    files.errors = {"rename": errno.ENOSPC}
    with pytest.raises(StorageFullError):
        append_until_it_fails(journal, [b"z" * 300] * 9, stored)
    files.errors = {}
    journal.append([append(b"y" * 300)])
    assert folder.payloads(journal.mark) == [*stored, b"y" * 300]
    assert len(folder.segments()) == 2


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_folder_that_can_not_be_synced_ends_the_journal(folder: JournalFolder, number: int) -> None:
    """Once the next segment has its name, going on in the old one would lose what is written there."""
    files = FailingFiles()
    journal = folder.open(files, segment_bytes=4096, first_segment_bytes=4096)
    files.errors = {"sync": number}
    acknowledged: list[bytes] = []
    with pytest.raises(JournalFailedError):
        append_until_it_fails(journal, [b"%03d" % i * 100 for i in range(30)], acknowledged)
    assert folder.payloads(folder.open().mark) == acknowledged


def test_rotation_that_fails_for_another_reason_ends_the_journal(folder: JournalFolder) -> None:
    """An input/output error while room is made is not taken for a full disk."""
    files = FailingFiles()
    journal = folder.open(files, segment_bytes=4096, first_segment_bytes=4096)
    files.errors = {"create": errno.EIO}
    with pytest.raises(JournalFailedError):
        append_until_it_fails(journal, [b"x" * 300] * 30, [])


def test_a_stop_while_the_disk_is_full_loses_nothing(folder: JournalFolder) -> None:
    """The mark of a clean stop may find no room after a full segment; the records are safe all the same."""

    class Bounded(FileSystem):
        """A disk that takes what overwrites reserved space, and no byte more."""

        def write(self, fd: int, buffers: list[Buffer], offset: int) -> None:  # type: ignore[override]
            if full and offset + sum(map(len, buffers)) > self.size(fd):
                raise OSError(errno.ENOSPC, "no space")
            super().write(fd, buffers, offset)

    full = False
    journal = folder.open(Bounded(), first_segment_bytes=4096)
    room = 4096 - journal.mark.offset - entry_format.ENTRY_HEADER_BYTES - entry_format.RECORD_BYTES
    journal.append([append(b"x" * room)])
    assert journal.mark.offset == 4096
    full = True
    with contextlib.suppress(JournalFailedError):
        journal.close()
    full = False
    assert folder.payloads(folder.open().mark) == [b"x" * room]


def test_growth_is_reserved_before_it_is_written(folder: JournalFolder) -> None:
    """Room for a batch is there before its first byte is: a full disk is found out in time."""
    journal = folder.open(first_segment_bytes=4096, segment_bytes=4096)
    journal._preparer.take()
    journal.append([append(b"x" * 10_000)])
    assert max(path.stat().st_size for path in folder.segments()) >= GROWTH_BYTES


def test_a_full_disk_at_each_try_leaks_no_descriptor(folder: JournalFolder) -> None:
    """A rotation that fails again and again while the disk is full does not use up the descriptors."""
    files = FailingFiles()
    journal = folder.open(files, segment_bytes=4096, first_segment_bytes=4096)
    journal.append([append(b"x" * 3000)])
    files.errors = {"rename": errno.ENOSPC}
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        with pytest.raises(StorageFullError):
            journal.append([append(b"x" * 3000)])
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_a_process_that_dies_writes_nothing_more(tmp_path: Path) -> None:
    """The simulated disk of these tests stops at its call, and stays stopped."""
    folder = JournalFolder(tmp_path / "j")
    disk = SimulatedDisk(dies_at=3)
    with pytest.raises(Died):
        JournalWriter(disk, folder.fd, sessions(), JournalOptions(4096, 4096, ahead=False))
    with pytest.raises(Died):
        disk.list_dir(folder.fd)


def test_a_session_without_number_is_not_remembered(folder: JournalFolder) -> None:
    """Records of no session leave no session behind after a restart."""
    journal = folder.open()
    journal.append([append(b"x"), append(b"y", session=SESSION_A, seq=1)])
    folder.open()
    assert len(folder.sessions) == 1
    assert folder.sessions.find(SESSION_A) is not None
