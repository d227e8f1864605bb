"""A segment is written again without what was deleted, or not at all."""

import errno
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.journal import entry_format, erasing
from perstack_stored.journal.chain import Chain
from perstack_stored.journal.entry_format import Record
from perstack_stored.journal.packing import PackingError
from perstack_stored.journal.segment_file import open_segment
from perstack_stored.journal.segment_names import segment_name
from perstack_stored.journal.segment_walk import walk
from perstack_stored.journal.writer import Append
from perstack_stored.keeper.erase import Erased, erase_segment
from perstack_stored.keeper.pack import Options, Pace, pack_segment, remove_left_overs
from perstack_stored.model import gaps
from perstack_stored.model.erasures import Erasures, Removal
from perstack_stored.model.kinds import Kind
from tests.helpers.datadir import SESSION_A, Died, JournalFolder, dumps, event, job, setting
from tests.unit.keeper.test_pack import PACE, BadDisk, FailingCall

SEGMENT_BYTES = 1 << 14
WORD = b"sentinel"
GONE = Erasures([Removal(10_000, "gone", None, is_redaction=False)])


class Kept(NamedTuple):
    """What must stay of a segment: entries' places and headers, and the records that live."""

    headers: Sequence[tuple[object, ...]]
    records: list[tuple[int, int, bytes]]


@pytest.fixture
def folder(tmp_path: Path) -> JournalFolder:
    """A journal of some segments, with records of two jobs in the same entries, and cursors."""
    folder = JournalFolder(tmp_path / "journal")
    journal = folder.open(segment_bytes=SEGMENT_BYTES, first_segment_bytes=SEGMENT_BYTES)
    seq = 1
    for number in range(60):
        of = [
            Record(Kind.EVENT, 0, dumps(event(id=f"e{number}", jobId=name, text="sentinel" * 9, n=n)))
            for n, name in enumerate(("gone", "kept", "gone"))
        ]
        kept = [
            Record(kind, flags, bytes(payload).replace(WORD, b"a word")) for kind, flags, payload in of[1:2]
        ]
        journal.write([Append(SESSION_A, seq, [of[0], *kept, of[2]])], b"" if number % 9 else b"\0" * 18)
        seq += 3
    journal.sync()
    journal.append([Append(SESSION_A, seq, [Record(Kind.JOB, 0, dumps(job(id="kept")))])])
    journal.close()
    return folder


def end_of(folder: JournalFolder, number: int) -> int:
    reader = folder.reader()
    end = reader.chain.end_of(number)
    reader.close()
    assert end is not None
    return end


def erase(
    folder: JournalFolder,
    files: FileSystem | None = None,
    *,
    number: int = 1,
    erasures: Erasures = GONE,
    packs: bool = False,
) -> Erased:
    segment = number, end_of(folder, number)
    return erase_segment(files or FileSystem(), folder.fd, segment, erasures, PACE, packs=packs)


def logical(folder: JournalFolder, number: int = 1) -> bytes:
    with closing(open_segment(FileSystem(), segment_name(number), dir_fd=folder.fd)) as file:
        return file.read(file.size(), 0)


def kept(folder: JournalFolder, number: int = 1) -> Kept:
    """Read a segment as a reader of the journal does."""
    chain = Chain(FileSystem(), folder.fd)
    headers, records = [], []
    end = chain.end_of(number)
    assert end is not None
    for entry in walk(chain.file(number), entry_format.SEGMENT_HEADER_BYTES, end):
        headers.append((entry.offset, *entry.header._replace(crc=0)))
        if entry.header.type != entry_format.EntryType.RECORDS:
            records.append((entry.offset, 0, bytes(entry.data[64:])))
        for place in entry_format.record_places(entry.data, entry.header):
            payload = bytes(entry.data[place.start : place.start + place.length])
            if place.kind != Kind.GAP and WORD not in payload:
                records.append((entry.offset + place.start, place.kind, payload))
    chain.close()
    return Kept(headers, records)


