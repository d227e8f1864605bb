"""The entries of a mirror, as pieces come in."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from perstack_stored.journal.entry_format import EntryType, record_places
from perstack_stored.mirror import pieces
from perstack_stored.mirror.source import MirrorDamagedError, MirrorSource
from tests.helpers.datadir import append
from tests.unit.mirror.test_shipper import PREFIX, Objects, Ships, store


@pytest.fixture
def ships(tmp_path: Path) -> Ships:
    """A history with crashes, several segments, and values in several pieces; pieces end within entries."""
    ships = Ships(tmp_path, piece_bytes=700)
    for seed in range(4):
        ships.shipper = ships.new_shipper()
        ships.shipper.find(ships.journal.mark)
        store(ships.journal, 20, seed=seed)
        ships.journal.append([append(Random(seed).randbytes(3000))])
        ships.ship()
        ships.restart()
    return ships


def payloads(source: MirrorSource) -> Iterator[tuple[int, bytes]]:
    for entry in source.entries():
        if entry.header.type == EntryType.RECORDS:
            for number, place in enumerate(record_places(entry.data, entry.header)):
                data = bytes(entry.data[place.start : place.start + place.length])
                yield entry.header.position + number, data


def test_each_record_comes_once_whenever_the_pieces_come(ships: Ships) -> None:
    """One piece after the other; a copy of what recovery wrote again is passed over."""
    whole = [(read.position, read.payload) for read in ships.folder.read(ships.journal.mark)]
    some = Objects()
    source = MirrorSource(some, PREFIX, ships.journal.store, 0)
    found = []
    for key in sorted(ships.bucket.objects):
        some.objects[key] = ships.bucket.objects[key]
        found += list(payloads(source))
    assert found == whole
    assert list(payloads(source)) == []
    source.refuse_hole()


def test_it_begins_at_any_position(ships: Ships) -> None:
    """With few requests."""
    whole = [(read.position, read.payload) for read in ships.folder.read(ships.journal.mark)]
    for position in range(len(whole) + 1):
        source = MirrorSource(ships.bucket, PREFIX, ships.journal.store, position)
        assert list(payloads(source)) == whole[position:]


def test_pieces_that_are_changed_or_missing_are_named(ships: Ships) -> None:
    """Nothing after them is returned."""
    keys = sorted(ships.bucket.objects)
    whole = [(read.position, read.payload) for read in ships.folder.read(ships.journal.mark)]
    for key in keys[:-1]:
        bucket = Objects()
        bucket.objects = dict(ships.bucket.objects)
        data = bytearray(bucket.objects[key])
        data[20] ^= 1
        bucket.objects[key] = bytes(data)
        found: list[tuple[int, bytes]] = []
        source = MirrorSource(bucket, PREFIX, ships.journal.store, 0)
        with pytest.raises(MirrorDamagedError, match=key.rpartition("/")[2]):
            found.extend(payloads(source))
        assert found == whole[: len(found)]
        del bucket.objects[key]
        found = []
        source = MirrorSource(bucket, PREFIX, ships.journal.store, 0)
        try:
            found.extend(payloads(source))
            source.refuse_hole()
        except MirrorDamagedError:
            assert found == whole[: len(found)]
        else:
            assert found == whole, "it held only what recovery wrote again"


def test_an_entry_that_was_damaged_before_it_was_shipped_is_named(ships: Ships) -> None:
    """Its piece is sound, so that the entry's own checksum is all there is."""
    whole = [(read.position, read.payload) for read in ships.folder.read(ships.journal.mark)]
    named = 0
    for key, sound in ships.bucket.objects.items():
        piece = pieces.decode(sound)
        data = bytearray(piece.data)
        data[len(data) // 2] ^= 1
        bucket = Objects()
        bucket.objects = ships.bucket.objects | {key: pieces.encode(piece._replace(data=bytes(data)))}
        found: list[tuple[int, bytes]] = []
        try:
            found.extend(payloads(MirrorSource(bucket, PREFIX, ships.journal.store, 0)))
        except MirrorDamagedError:
            named += 1
        assert found == whole[: len(found)]
    assert named > len(ships.bucket.objects) // 2
