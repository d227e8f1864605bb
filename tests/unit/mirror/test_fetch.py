"""What comes back from a bucket that was cut off at any piece: never less than was there before."""

import hashlib
from pathlib import Path
from random import Random

import pytest

from perstack_stored.config.mirror_url import MirrorUrl
from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.errors import ConfigError
from perstack_stored.mirror import pieces
from perstack_stored.offline.backup.fetch import Wanted, fetch
from perstack_stored.offline.backup.manifest import BackupDamagedError, open_folder
from perstack_stored.offline.backup.restore import restore
from tests.helpers.datadir import JournalFolder, append
from tests.unit.mirror.test_shipper import PREFIX, Objects, Ships, store


class Mirror(Objects):
    """A bucket in memory, of which some pieces are there."""

    place = MirrorUrl("bucket", PREFIX)

    def __init__(self, objects: dict[str, bytes]) -> None:
        super().__init__()
        self.objects = objects

    def folders(self, folder: str) -> list[str]:
        return sorted({key.removeprefix(folder).partition("/")[0] for key in self.objects})


def fetched(objects: dict[str, bytes], path: Path, wanted: Wanted = Wanted()) -> int:  # noqa: B008 - a tuple
    """Fetch into a new folder; the last position."""
    with open_folder(FileSystem(), str(path), make=True) as folder:
        return fetch(Mirror(objects), wanted, folder).position  # type: ignore[arg-type]  # a bucket in memory


@pytest.fixture
def ships(tmp_path: Path) -> Ships:
    """A history with crashes, stops, several segments, and a value in several pieces."""
    ships = Ships(tmp_path, piece_bytes=700)
    for seed in range(5):
        ships.shipper = ships.new_shipper()
        ships.shipper.find(ships.journal.mark)
        store(ships.journal, 33, seed=seed)
        # Nothing proves that it was synced: recovery writes it again, and its pieces take a while.
        ships.journal.append([append(Random(seed).randbytes(3000))])
        ships.ship()
        if seed % 2:
            ships.journal.close()
        ships.restart()
    return ships


def test_a_bucket_that_was_cut_off_at_any_piece_gives_back_what_was_there(
    ships: Ships, tmp_path: Path
) -> None:
    """The position never goes back from one piece to the next: also where recovery wrote records again."""
    objects: dict[str, bytes] = {}
    positions = []
    for number, key in enumerate(sorted(ships.bucket.objects)):
        objects[key] = ships.bucket.objects[key]
        try:
            positions.append(fetched(dict(objects), tmp_path / str(number)))
        except ConfigError:
            assert not positions, "no complete record yet: of the first pieces only"
    assert positions == sorted(positions)
    assert positions[-1] == ships.shipper.place.position == 5 * 34
    assert len(positions) > 30


def test_what_comes_back_is_what_was_shipped(ships: Ships, tmp_path: Path) -> None:
    """Each record, at its position, of its session and time."""
    fetched(ships.bucket.objects, tmp_path / "fetched")
    restore(str(tmp_path / "fetched"), str(tmp_path / "new"), to_position=None)
    new = JournalFolder(tmp_path / "new/.stored/journal")
    mark = new.open().mark
    assert new.read(mark) == ships.folder.read(ships.journal.mark)


def test_a_piece_that_is_missing_or_changed_is_found(ships: Ships, tmp_path: Path) -> None:
    """Any but the last ones, whose lack is that of time."""
    keys = sorted(ships.bucket.objects)
    for number, key in enumerate(keys[:-1]):
        without = {other: data for other, data in ships.bucket.objects.items() if other != key}
        changed = dict(ships.bucket.objects)
        data = bytearray(changed[key])
        data[hashlib.sha256(key.encode()).digest()[0] % 56] ^= 1
        changed[key] = bytes(data)
        for kind, objects in (("without", without), ("changed", changed)):
            try:
                position = fetched(objects, tmp_path / f"{kind}{number}")
            except BackupDamagedError as error:
                assert "the mirror is damaged" in str(error)  # noqa: PT017 - it need not be raised
            else:
                assert (kind, position) == ("without", 5 * 34), "it held what recovery wrote again, no more"


def test_what_is_before_a_missing_piece_comes_back(ships: Ships, tmp_path: Path) -> None:
    """With a position that asks for no more."""
    keys = sorted(ships.bucket.objects)
    segment, _ = pieces.parse_name(keys[-1].rpartition("/")[2]) or (0, 0)
    lost = next(key for key in keys if key.endswith(pieces.name_of(segment, 0)))
    objects = {key: data for key, data in ships.bucket.objects.items() if key != lost}
    with pytest.raises(BackupDamagedError):
        fetched(objects, tmp_path / "all")
    assert fetched(objects, tmp_path / "some", Wanted(to_position=20)) >= 20
