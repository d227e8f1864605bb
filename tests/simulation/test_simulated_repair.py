"""A repair puts its segments in their places: crashed at each call, it has changed nothing or can go on."""

from collections.abc import Callable

import pytest

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.datadir.layout import Folders
from perstack_stored.datadir.pending_repair import is_unfinished
from perstack_stored.offline.repair.swap import KEPT_PREFIX, carry_out, commit, prepare
from tests.simulation.disk import Disk, File
from tests.simulation.kernel import Kernel
from tests.simulation.patches import random_of, simulated

NAMES = ["0000000001.segment", "0000000002.segment", "0000000003.segment"]
NEW = NAMES[1:]
OLD = {name: b"old " + name.encode() for name in NAMES}
POWER_CUTS = 12


class _CrashError(BaseException):
    """The machine stops."""


def base() -> Disk:
    """A journal of three segments, and an index; all on disk."""
    disk = Disk()
    stored, journal = disk.folder(".stored"), disk.folder(".stored", "journal")
    for folder, names in ((journal, NAMES), (stored, ["index.sqlite", "index.sqlite-wal"])):
        for name in names:
            file = File(0o100640)
            file.write(b"old " + name.encode(), 0)
            file.begin_sync().end()
            folder.names[name] = folder.disk[name] = file
    return disk


def on(
    disk: Disk, seed: object, work: Callable[[FileSystem, Folders], object], dies_at: int | None = None
) -> int:
    """Do something on a machine with this disk, which may die at a call; returns how many calls were made."""
    Kernel.current = kernel = Kernel(disk, random_of(seed))
    folders = Folders(
        kernel.new_fd(disk.root),
        kernel.new_fd(disk.folder(".stored")),
        kernel.new_fd(disk.folder(".stored", "journal")),
    )

    def die(_name: str, _tear: object) -> None:
        if dies_at is not None and kernel.calls > dies_at:
            raise _CrashError

    kernel.before = die
    work(FileSystem(), folders)
    return kernel.calls


def repair(files: FileSystem, folders: Folders) -> None:
    """As a repair does when it knows what the new segments hold; one that was cut short is carried out."""
    if is_unfinished(files, folders.stored):
        carry_out(files, folders)
        return
    folder = prepare(files, folders.stored)
    for name in NEW:
        fd = files.create(name, 0o640, dir_fd=folder)
        files.write(fd, [b"new " + name.encode()], 0)
        files.sync_data(fd)
        files.close(fd)
    commit(files, folders, folder, NEW)


def journal_of(disk: Disk) -> dict[str, bytes]:
    files = disk.files_under(".stored", "journal")
    return {path.split("/")[-1]: bytes(file.data) for path, file in files.items()}


def is_done(disk: Disk) -> bool:
    journal = journal_of(disk)
    return all(journal[name].startswith(b"new") for name in NEW)


def unfinished(disk: Disk) -> bool:
    answers: list[bool] = []
    on(disk, 0, lambda files, folders: answers.append(is_unfinished(files, folders.stored)))
    return answers[0]


def check_repaired(disk: Disk) -> None:
    """New segments in their places, the damaged ones and the index kept beside, whatever is lost now."""
    after = disk.after_worst_power_cut()
    expected = {name: (b"new " if name in NEW else b"old ") + name.encode() for name in NAMES}
    assert journal_of(after) == expected
    kept = {
        path.split("/")[-1]: bytes(file.data)
        for path, file in after.files_under(".stored").items()
        if KEPT_PREFIX in path
    }
    for name in NEW:
        assert b"old " + name.encode() in kept.values(), name
    assert b"old index.sqlite" in kept.values()
    stored = after.folder(".stored")
    assert not [name for name in stored.names if name.startswith("index.sqlite")]


def test_a_repair_outlives_a_power_cut_when_it_has_ended() -> None:
    """What it says that it has done is on disk."""
    with simulated():
        disk = base()
        on(disk, 0, repair)
        check_repaired(disk)


def test_a_repair_that_is_cut_short_changed_nothing_or_is_carried_out() -> None:
    """At each call: the journal is as it was, or the next repair brings it to its end."""
    with simulated():
        calls = on(base(), 0, repair)
        assert calls > 30
        carried_out = 0
        for dies_at in range(calls):
            for cut in range(POWER_CUTS):
                disk = base()
                with pytest.raises(_CrashError):
                    on(disk, 0, repair, dies_at)
                random = random_of("repair", dies_at, cut)
                left = disk.after_power_cut(random) if cut else disk.copy()
                was_unfinished = unfinished(left)
                if was_unfinished or not is_done(left):
                    assert was_unfinished or journal_of(left) == OLD, (dies_at, cut)
                    on(left, cut, repair)
                    carried_out += 1
                else:
                    # Killed before it could say that it had ended: a power cut may take its last step.
                    left = left.after_worst_power_cut()
                    if unfinished(left):
                        on(left, cut, repair)
                check_repaired(left)
        assert carried_out > 100
