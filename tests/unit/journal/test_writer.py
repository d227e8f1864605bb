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
from perstack_stored.journal.preallocation import (
    NEXT_NAME,
    SPARE_NAME,
    Prepared,
    SegmentPreallocator,
    write_zeros,
)
from perstack_stored.journal.writer import GROWTH_BYTES, JournalOptions, JournalWriter
from perstack_stored.keeper.pack import Options, Pace, pack_segment
from tests.helpers.datadir import (
    SESSION_A,
    Died,
    FailingFiles,
    JournalFolder,
    SimulatedDisk,
    append,
    sessions,
)


@pytest.fixture
def folder(tmp_path: Path) -> JournalFolder:
    return JournalFolder(tmp_path / "journal")


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


# --- the preparer ----------------------------------------------------------------------------------


def preparer(folder: JournalFolder, files: FileSystem, *, ahead: bool = True) -> SegmentPreallocator:
    return SegmentPreallocator(files, folder.fd, 4096, 0o640, ahead=ahead)


def take(made: SegmentPreallocator) -> Prepared:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if (taken := made.take()) is not None:
            return taken
        time.sleep(0.001)
    raise AssertionError("no segment was made")


def test_a_prepared_segment_is_zeros_under_its_own_name(folder: JournalFolder) -> None:
    """What is handed over has the size asked for, holds zeros, and has replaced what a crash left there."""
    (folder.path / NEXT_NAME).write_bytes(b"left over")
    made = preparer(folder, FileSystem())
    made.start()
    made.start()
    fd, size, _ = take(made)
    assert size == 4096
    assert os.pread(fd, 9999, 0) == bytes(4096)
    assert (folder.path / NEXT_NAME).read_bytes() == bytes(4096)
    assert made.take() is None


def test_a_segment_that_can_not_be_made_frees_its_room(folder: JournalFolder) -> None:
    """A half-made segment is removed; when there is room again, one is made."""
    files = FailingFiles(write=errno.ENOSPC)
    made = preparer(folder, files, ahead=False)
    assert made.take() is None
    assert not list(folder.path.iterdir())
    files.errors.clear()
    assert made.take() is not None


def test_another_failure_of_the_preparer_is_logged(folder: JournalFolder) -> None:
    """An error that is not a lack of room reaches the one who asks."""
    made = preparer(folder, FailingFiles(write=errno.EIO), ahead=False)
    with pytest.raises(OSError, match="Input/output"):
        made.take()


