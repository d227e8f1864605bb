"""What is shipped, in which pieces, and what a piece that is there already means."""

import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.errors import DamageError, StoredError
from perstack_stored.journal.chain import Chain
from perstack_stored.journal.reader import LogPosition
from perstack_stored.journal.writer import JournalWriter
from perstack_stored.mirror import pieces
from perstack_stored.mirror.shipper import MirrorConflictError, Shipper
from tests.helpers.datadir import JournalFolder, append

PREFIX = "p/"


class Objects:
    """A bucket in memory: objects are created, never replaced."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.lists = 0

    def create(self, key: str, data: bytes) -> bool:
        if key in self.objects:
            return False
        self.objects[key] = data
        return True

    def read(self, key: str, bytes_max: int) -> bytes | None:
        return self.objects.get(key)

    def names(self, folder: str, after: str = "") -> Iterator[str]:
        self.lists += 1
        for key in sorted(self.objects):
            if key.startswith(folder) and key > folder + after:
                yield key.removeprefix(folder)

    def segments(self) -> dict[int, bytes]:
        """The bytes of all segments; each piece joins the one before it."""
        found: dict[int, bytes] = {}
        for key in sorted(self.objects):
            piece = pieces.decode(self.objects[key])
            assert key.endswith(pieces.name_of(piece.segment, piece.start))
            assert piece.start == len(found.setdefault(piece.segment, b""))
            found[piece.segment] += piece.data
        return found


class FailingObjects(Objects):
    """A bucket of which every second call fails, be it before or after it was carried out."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def create(self, key: str, data: bytes) -> bool:
        self.calls += 1
        if self.calls % 4 == 1:
            raise BucketAwayError
        created = super().create(key, data)
        if self.calls % 4 == 3:
            raise BucketAwayError
        return created


class BucketAwayError(StoredError):
    """It does not answer."""


class Ships:
    """A journal, a bucket, and a mirror between them."""

    def __init__(self, path: Path, piece_bytes: int = 1000) -> None:
        self.folder = JournalFolder(path / "journal")
        self.piece_bytes = piece_bytes
        self.bucket = Objects()
        self.journal = self.folder.open(segment_bytes=1 << 13, first_segment_bytes=1 << 12)
        self.shipper = self.new_shipper()

    def new_shipper(self, bucket: Objects | None = None) -> Shipper:
        """A mirror as a new process has it; `find` was not called."""
        chain = Chain(FileSystem(), self.folder.fd)
        return Shipper(bucket or self.bucket, chain, PREFIX, piece_bytes=self.piece_bytes)

    def restart(self) -> JournalWriter:
        """Another daemon after a crash: the journal is opened again without having been closed."""
        self.journal = self.folder.open(segment_bytes=1 << 13, first_segment_bytes=1 << 12)
        return self.journal

    def ship(self, shipper: Shipper | None = None) -> int:
        """Ship all that is synced; count of pieces."""
        shipper = shipper or self.shipper
        count = 0
        while shipper.ship(self.journal.mark) is not None:
            count += 1
        return count

    def assert_complete(self) -> None:
        """The bucket holds all logical bytes up to the mark, but for marks at the end."""
        chain = Chain(FileSystem(), self.folder.fd)
        shipped = self.bucket.segments()
        for number in range(1, self.journal.mark.segment + 1):
            end = chain.end_of(number) or self.shipper.place.offset
            assert shipped[number][:end] == chain.open(number).read(end, 0)
        assert self.shipper.place.position == self.journal.mark.position
        chain.close()


@pytest.fixture
def ships(tmp_path: Path) -> Ships:
    return Ships(tmp_path)


def store(journal: JournalWriter, count: int, size: int = 100, seed: int = 1) -> None:
    random = Random(seed)
    for _ in range(count):
        journal.append([append(random.randbytes(random.randrange(1, size)))])


