"""Segments that were erased in are replaced in the bucket, whatever stops the mirror on the way."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from perstack_stored.config.mirror_url import MirrorUrl
from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.errors import StoredError
from perstack_stored.journal.chain import Chain
from perstack_stored.journal.entry_format import NO_SESSION, Record, record_places
from perstack_stored.journal.writer import Append
from perstack_stored.keeper.erase import erase_segment
from perstack_stored.mirror import generations, pieces
from perstack_stored.mirror.replacer import Replacer
from perstack_stored.mirror.shipper import MirrorConflictError
from perstack_stored.mirror.source import MirrorDamagedError, MirrorSource
from perstack_stored.model.erasures import Erasures, Removal
from perstack_stored.model.kinds import Kind
from tests.helpers.datadir import dumps, event
from tests.unit.keeper.test_pack import PACE
from tests.unit.mirror.test_fetch import fetched
from tests.unit.mirror.test_shipper import PREFIX, Objects, Ships

WORD = b"sentinel"
PLACE = MirrorUrl("bucket", PREFIX)


class Removable(Objects):
    """A bucket in memory; after some calls that change something it does not answer."""

    def __init__(self) -> None:
        super().__init__()
        self.changes = 0
        self.breaks_after: int | None = None

    def _change(self) -> None:
        if self.breaks_after is not None and self.changes >= self.breaks_after:
            raise StoredError("it does not answer")
        self.changes += 1

    def create(self, key: str, data: bytes) -> bool:
        if key not in self.objects:
            self._change()
        return super().create(key, data)

    def remove(self, keys: Sequence[str]) -> None:
        for key in keys:
            if key in self.objects:
                self._change()
                del self.objects[key]

    def sentinels(self) -> list[str]:
        """Keys of objects with a word of what was deleted."""
        return [
            key
            for key, data in self.objects.items()
            if len(data) > len(generations.NOTE) and WORD in pieces.decode(data).data
        ]


class Erasing(Ships):
    """A mirrored journal of some segments with records of two jobs; one of them can be erased."""

    bucket: Removable

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.bucket = Removable()
        self.shipper = self.new_shipper(self.bucket)
        self.shipper.find(self.journal.mark)
        for n in range(120):
            name, word = ("gone", "sentinel") if n % 3 else ("kept", "a word")
            record = Record(Kind.EVENT, 0, dumps(event(id=f"e{n}", jobId=name, timestamp=n, pad=word * 30)))
            self.journal.append([Append(NO_SESSION, 0, [record])])
        self.ship()
        self.replacer = self.new_replacer()

    def new_replacer(self, bucket: Removable | None = None) -> Replacer:
        """That of a new process."""
        store = self.journal.store
        made = Replacer(bucket or self.bucket, FileSystem(), self.folder.fd, PREFIX, store)
        made.piece_bytes = self.piece_bytes
        return made

    def erase(self, job: str = "gone", *, packs: bool = True) -> None:
        """Erase a job in all complete segments."""
        chain = Chain(FileSystem(), self.folder.fd)
        erasures = Erasures([Removal(10_000, job, None, is_redaction=False)])
        for number in range(1, chain.last):
            end = chain.end_of(number)
            assert end is not None
            erase_segment(FileSystem(), self.folder.fd, (number, end), erasures, PACE, packs=packs)
        chain.close()

    def replace(self, replacer: Replacer | None = None) -> int:
        """Replace all that can be; count of steps."""
        replacer = replacer or self.replacer
        replacer.look()
        steps = 0
        while replacer.step(self.shipper.place.segment):
            steps += 1
        return steps

    def records(self, position: int = 0) -> list[bytes]:
        """What a reader of the mirror finds after a position."""
        source = MirrorSource(self.bucket, PREFIX, self.journal.store, position)
        return [payload for entry in source.entries() for payload in payloads_of(entry)]

    def in_complete_segments(self) -> list[str]:
        """Keys of objects of complete segments with a word of what was deleted."""
        last = pieces.name_of(self.journal.mark.segment, 0)[:10]
        return [key for key in self.bucket.sentinels() if f"/{last}-" not in key]


def payloads_of(entry: object) -> Iterator[bytes]:
    for place in record_places(entry.data, entry.header):  # type: ignore[attr-defined]  # an Entry
        yield bytes(entry.data[place.start : place.start + place.length])  # type: ignore[attr-defined]


@pytest.fixture
def ships(tmp_path: Path) -> Erasing:
    return Erasing(tmp_path)


def test_what_was_erased_goes_from_the_bucket(ships: Erasing, tmp_path: Path) -> None:
    """Readers find what is left, at the same positions; a second time, and a new process, do nothing."""
    before = ships.records()
    position = fetched(ships.bucket.objects, tmp_path / "before")
    assert ships.in_complete_segments()
    assert ships.replace() == 0
    ships.erase()
    assert ships.replace() > 10
    assert not ships.in_complete_segments()
    after = ships.records()
    assert len(after) == len(before) == 120
    assert [one for one in after if b'"kept"' in one] == [one for one in before if b'"kept"' in one]
    assert fetched(ships.bucket.objects, tmp_path / "after") == position
    for start in range(0, 120, 17):
        assert ships.records(start) == after[start:]
    assert ships.replacer.waiting == 0
    objects = dict(ships.bucket.objects)
    assert ships.replace() == 0
    ships.replace(ships.new_replacer())
    assert ships.bucket.objects == objects


def test_wherever_it_stops_the_next_process_finishes(ships: Erasing, tmp_path: Path) -> None:
    """And at each moment all records can be had."""
    ships.erase()
    whole = len(ships.records())
    position = fetched(ships.bucket.objects, tmp_path / "before")
    ships.bucket.breaks_after = ships.bucket.changes
    for rounds in range(500):
        ships.bucket.breaks_after += 1
        ships.replacer = ships.new_replacer()
        try:
            ships.replace()
            break
        except StoredError as error:
            assert "does not answer" in str(error)  # noqa: PT017 - the last process is not stopped
        if rounds % 7 == 0:
            assert len(ships.records()) == whole
            assert fetched(ships.bucket.objects, tmp_path / str(rounds)) == position
    assert ships.replacer.waiting == 0
    assert rounds > 20
    assert not ships.in_complete_segments()


def test_a_segment_that_is_erased_in_again_is_replaced_again(ships: Erasing) -> None:
    """Also where the generation before is not whole: its bytes are others."""
    ships.erase()
    ships.replacer.look()
    for _ in range(4):
        assert ships.replacer.step(ships.shipper.place.segment)
    ships.replacer.close()
    ships.erase("kept")
    ships.replace(ships.new_replacer())
    assert not ships.in_complete_segments()
    complete = [one for one in ships.records() if b'"kept"' in one]
    assert len(complete) < 10, "those of the last segment"
    names = [key.rpartition("/")[2] for key in ships.bucket.objects if generations.FOLDER in key]
    first = [one for one in generations.parse(sorted(names)) if one.segment == 1]
    assert [(one.number, one.is_clean) for one in first] == [(2, True)]


def test_of_two_mirrors_that_replace_one_stops(ships: Erasing) -> None:
    """They come to one key with other bytes."""
    ships.erase()
    below, replacers = ships.shipper.place.segment, []
    for job in ("gone", "kept"):
        ships.erase(job)  # each has its own bytes
        replacers.append(ships.new_replacer())
        replacers[-1].look()
        for _ in range(2):  # the last step before the first piece
            assert replacers[-1].step(below)
    assert replacers[0].step(below)
    with pytest.raises(MirrorConflictError, match="another mirror"):
        replacers[1].step(below)


def test_a_damaged_segment_replaces_nothing(ships: Erasing) -> None:
    """What is in the bucket may be the only sound copy; the others are replaced."""
    ships.erase(packs=False)
    path = ships.folder.segments()[1]
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    ships.replace()
    assert path.name in ships.replacer.fault
    assert ships.replacer.waiting == 1
    assert {key.rpartition("/")[2][:10] for key in ships.in_complete_segments()} == {f"{2:010d}"}
    assert len(ships.records()) == 120


def test_what_is_open_or_not_shipped_waits(ships: Erasing) -> None:
    """Its pieces must go first: the keeper waits for them too."""
    ships.erase()
    ships.replacer.look()
    assert not ships.replacer.step(1)


@pytest.mark.parametrize("below", [2, 100])
def test_a_reader_goes_on_where_its_segment_is_replaced(ships: Erasing, below: int) -> None:
    """In the middle of it, with or without the segments after it; each record comes once."""
    source = MirrorSource(ships.bucket, PREFIX, ships.journal.store, 0)
    entries = source.entries()
    found = [payload for _ in range(3) for payload in payloads_of(next(entries))]
    ships.erase()
    ships.replacer.look()
    while ships.replacer.step(min(below, ships.shipper.place.segment)):
        pass
    found += [payload for entry in entries for payload in payloads_of(entry)]
    found += [payload for entry in source.entries() for payload in payloads_of(entry)]
    assert len(found) == 120
    source.refuse_hole()


def test_what_was_erased_before_it_was_shipped_is_not_shipped_twice(ships: Erasing) -> None:
    """As in the mirror of a base that was restored."""
    ships.erase()
    ships.bucket = Removable()
    ships.shipper = ships.new_shipper(ships.bucket)
    ships.shipper.find(ships.journal.mark)
    ships.ship()
    objects = dict(ships.bucket.objects)
    ships.replace(ships.new_replacer())
    assert ships.bucket.objects == objects


def test_a_generation_without_a_piece_is_named(ships: Erasing, tmp_path: Path) -> None:
    """By a restore, and by a reader that goes on."""
    ships.erase()
    ships.replace()
    keys = sorted(key for key in ships.bucket.objects if generations.FOLDER in key)
    name = generations.name_of(2, 1, ships.piece_bytes)
    del ships.bucket.objects[next(key for key in keys if key.endswith(name))]
    with pytest.raises(StoredError, match="the mirror is damaged"):
        fetched(ships.bucket.objects, tmp_path / "damaged")
    source = MirrorSource(ships.bucket, PREFIX, ships.journal.store, 0)
    with pytest.raises(MirrorDamagedError, match="is missing"):
        list(source.entries())
