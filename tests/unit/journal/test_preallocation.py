"""The next segment's file: made ahead, and the file of a packed segment that is used again."""

import errno
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from perstack_stored.datadir.filesystem import Buffer, FileSystem
from perstack_stored.journal import entry_format
from perstack_stored.journal.preallocation import (
    NEXT_NAME,
    SPARE_NAME,
    Prepared,
    SegmentPreallocator,
    write_zeros,
)
from perstack_stored.journal.writer import JournalWriter
from perstack_stored.keeper.pack import Options, Pace, pack_segment
from tests.helpers.datadir import (
    FailingFiles,
    JournalFolder,
    append,
)

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
