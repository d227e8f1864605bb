"""A segment is replaced by a packed one that is the same, or not at all."""

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from perstack_stored.datadir.filesystem import Buffer, FileSystem
from perstack_stored.journal.packing import PackingError
from perstack_stored.journal.preallocation import SPARE_NAME
from perstack_stored.keeper.pack import Options, Pace, pack_segment, remove_left_overs
from tests.helpers.datadir import Died, JournalFolder, SimulatedDisk, append

SEGMENT_BYTES = 1 << 13
PACE = Pace(lambda _size: None, lambda _size: None)
WAYS = [Options(exchange=True, spare_bytes=SEGMENT_BYTES), Options(exchange=False, spare_bytes=SEGMENT_BYTES)]


@pytest.fixture
def folder(tmp_path: Path) -> JournalFolder:
    """A journal of some segments."""
    folder = JournalFolder(tmp_path / "journal")
    journal = folder.open(segment_bytes=SEGMENT_BYTES, first_segment_bytes=SEGMENT_BYTES)
    for number in range(100):
        journal.append([append(b"%d some words that are stored again " % number * 6)])
    journal.close()
    return folder


def pack(folder: JournalFolder, files: FileSystem | None = None, options: Options = WAYS[0]) -> None:
    """Pack the first segment."""
    end = folder.reader().chain.end_of(1)
    assert end is not None
    pack_segment(files or FileSystem(), folder.fd, (1, end), PACE, options)


def is_packed(folder: JournalFolder) -> bool:
    return folder.segments()[0].read_bytes()[8] == 2


class BadDisk(FileSystem):
    """One byte of what is written to a file is another one when it is read back."""

    def __init__(self, place: int) -> None:
        super().__init__()
        self._place = place

    def write(self, fd: int, buffers: Sequence[Buffer], offset: int) -> None:
        """Write, with a flipped bit."""
        data = bytearray(b"".join(bytes(buffer) for buffer in buffers))
        if offset <= self._place < offset + len(data):
            data[self._place - offset] ^= 4
        super().write(fd, [data], offset)


class FailingCall(FileSystem):
    """Real files, of which one call fails."""

    def __init__(self, calls: int, error: BaseException) -> None:
        super().__init__()
        self.left = calls
        self.error = error

    def __getattribute__(self, name: str) -> Any:
        if name in SimulatedDisk.CALLS:
            if not self.left:
                self.left = -1
                raise self.error
            self.left -= 1
        return super().__getattribute__(name)


@pytest.mark.parametrize("place", [0, 9, 20, 62, 65, 70, 73, 82, 90, 94, 98, 110, 200])
def test_what_the_disk_did_not_keep_does_not_replace_the_plain_segment(
    folder: JournalFolder, place: int
) -> None:
    """A byte of the packed file that differs is found before the plain file is gone."""
    before = folder.snapshot()
    with pytest.raises(PackingError):
        pack(folder, BadDisk(place))
    assert folder.snapshot() == before


@pytest.mark.parametrize("options", WAYS)
def test_a_failing_call_leaves_the_segment_readable(folder: JournalFolder, options: Options) -> None:
    """Whichever call fails, or is the last one of the process, all records are there, and none twice."""
    journal = folder.open()
    mark, records = journal.mark, folder.payloads(journal.mark)
    for error in (OSError(errno.EIO, "planted"), Died()):
        for calls in range(100):
            files = FailingCall(calls, error)
            try:
                pack(folder, files, options)
            except (OSError, Died):
                assert folder.payloads(mark) == records
            else:
                break
        assert calls > 4
        assert is_packed(folder)
        assert folder.payloads(mark) == records
    remove_left_overs(FileSystem(), folder.fd)
    assert not [name for name in folder.snapshot() if name[:1].isdigit() and name.endswith(".part")]


@pytest.mark.parametrize("options", WAYS)
def test_the_plain_file_is_left_as_the_spare_once(folder: JournalFolder, options: Options) -> None:
    """Where names can be exchanged, and no other one waits; a small file is no use."""
    plain = folder.segments()[0].read_bytes()
    pack(folder, options=options._replace(spare_bytes=SEGMENT_BYTES + 1))
    assert SPARE_NAME not in folder.snapshot()
    folder.segments()[0].write_bytes(plain)
    pack(folder, options=options)
    assert (SPARE_NAME in folder.snapshot()) == options.exchange
    if options.exchange:
        assert folder.snapshot()[SPARE_NAME] == plain
        folder.segments()[0].write_bytes(plain)
        (folder.path / SPARE_NAME).write_bytes(b"waits")
        pack(folder)
        assert folder.snapshot()[SPARE_NAME] == b"waits"
    assert is_packed(folder)


class NamesOnDisk(FileSystem):
    """Knows whether a power cut could take back an exchange of names."""

    def __init__(self) -> None:
        super().__init__()
        self.pending = False
        self.spares: list[bool] = []

    def exchange(self, source: str, target: str, *, source_dir: int, target_dir: int) -> None:
        super().exchange(source, target, source_dir=source_dir, target_dir=target_dir)
        self.pending = True

    def sync(self, fd: int) -> None:
        super().sync(fd)
        self.pending = False

    def rename(self, source: str, target: str, *, source_dir: int, target_dir: int) -> None:
        super().rename(source, target, source_dir=source_dir, target_dir=target_dir)
        if target == SPARE_NAME:
            self.spares.append(self.pending)


def test_the_spare_is_offered_when_no_power_cut_brings_it_back_as_the_segment(folder: JournalFolder) -> None:
    """The server overwrites it: under its old name it would be damage."""
    files = NamesOnDisk()
    pack(folder, files)
    assert files.spares == [False]