@pytest.mark.parametrize("was_packed", [False, True])
@pytest.mark.parametrize("packs", [False, True])
def test_what_lives_stays_and_what_is_deleted_goes(
    folder: JournalFolder, was_packed: bool, packs: bool
) -> None:
    """Byte by byte, at the same places; the salt is another one, and a second time nothing changes."""
    if was_packed:
        pack_segment(FileSystem(), folder.fd, (1, end_of(folder, 1)), PACE, Options(False, 0))
    before, bytes_before = kept(folder), logical(folder)
    assert bytes_before.count(WORD) > 100
    assert erase(folder, packs=packs).records > 40
    assert kept(folder) == before
    after = logical(folder)
    assert WORD not in after
    assert after[56:60] != bytes_before[56:60]
    assert (folder.segments()[0].read_bytes()[8] == 2) == was_packed
    files = folder.snapshot()
    assert erase(folder) == Erased(0, is_new=False)
    assert folder.snapshot() == files


def test_bytes_after_the_end_go_too(folder: JournalFolder) -> None:
    """Of an older segment in the file, or torn ones; also where nothing of the segment is deleted."""
    path = folder.segments()[0]
    end = end_of(folder, 1)
    with path.open("r+b") as file:
        file.truncate(end)
        file.seek(end + 64)
        file.write(WORD)
    before = kept(folder)
    assert erase(folder, erasures=Erasures(())) == Erased(0, is_new=True)
    assert path.stat().st_size == end
    assert kept(folder) == before
    assert erase(folder, erasures=Erasures(())) == Erased(0, is_new=False)


