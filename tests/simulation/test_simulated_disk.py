"""The simulated disk: what it may lose when the power is cut, what it may not, and what a kill leaves."""

from random import Random

from tests.simulation.disk import SECTOR_BYTES, Disk, File, Folder


def disk_with(data: bytes) -> tuple[Disk, File]:
    """A disk with one file, all of it synced."""
    disk = Disk()
    file = File(0o100640)
    file.write(data, 0)
    disk.change((disk.root, "file", file))
    disk.sync_all()
    return disk, file


def found(disk: Disk, *path: str) -> bytes | None:
    """Content of a file, None if it is not there."""
    file = disk.find(*path)
    return bytes(file.data) if isinstance(file, File) else None


def outcomes(disk: Disk, *path: str, rounds: int = 300) -> set[bytes | None]:
    """What a file may hold when the power is back."""
    return {found(disk.after_power_cut(Random(seed)), *path) for seed in range(rounds)}


def test_what_was_synced_outlives_every_power_cut() -> None:
    """Synced bytes and names are there, whatever is unsynced beside them."""
    disk, file = disk_with(b"synced" * 500)
    other = File(0o100640)
    disk.change((disk.root, "other", other))
    other.write(b"x" * 9000, 0)
    assert outcomes(disk, "file") == {b"synced" * 500}
    file.write(b"S", 2999)
    file.begin_sync().end()
    assert {(content or b"")[2999:] for content in outcomes(disk, "file")} == {b"S"}


def test_of_unsynced_sectors_any_subset_is_lost() -> None:
    """With two sectors rewritten, each of the four combinations can be left, and torn ones too."""
    disk, file = disk_with(b"a" * 2 * SECTOR_BYTES)
    file.write(b"b" * 2 * SECTOR_BYTES, 0)
    halves = {
        ((content or b"")[:SECTOR_BYTES], (content or b"")[SECTOR_BYTES:])
        for content in outcomes(disk, "file")
    }
    whole = {(x * SECTOR_BYTES, y * SECTOR_BYTES) for x in (b"a", b"b") for y in (b"a", b"b")}
    assert whole < halves
    assert any(b"a" in first and b"b" in first for first, _ in halves)  # torn inside of a sector
    assert {len(content or b"") for content in outcomes(disk, "file")} == {2 * SECTOR_BYTES}


def test_an_unsynced_size_is_the_old_one_the_new_one_or_between() -> None:
    """A file that grew may be as short as before, with zeros where its bytes were lost."""
    disk, file = disk_with(b"a" * 100)
    file.write(b"b" * 5000, 100)
    contents = outcomes(disk, "file")
    assert {100, 5100} < {len(content or b"") for content in contents}
    assert any(content and content.endswith(bytes(600)) for content in contents)
    assert all(content and content.startswith(b"a" * 100) for content in contents)


def test_of_unsynced_names_any_subset_is_lost_but_no_half_of_a_rename() -> None:
    """A file moved by an unsynced rename is under one name or the other, never under none or both."""
    disk, _ = disk_with(b"old")
    new = File(0o100640)
    new.write(b"new", 0)
    disk.change((disk.root, "new", new))
    disk.sync_all()
    disk.change((disk.root, "new", None), (disk.root, "file", new))
    seen = set()
    for seed in range(200):
        after = disk.after_power_cut(Random(seed))
        seen.add((found(after, "file"), found(after, "new")))
    assert seen == {(b"old", b"new"), (b"new", None)}


def test_a_synced_folder_has_its_names_but_not_those_of_others() -> None:
    """A sync of a folder keeps its own changes; a folder made beside it may still be lost."""
    disk = Disk()
    inner = Folder()
    disk.change((disk.root, "inner", inner))
    file = File(0o100640)
    disk.change((inner, "file", file))
    disk.sync_names(inner)
    assert disk.after_worst_power_cut().find("inner") is None
    disk.sync_names(disk.root)
    assert isinstance(disk.after_worst_power_cut().find("inner", "file"), File)


def test_a_sync_covers_what_was_written_before_it_began() -> None:
    """What comes while a sync is under way is not covered by it."""
    disk, file = disk_with(b"a" * SECTOR_BYTES)
    file.write(b"b", 0)
    sync = file.begin_sync()
    file.write(b"c", 1)
    sync.end()
    assert (found(disk.after_worst_power_cut(), "file") or b"")[:3] == b"baa"


def test_after_a_failed_write_back_the_page_cache_lies() -> None:
    """What failed to be written reads well, counts as clean, and is gone after a power cut."""
    disk, file = disk_with(b"a" * SECTOR_BYTES)
    file.write(b"b" * SECTOR_BYTES, 0)
    file.drop(Random(2))
    assert bytes(file.data) == b"b" * SECTOR_BYTES
    file.begin_sync().end()  # nothing is dirty: it reports a success
    killed = disk.copy()
    assert found(killed, "file") == b"b" * SECTOR_BYTES
    assert found(killed.after_power_cut(Random(1)), "file") == b"a" * SECTOR_BYTES
    file.forget()
    assert bytes(file.data) == b"a" * SECTOR_BYTES


def test_a_kill_loses_nothing_and_syncs_nothing() -> None:
    """After a kill all that was written is there, and may still be lost."""
    disk, file = disk_with(b"a" * SECTOR_BYTES)
    file.write(b"b" * SECTOR_BYTES, 0)
    killed = disk.copy()
    assert found(killed, "file") == b"b" * SECTOR_BYTES
    assert found(killed.after_worst_power_cut(), "file") == b"a" * SECTOR_BYTES