def test_all_is_shipped_in_order(ships: Ships) -> None:
    """Over several segments; the pieces join, none is larger than it may be, and a second look ships none."""
    ships.shipper.find(ships.journal.mark)
    for seed in range(10):
        store(ships.journal, 20, seed=seed)
        ships.ship()
    assert ships.journal.mark.segment > 2
    ships.assert_complete()
    assert max(len(pieces.decode(data).data) for data in ships.bucket.objects.values()) <= 1000
    assert ships.ship() == 0


def test_what_is_not_synced_is_not_shipped(ships: Ships) -> None:
    """An ack that was never given must not come back from the mirror."""
    ships.shipper.find(ships.journal.mark)
    store(ships.journal, 5)
    ships.ship()
    before = ships.bucket.segments()
    ships.journal.write([append(b"not synced" * 50)])
    assert ships.ship() == 0
    assert ships.bucket.segments() == before
    ships.journal.sync()
    assert ships.ship() == 1
    ships.assert_complete()


def test_no_piece_is_skipped_where_the_bucket_fails(ships: Ships) -> None:
    """A call that failed is made again, whether the piece had come in or not."""
    ships.bucket = failing = FailingObjects()
    ships.shipper = ships.new_shipper()
    ships.shipper.find(ships.journal.mark)
    store(ships.journal, 100)
    failures = 0
    while ships.shipper.place.position < 100:
        try:
            ships.shipper.ship(ships.journal.mark)
        except BucketAwayError:
            failures += 1
    assert failures > 3
    assert failing.calls > len(failing.objects)
    ships.assert_complete()


def test_a_large_value_goes_in_several_pieces(ships: Ships) -> None:
    """The position counts when all of it is there."""
    ships.shipper.find(ships.journal.mark)
    ships.journal.append([append(b"small")])
    ships.journal.append([append(Random(1).randbytes(3500))])
    positions = []
    while (shipped := ships.shipper.ship(ships.journal.mark)) is not None:
        positions.append(shipped.place.position)
    assert positions == [1, 1, 1, 2]
    ships.assert_complete()


def test_starts_and_stops_ship_nothing(ships: Ships) -> None:
    """The mark of a clean stop is written over at the start: it goes only when something follows it."""
    ships.shipper.find(ships.journal.mark)
    store(ships.journal, 5)
    ships.ship()
    for _ in range(3):
        ships.journal.close()
        ships.restart()
        ships.shipper = ships.new_shipper()
        ships.shipper.find(ships.journal.mark)
        assert ships.ship() == 0
    assert ships.journal.mark.segment == 1
    store(ships.journal, 1)
    assert ships.ship() == 1
    ships.assert_complete()


def test_after_a_crash_it_goes_on(ships: Ships) -> None:
    """What recovery writes again was shipped before, too: the end of the old segment holds more."""
    for seed in range(6):
        ships.shipper = ships.new_shipper()
        ships.shipper.find(ships.journal.mark)
        store(ships.journal, 7, seed=seed)
        ships.ship()
        ships.restart()
        assert ships.journal.mark.segment == seed + 2
    ships.shipper = ships.new_shipper()
    ships.shipper.find(ships.journal.mark)
    ships.ship()
    ships.assert_complete()


def test_a_new_process_finds_how_far_it_was(ships: Ships) -> None:
    """With few lists, however many segments there are; also in the middle of an entry."""
    ships.shipper.find(ships.journal.mark)
    for seed in range(40):
        store(ships.journal, 20, seed=seed)
        ships.ship()
    ships.journal.append([append(Random(1).randbytes(3500))])
    ships.shipper.ship(ships.journal.mark)
    place = ships.shipper.place
    assert place.segment > 4
    ships.bucket.lists = 0
    ships.shipper = ships.new_shipper()
    assert ships.shipper.find(ships.journal.mark) == place
    assert ships.bucket.lists <= 10
    ships.ship()
    ships.assert_complete()


