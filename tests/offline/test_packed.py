"""The offline tools on packed segments: as on plain ones, and each damaged byte is named."""

import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

import pytest

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.journal import packed_format
from perstack_stored.offline.backup import manifest
from perstack_stored.offline.backup.copy import Done, backup
from perstack_stored.offline.backup.manifest import BackupDamagedError, Manifest
from perstack_stored.offline.backup.restore import restore
from perstack_stored.offline.dump import Wanted, dump
from perstack_stored.offline.locked import locked_datadir
from tests.helpers.daemon import files_of
from tests.helpers.datadir import JournalFolder, SimulatedDisk
from tests.helpers.packed import pack_all
from tests.offline.bases import copy_base, run, segments
from tests.offline.damages import flip
from tests.offline.inprocess import Checked, Items, Repaired, Started
from tests.offline.packed_flips import flip_all, make

BLOCK_BYTES = 1024


@pytest.fixture(scope="module")
def expected(_stored_in_segments: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Items]:
    """The answers of the base as it was before packing."""
    return Started(copy_base(_stored_in_segments, tmp_path_factory.mktemp("whole") / "base")).answers


@pytest.fixture(scope="module")
def _packed(_stored_in_segments: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = copy_base(_stored_in_segments, tmp_path_factory.mktemp("packed") / "base")
    pack_all(base / ".stored/journal", BLOCK_BYTES)
    return base


@pytest.fixture
def packed(_packed: Path, tmp_path: Path) -> Path:
    """A stopped base of three packed segments and a plain one."""
    return copy_base(_packed, tmp_path / "packed")


def records(base: Path) -> list[dict[str, Any]]:
    """All that the journal holds."""
    with locked_datadir(str(base), "test", reads_only=True) as held:
        return [json.loads(line) for line in dump(held, Wanted(show_secrets=True))]


def back_up(base: Path, target: Path) -> Done:
    return backup(str(base), str(target), endpoint=None, verify_all=True)


def manifest_of(target: Path) -> Manifest:
    with manifest.open_folder(FileSystem(), str(target), make=False) as folder:
        found = manifest.read_manifest(folder)
    assert found is not None
    return found


def test_all_tools_read_a_packed_journal(
    packed: Path, base_of_segments: Path, expected: dict[str, Items]
) -> None:
    """Check, dump, repair, a start and a rebuild find what they found before."""
    assert not Checked(packed).lines
    assert records(packed) == records(base_of_segments)
    assert Repaired(packed).done is None
    assert Started(packed).answers == expected
    files = files_of(packed)
    shutil.rmtree(packed / "jobs")
    (packed / ".stored/index.sqlite").unlink()
    done = run("rebuild", packed)
    assert (done.returncode, done.stderr) == (0, "")
    assert files_of(packed) == files
    assert not Checked(packed).lines


def test_a_segment_of_an_older_backup_is_not_copied_again_when_it_is_packed(
    base_of_segments: Path, tmp_path: Path
) -> None:
    """Its logical bytes are the same. A new backup copies the packed files as they are."""
    base = base_of_segments
    assert back_up(base, tmp_path / "older").copied_segments == 4
    packed = pack_all(base / ".stored/journal", BLOCK_BYTES)
    assert back_up(base, tmp_path / "older").copied_segments == 0
    assert manifest_of(tmp_path / "older").format == 1
    assert back_up(base, tmp_path / "newer").copied_segments == 4
    taken = manifest_of(tmp_path / "newer")
    assert taken.format == 2
    assert [bool(copy.logicalBytes) for copy in taken.segments] == [True, True, True, False]
    for copy, path in zip(taken.segments, packed, strict=False):
        assert copy.file.endswith("-p.segment")
        assert (tmp_path / "newer" / copy.file).read_bytes() == path.read_bytes()
    assert back_up(base, tmp_path / "newer").copied_segments == 0


@pytest.mark.parametrize("to", [None, 1, 5, 9, 12, 17])
@pytest.mark.parametrize("with_kept", [True, False])
def test_a_packed_backup_is_restored_to_any_position(
    base_of_segments: Path, tmp_path: Path, to: int | None, with_kept: bool
) -> None:
    """Whole segments stay packed; one that is cut is plain, as is one with void copies after its end."""
    packed = base_of_segments
    pack_all(packed / ".stored/journal", BLOCK_BYTES, with_kept=with_kept)
    back_up(packed, tmp_path / "backup")
    target = tmp_path / "restored"
    restore(str(tmp_path / "backup"), str(target), to_position=to)
    assert records(target) == records(packed)[:to]
    started = Started(target)
    assert {item["position"] for item in started.answers["readAll"]} <= set(range(1, (to or 20) + 1))
    assert not Checked(target).findings
    versions = [int.from_bytes(path.read_bytes()[8:10], "little") for path in segments(target)]
    if to is None:
        assert versions[:4] == ([1, 1, 1, 1] if with_kept else [2, 2, 2, 1])


def test_what_was_restored_packed_outlives_a_power_cut(base_of_segments: Path, tmp_path: Path) -> None:
    """The data of each segment is on disk when the restore ends."""
    pack_all(base_of_segments / ".stored/journal", BLOCK_BYTES, with_kept=False)
    back_up(base_of_segments, tmp_path / "backup")
    target, disk = tmp_path / "restored", SimulatedDisk(1)
    restore(str(tmp_path / "backup"), str(target), to_position=None, files=disk)
    disk.lose_data()
    assert records(target) == records(base_of_segments)


def test_a_damaged_packed_copy_is_named(packed: Path, tmp_path: Path) -> None:
    """No byte of it may change: the restore makes no base."""
    back_up(packed, tmp_path / "backup")
    copy = manifest_of(tmp_path / "backup").segments[1]
    data = (tmp_path / "backup" / copy.file).read_bytes()
    random = Random(11)
    for place in sorted(random.sample(range(len(data)), 25)):
        bad = bytearray(data)
        bad[place] ^= 1 << random.randrange(8)
        (tmp_path / "backup" / copy.file).write_bytes(bad)
        with pytest.raises(BackupDamagedError):
            restore(str(tmp_path / "backup"), str(tmp_path / "restored"), to_position=None)
        assert not (tmp_path / "restored/.stored").exists()


def test_each_flipped_byte_of_a_packed_segment_is_named(packed: Path) -> None:
    """Check finds it, and changes nothing."""
    random = Random(13)
    for path in segments(packed)[:3]:
        data = path.read_bytes()
        table = packed_format.table_bytes(packed_format.blocks_stated(data))
        for place in (*random.sample(range(table), 12), *random.sample(range(table, len(data)), 12)):
            bad = bytearray(data)
            bad[place] ^= 1 << random.randrange(8)
            path.write_bytes(bad)
            assert "journal_damage" in Checked(packed).findings, (path.name, place)
            assert path.read_bytes() == bad
        path.write_bytes(data)
    assert not Checked(packed).lines


def test_flipped_bits_in_blocks_of_the_keepers_size_are_named(tmp_path: Path) -> None:
    """`make packed-flips` tries ten thousand."""
    folder = JournalFolder(tmp_path / "journal")
    figures = flip_all(folder, make(folder), 12, Random(3))
    assert figures["named"] == 12


BLOCK = 300
DAMAGE = {
    "a block": [(1, BLOCK)],
    "the header": [(1, 20)],
    "the version": [(1, 8)],
    "the magic": [(1, 0)],
    "the salt": [(2, 57)],
    "the first position": [(2, 33)],
    "the size of the blocks": [(1, 65)],
    "the place of a block": [(1, 80)],
    "the length of a block": [(1, 88)],
    "the checksum of a block": [(1, 92)],
    "blocks of all segments": [(0, BLOCK), (1, BLOCK), (2, BLOCK)],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_repair_takes_back_what_a_damaged_block_held(
    packed: Path, damage: list[tuple[int, int]], expected: dict[str, Items]
) -> None:
    """From index and tree; what nothing vouches for becomes a gap, and is named."""
    files = files_of(packed)
    for number, offset in damage:
        flip(segments(packed)[number], offset)
    assert "journal_damage" in Checked(packed).findings
    done = Repaired(packed)
    assert done.done is not None
    # Values that a later one replaced, or that repeat an earlier one, have no copy elsewhere.
    assert done.gone <= {2, 5, 9, 13}
    checked = Checked(packed)
    assert "journal_damage" not in checked.findings
    assert checked.positions("journal_gap") == done.gone
    started = Started(packed)
    if not done.gone:
        assert started.answers == expected
    assert files_of(packed) == files
    assert Repaired(packed).done is None