@pytest.mark.parametrize("packs", [False, True])
@pytest.mark.parametrize("place", [9, 57, 70, 130, 300, 1000, 3000])
def test_what_the_disk_did_not_keep_does_not_replace_the_segment(
    folder: JournalFolder, place: int, packs: bool
) -> None:
    """A byte that differs is found before the old file is gone."""
    if packs:
        pack_segment(FileSystem(), folder.fd, (1, end_of(folder, 1)), PACE, Options(False, 0))
    before = folder.snapshot()
    size = len(before[segment_name(1)])
    with pytest.raises(PackingError):
        erase(folder, BadDisk(place * size // 4096))
    assert folder.snapshot() == before


def test_a_failing_call_leaves_the_old_segment_or_the_new_one(folder: JournalFolder) -> None:
    """Whichever call fails, or is the last one of the process."""
    before, plain = kept(folder), folder.segments()[0].read_bytes()
    for error in (OSError(errno.EIO, "planted"), Died()):
        folder.segments()[0].write_bytes(plain)
        for calls in range(100):
            try:
                erase(folder, FailingCall(calls, error))
            except (OSError, Died):
                assert kept(folder) == before
            else:
                break
        assert calls > 4
        assert WORD not in logical(folder)
        assert kept(folder) == before
    remove_left_overs(FileSystem(), folder.fd)
    assert not [name for name in folder.snapshot() if name.endswith(".part")]


class Order(FileSystem):
    """Notes what is done to the new file, and to the folder."""

    def __init__(self, folder: int) -> None:
        super().__init__()
        self.folder = folder
        self.calls: list[str] = []

    def sync_data(self, fd: int) -> None:
        super().sync_data(fd)
        self.calls.append("sync_data")

    def forget_cached(self, fd: int) -> None:
        super().forget_cached(fd)
        self.calls.append("forget_cached")

    def rename(self, source: str, target: str, *, source_dir: int, target_dir: int) -> None:
        super().rename(source, target, source_dir=source_dir, target_dir=target_dir)
        self.calls.append("rename")

    def sync(self, fd: int) -> None:
        super().sync(fd)
        self.calls.append("sync" if fd == self.folder else "")


def test_the_new_file_is_on_disk_before_it_has_the_name_and_the_name_before_it_is_said(
    folder: JournalFolder,
) -> None:
    """Else a power cut could leave a segment of neither."""
    files = Order(folder.fd)
    erase(folder, files)
    assert files.calls == ["sync_data", "forget_cached", "rename", "sync"]


def test_a_segment_with_the_salt_of_the_old_one_does_not_replace_it(
    folder: JournalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup would take it for the one that it has."""
    monkeypatch.setattr(erasing, "new_header", lambda header, _: header)
    before = folder.snapshot()
    with pytest.raises(PackingError, match="header"):
        erase(folder)
    assert folder.snapshot() == before


def test_a_damaged_segment_is_left_as_it_is(folder: JournalFolder) -> None:
    path = folder.segments()[0]
    data = bytearray(path.read_bytes())
    data[end_of(folder, 1) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(PackingError, match="checksum"):
        erase(folder)
    assert path.read_bytes() == data


def test_of_a_setting_stays_what_its_run_began_with() -> None:
    """Of a redacted one; with its job, all of it goes."""
    redacted = Erasures([Removal(9, "job-1", "run-1", is_redaction=True)])
    payload = dumps(setting())
    found = redacted.gap_for(3, Kind.RUN_SETTING, payload)
    assert found == gaps.Gap(removed=9, op="storeRunSetting", jobId="job-1", runId="run-1", expertKey="me")
    assert redacted.gap_for(10, Kind.RUN_SETTING, payload) is None
    assert redacted.gap_for(3, Kind.EVENT, dumps(event())) is None
    both = Erasures(
        [*[Removal(9, "job-1", "run-1", is_redaction=True)], Removal(20, "job-1", None, is_redaction=False)]
    )
    assert both.gap_for(3, Kind.RUN_SETTING, payload) == gaps.Gap(removed=20)
    left = gaps.encode_padded(found, len(payload))
    assert len(left) == len(payload)
    assert both.gap_for(3, Kind.GAP, left) == gaps.Gap(removed=9)
    assert redacted.gap_for(3, Kind.GAP, left) is None
    lost = gaps.encode(gaps.Gap(op="storeEvent", jobId="job-1", runId="run-1", type="startRun"))
    assert both.gap_for(3, Kind.GAP, lost) == gaps.Gap()


def test_an_open_file_is_let_go_when_its_segment_was_erased(folder: JournalFolder) -> None:
    """A reader goes on with the new file and its salt; it holds no old one, packed or not."""
    journal = folder.open()
    reader = folder.reader()
    first = reader.chain.open(1)
    erase(folder)
    reader.chain.drop_replaced()
    assert first.fd == -1
    pack_segment(FileSystem(), folder.fd, (1, end_of(folder, 1)), PACE, Options(False, 0))
    reader.chain.drop_replaced()
    held = reader.chain.open(1)
    assert held.is_packed
    erase(folder, erasures=Erasures([Removal(10_000, "kept", None, is_redaction=False)]))
    reader.chain.drop_replaced()
    assert held.fd == -1
    assert len(list(reader.entries(reader.start(), journal.mark))) > 50
    reader.close()
    journal.close()


def test_erasing_keeps_to_the_pace_of_what_it_reads_from_the_disk(folder: JournalFolder) -> None:
    """A packed segment is read in fewer bytes; a segment that was erased in says so in its header."""
    read: list[int] = []
    pace = Pace(read.append, lambda _size: None)
    for number in (1, 2):
        segment = number, end_of(folder, number)
        if number == 2:
            pack_segment(FileSystem(), folder.fd, segment, PACE, Options(exchange=False, spare_bytes=1 << 40))
        read.clear()
        size = (folder.path / segment_name(number)).stat().st_size
        assert erase_segment(FileSystem(), folder.fd, segment, GONE, pace, packs=True).is_new
        assert 0.5 * size < sum(read) <= size + len(read)
        header = entry_format.decode_segment_header(logical(folder, number))
        assert header.flags & entry_format.SEGMENT_ERASED