def test_a_piece_of_an_answer_that_was_lost_is_taken(ships: Ships) -> None:
    """The same bytes are there, be it fewer than would go now: it goes on after them."""
    ships.shipper.find(ships.journal.mark)
    other = ships.new_shipper()
    other.find(ships.journal.mark)
    store(ships.journal, 2)
    ships.ship(other)
    store(ships.journal, 3, seed=2)
    shipped = ships.shipper.ship(ships.journal.mark)
    assert shipped is not None
    assert shipped.stored_bytes == 0
    assert shipped.place.position == 2
    ships.ship()
    ships.assert_complete()


def test_other_bytes_stop_it(ships: Ships, tmp_path: Path) -> None:
    """Two continuations of one history: the second to come finds other bytes, and replaces nothing."""
    ships.shipper.find(ships.journal.mark)
    store(ships.journal, 3)
    ships.ship()
    copy = Ships.__new__(Ships)
    (tmp_path / "copy/journal").mkdir(parents=True)
    for path in ships.folder.segments():
        (tmp_path / "copy/journal" / path.name).write_bytes(path.read_bytes())
    copy.folder, copy.piece_bytes, copy.bucket = JournalFolder(tmp_path / "copy/journal"), 1000, ships.bucket
    copy.restart()
    copy.shipper = copy.new_shipper()
    copy.shipper.find(copy.journal.mark)
    ships.restart()
    ships.shipper = ships.new_shipper()
    ships.shipper.find(ships.journal.mark)
    store(ships.journal, 3, seed=2)
    store(copy.journal, 3, seed=3)
    ships.ship()
    before = dict(ships.bucket.objects)
    with pytest.raises(MirrorConflictError, match="holds other bytes"):
        copy.ship()
    with pytest.raises(MirrorConflictError):
        copy.new_shipper().find(copy.journal.mark)
    assert ships.bucket.objects == before


def test_a_bucket_that_is_ahead_stops_it(ships: Ships, tmp_path: Path) -> None:
    """The base was put back from an older copy."""
    ships.shipper.find(ships.journal.mark)
    store(ships.journal, 3)
    older = {path.name: path.read_bytes() for path in ships.folder.segments()}
    older_mark = ships.journal.mark
    for more in (3, 200):
        store(ships.journal, more)
        ships.ship()
        folder = JournalFolder(tmp_path / f"older{more}")
        for name, data in older.items():
            (folder.path / name).write_bytes(data)
        shipper = Shipper(ships.bucket, Chain(FileSystem(), folder.fd), PREFIX, piece_bytes=1000)
        with pytest.raises(MirrorConflictError):
            shipper.find(older_mark)


@pytest.mark.parametrize("other", [b"", b"foreign", bytes(100)])
def test_a_foreign_object_stops_it(ships: Ships, other: bytes) -> None:
    """It stands where the first piece would; names that are none of a piece are passed over."""
    folder = pieces.folder_of(PREFIX, ships.journal.store)
    ships.bucket.objects[folder + "README"] = b""
    ships.bucket.objects[folder + "x/0000000001-000000000000"] = b""
    ships.shipper.find(ships.journal.mark)
    ships.bucket.objects[folder + pieces.name_of(1, 0)] = other
    store(ships.journal, 3)
    with pytest.raises(MirrorConflictError):
        ships.ship()


def test_damage_is_not_shipped(ships: Ships) -> None:
    """Each entry is tested before it goes."""
    ships.shipper.find(ships.journal.mark)
    store(ships.journal, 3)
    ships.ship()
    before = ships.bucket.segments()
    store(ships.journal, 3, seed=2)
    path = ships.folder.segments()[-1]
    fd = os.open(path, os.O_RDWR)
    os.pwrite(fd, b"?", ships.journal.mark.offset - 20)
    os.close(fd)
    with pytest.raises(DamageError):
        ships.ship()
    assert ships.bucket.segments() == before


def test_an_empty_journal_has_nothing_to_ship(ships: Ships) -> None:
    """Nor has one whose only segment holds no record."""
    assert ships.shipper.find(ships.journal.mark) == LogPosition(0, 1, 0)
    ships.ship()
    assert ships.ship() == 0