def test_the_preparer_tries_again_after_a_pause(
    folder: JournalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a full disk the thread is not started at each append, but it is started again."""
    files = FailingFiles(create=errno.ENOSPC)
    made = preparer(folder, files)
    made.start()
    made.stop()
    assert made.take() is None
    files.errors.clear()
    assert made.take() is None  # too early
    monkeypatch.setattr("perstack_stored.journal.preallocation._RETRY_SECONDS", 0.0)
    assert take(made)[1] == 4096


def test_the_preparer_removes_what_nobody_took(folder: JournalFolder) -> None:
    """A stop leaves no file and no descriptor."""
    made = preparer(folder, FileSystem())
    before = len(os.listdir("/proc/self/fd"))
    made.start()
    made.stop()
    assert not list(folder.path.iterdir())
    assert len(os.listdir("/proc/self/fd")) == before


def test_zeros_of_an_uneven_size_are_written_exactly(tmp_path: Path) -> None:
    """A size that is no multiple of the block written at a time is met to the byte."""
    fd = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT, 0o600)
    assert write_zeros(FileSystem(), fd, (1 << 20) + 5) == (1 << 20) + 5 == os.fstat(fd).st_size


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


def test_a_segment_made_ahead_leaves_little_unsynced_at_a_time(tmp_path: Path) -> None:
    """A sync of the journal meanwhile waits until what came before it is on the disk."""
    unsynced: list[int] = [0]

    class Counting(FileSystem):
        def write(self, fd: int, buffers: Sequence[Buffer], offset: int) -> None:
            super().write(fd, buffers, offset)
            unsynced[-1] += sum(len(buffer) for buffer in buffers)

        def sync_data(self, fd: int) -> None:
            super().sync_data(fd)
            unsynced.append(0)

    fd = os.open(tmp_path / "segment", os.O_RDWR | os.O_CREAT)
    assert write_zeros(Counting(), fd, 10 << 20) == 10 << 20
    os.close(fd)
    assert unsynced == [4 << 20, 4 << 20, 2 << 20, 0]


# --- a file that is used again ---------------------------------------------------------------------


def is_recycled(journal: JournalWriter) -> bool:
    return journal.is_recycled


def open_with_spare(folder: JournalFolder, *, payload: bytes = b"old " * 60) -> tuple[JournalWriter, int]:
    """A journal whose open segment is a recycled file, full of older entries; and its last position.

    The first segment is packed as the keeper does it, and its file is offered.
    """
    journal = folder.open(segment_bytes=1 << 13, first_segment_bytes=1 << 13)
    position, has_spare = 0, False
    while not is_recycled(journal):
        (position,) = journal.append([append(payload)])
        if journal.mark.segment > 1 and not has_spare:
            end = folder.reader().chain.end_of(1)
            assert end is not None
            options = Options(exchange=True, spare_bytes=1 << 13)
            pack_segment(FileSystem(), folder.fd, (1, end), Pace(ignore, ignore), options)
            assert (folder.path / SPARE_NAME).exists()
            journal.offer_spare()
            has_spare = True
        assert position < 200
    assert not (folder.path / SPARE_NAME).exists()
    return journal, position


def ignore(_size: int) -> None:
    """No pace is kept."""


def flags_of(path: Path) -> int:
    return entry_format.decode_segment_header(path.read_bytes()).flags


def test_the_file_of_a_packed_segment_becomes_the_next_one(folder: JournalFolder) -> None:
    """It says so in its header, has a salt of its own, and old entries stand after its end."""
    journal, position = open_with_spare(folder)
    path = folder.segments()[-1]
    data = path.read_bytes()
    assert flags_of(path) == entry_format.SEGMENT_RECYCLED
    assert data[journal.mark.offset :].strip(b"\0")
    salts = [entry_format.salt_of(segment.read_bytes()) for segment in folder.segments()]
    assert len(set(salts)) == len(salts)
    assert len(folder.payloads(journal.mark)) == position


def test_old_entries_in_a_file_are_never_taken_for_new_ones(folder: JournalFolder) -> None:
    """A kill at any size of the last batch: the journal ends where it ended, and goes on in a new segment."""
    journal, position = open_with_spare(folder)
    for _ in range(3):
        journal.append([append(b"new")])
        position += 1
        again = JournalFolder(folder.path)
        opened = again.open(first_segment_bytes=1 << 13)  # as after a kill
        assert opened.written.position == position
        assert opened.recovered.torn_bytes == 0
        assert [entry.position for entry in again.read(opened.mark)] == list(range(1, position + 1))
        for path in again.segments()[journal.mark.segment :]:
            path.unlink()


def test_a_torn_tail_in_a_recycled_file_is_found(folder: JournalFolder) -> None:
    """A batch of which the first entry did not reach the disk: what stands after it is void, and named."""
    journal, position = open_with_spare(folder)
    offset = journal.written.offset
    path = folder.segments()[-1]
    before = path.read_bytes()
    journal.write([append(b"first" * 20), append(b"second")])
    data = bytearray(path.read_bytes())
    size = entry_format.padded(64 + 8 + 100)
    data[offset : offset + size] = before[offset : offset + size]
    path.write_bytes(data)
    again = JournalFolder(folder.path)
    opened = again.open(first_segment_bytes=1 << 13)
    assert opened.recovered.torn_bytes == size + entry_format.padded(64 + 8 + 6)
    assert opened.written.position == position
    assert opened.append([append(b"third")]) == [position + 1]
    assert again.payloads(opened.mark)[-1] == b"third"


def test_a_clean_stop_in_a_recycled_file_goes_on_there(folder: JournalFolder) -> None:
    """The old bytes after the mark are cut off first; nothing is written over them."""
    journal, position = open_with_spare(folder)
    number = journal.mark.segment
    journal.close()
    assert folder.segments()[-1].stat().st_size == journal.written.offset
    journal = folder.open(first_segment_bytes=1 << 13)
    assert journal.mark.segment == number
    assert journal.append([append(b"new")]) == [position + 1]
    assert folder.payloads(journal.mark)[-1] == b"new"


def test_a_clean_stop_that_could_not_cut_the_old_bytes_begins_a_segment(folder: JournalFolder) -> None:
    """The mark is there, and so are old bytes: what was torn after a mark looks like them."""
    journal, position = open_with_spare(folder)
    path = folder.segments()[-1]
    tail = path.read_bytes()[journal.mark.offset + 64 :]
    journal.close()
    with path.open("ab") as file:
        file.write(tail)
    journal = folder.open(first_segment_bytes=1 << 13)
    assert journal.recovered.resume is None
    assert journal.append([append(b"new")]) == [position + 1]


def test_a_file_that_a_reader_holds_open_is_not_used_again(folder: JournalFolder) -> None:
    """It would read other bytes under the name of the old segment."""
    journal = folder.open(segment_bytes=1 << 13, first_segment_bytes=1 << 13)
    while journal.mark.segment < 2:
        journal.append([append(b"old " * 60)])
    reader = folder.reader()
    plain = reader.chain.open(1).read(1 << 13, 0)
    end = reader.chain.end_of(1)
    assert end is not None
    options = Options(exchange=True, spare_bytes=1 << 13)
    pack_segment(FileSystem(), folder.fd, (1, end), Pace(ignore, ignore), options)
    journal.offer_spare()
    for _ in range(100):
        journal.append([append(b"new " * 60)])
    assert not is_recycled(journal)
    assert reader.chain.open(1).read(1 << 13, 0) == plain
    assert (folder.path / SPARE_NAME).exists()
    reader.chain.drop_replaced()
    while not is_recycled(journal):
        journal.append([append(b"new " * 60)])
    reader.close()


def test_no_spare_is_used_while_old_bytes_must_go(folder: JournalFolder) -> None:
    """Not even one that is offered after that was said."""
    journal = folder.open(segment_bytes=1 << 13, first_segment_bytes=1 << 13)
    while journal.mark.segment < 2:
        journal.append([append(b"old " * 60)])
    reader = folder.reader()
    end = reader.chain.end_of(1)
    assert end is not None
    reader.close()
    journal.allow_spares(allowed=False)
    options = Options(exchange=True, spare_bytes=1 << 13)
    pack_segment(FileSystem(), folder.fd, (1, end), Pace(ignore, ignore), options)
    journal.offer_spare()
    while journal.mark.segment < 6:
        journal.append([append(b"new " * 60)])
        assert not is_recycled(journal)
    journal.allow_spares(allowed=True)
    journal.offer_spare()
    while not is_recycled(journal):
        journal.append([append(b"new " * 60)])


def test_a_spare_that_an_earlier_process_left_is_removed(folder: JournalFolder) -> None:
    """Nobody vouches for it."""
    folder.open().close()
    (folder.path / SPARE_NAME).write_bytes(b"left over")
    folder.open()
    assert not (folder.path / SPARE_NAME).exists()
