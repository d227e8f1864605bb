"""A backup holds all up to one position or does not count; what is restored is that history, and no other."""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from perstack_storage import Client, PositionGone
from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.errors import ConfigError, StoredError
from perstack_stored.offline.backup import manifest
from perstack_stored.offline.backup.at_time import position_at
from perstack_stored.offline.backup.copy import backup
from perstack_stored.offline.backup.manifest import BackupDamagedError, Manifest
from perstack_stored.offline.backup.restore import restore
from perstack_stored.offline.dump import Wanted, dump
from perstack_stored.offline.locked import locked_datadir
from tests.crash.load import load
from tests.helpers.daemon import eventually, files_of, running_daemon
from tests.helpers.datadir import Died, SimulatedDisk
from tests.helpers.raw_client import Raw, batch, event, session
from tests.offline.bases import (
    SMALL_SEGMENTS,
    Checked,
    answers,
    copy_base,
    make_base,
    make_base_of_segments,
    run,
    store,
)
from tests.offline.bases import (
    event as event_call,
)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four segments, each kind of record; never changed."""
    base = tmp_path_factory.mktemp("original") / "base"
    make_base_of_segments(base)
    return base


def manifest_of(target: Path) -> Manifest | None:
    with manifest.open_folder(FileSystem(), str(target), make=False) as folder:
        return manifest.read_manifest(folder)


def back_up(base: Path, target: Path, files: FileSystem | None = None) -> int:
    return backup(str(base), str(target), endpoint=None, verify_all=False, files=files).manifest.position


def bring_back(target: Path, base: Path, to: int | None = None, files: FileSystem | None = None) -> None:
    restore(str(target), str(base), to_position=to, files=files)


def records(base: Path) -> list[dict[str, Any]]:
    """All that the journal holds, in order: positions, times, sessions, values."""
    with locked_datadir(str(base), "test", reads_only=True) as held:
        return [json.loads(line) for line in dump(held, Wanted(show_secrets=True))]


def followed(base: Path) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Answers and tree, when a daemon has served the base until all was followed."""
    with running_daemon(base) as daemon:
        with Raw(daemon.endpoint) as raw:
            eventually(lambda: raw.ask("stats").value["tree"]["lagRecords"] == 0, "the tree is complete")
        answered = answers(daemon)
        assert daemon.stop() == 0
    return answered, files_of(base)


# --- there and back --------------------------------------------------------------------------------


def test_a_restored_base_has_the_same_answers_and_tree(original: Path, tmp_path: Path) -> None:
    """By the commands; it is clean for check, and another history: a subscriber of the old one learns it."""
    source = copy_base(original, tmp_path / "source")
    taken = run("backup", source, str(tmp_path / "backup"))
    assert (taken.returncode, taken.stderr) == (0, "")
    assert "position 20: copied 4 of 4 segments" in taken.stdout
    restored = run("restore", tmp_path / "restored", str(tmp_path / "backup"))
    assert (restored.returncode, restored.stderr) == (0, "")
    assert records(tmp_path / "restored") == records(source)
    assert followed(tmp_path / "restored") == followed(source)
    checked = Checked(tmp_path / "restored")
    assert (checked.status, checked.findings) == (0, [])
    with running_daemon(source) as old, Raw(old.endpoint) as raw:
        name = raw.ask("hello").value["store"]
    with running_daemon(tmp_path / "restored") as new, Raw(new.endpoint) as raw:
        assert raw.ask("hello").value["store"] != name
        assert raw.ask("readAll", {"after": 5, "store": name}).code == "POSITION_GONE"
        assert raw.store("storeEvent", event("goes on")) == 21


@pytest.mark.parametrize("to", range(1, 21))
def test_any_position_can_be_restored(original: Path, tmp_path: Path, to: int) -> None:
    """The history up to there, as a replay of the journal to that position gives it."""
    back_up(original, tmp_path / "backup")
    bring_back(tmp_path / "backup", tmp_path / "restored", to)
    assert records(tmp_path / "restored") == records(original)[:to]


def test_any_time_can_be_restored(original: Path, tmp_path: Path) -> None:
    """The last record of that time is the last one; the command takes the time, the base holds no more."""
    target = tmp_path / "backup"
    back_up(original, target)
    all_records = records(original)
    for record in (all_records[0], all_records[len(all_records) // 2], all_records[-1]):
        last = max(one["position"] for one in all_records if one["time"] <= record["time"])
        assert position_at(str(target), record["time"]) == last
    time_ms = all_records[len(all_records) // 2]["time"]
    text = datetime.fromtimestamp(time_ms / 1000, UTC).isoformat()
    done = run("restore", tmp_path / "restored", "--to-time", text, str(target))
    assert done.returncode == 0, done.stderr
    assert records(tmp_path / "restored")[-1]["position"] == position_at(str(target), time_ms)


def test_a_time_out_of_reach_is_refused_with_the_range(original: Path, tmp_path: Path) -> None:
    """An operator learns from when to when the backup reaches."""
    target = tmp_path / "backup"
    back_up(original, target)
    taken = manifest_of(target)
    assert taken is not None
    first = records(original)[0]["time"]
    for time_ms in (first - 1, taken.timeMs + 1):
        with pytest.raises(ConfigError) as caught:
            position_at(str(target), time_ms)
        for reach in (first, taken.timeMs):
            shown = datetime.fromtimestamp(reach / 1000, UTC).isoformat(timespec="milliseconds")
            assert shown.removesuffix("+00:00") in str(caught.value)
    for wrong in ("yesterday", "9999-12-31T23:59-23:59", "0001-01-01T00:00+23:59"):
        assert run("restore", tmp_path / "restored", "--to-time", wrong, str(target)).returncode == 2
    assert not (tmp_path / "restored").exists()


def test_a_restore_may_end_within_a_batch(tmp_path: Path) -> None:
    """The records of one message are cut; a daemon goes on after them, and knows the session so far."""
    name = session()
    values = [json.dumps(event(f"e{n}", timestamp=n)).encode() for n in range(10)]
    items, body = batch([("storeEvent", value) for value in values])
    with running_daemon(tmp_path / "base") as daemon, Raw(daemon.endpoint) as raw:
        raw.store("storeEvent", event("before"))
        assert raw.ask("store", body, items=items, session=name, seq=1).header["count"] == 10
        assert daemon.stop() == 0
    back_up(tmp_path / "base", tmp_path / "backup")
    bring_back(tmp_path / "backup", tmp_path / "restored", 5)
    with running_daemon(tmp_path / "restored") as daemon, Raw(daemon.endpoint) as raw:
        assert [record["value"]["id"] for record in raw.read_all()] == ["before", "e0", "e1", "e2", "e3"]
        assert raw.ask("hello", session=name).value["session"] == {"last": 4}
        assert raw.ask("storeEvent", values[3], session=name, seq=4).position == 5
        assert raw.ask("storeEvent", values[4], session=name, seq=5).position == 6
        eventually(lambda: len(files_of(daemon.base)) == 6, "the tree is complete")
        assert daemon.stop() == 0
    assert Checked(tmp_path / "restored").findings == []


def test_a_restore_does_not_cut_an_atomic_batch_in_two(tmp_path: Path) -> None:
    """Asked for a position within it, the history ends before it; its client stores it once more."""
    name = session()
    items, body = batch([("storeEvent", json.dumps(event(f"e{n}", timestamp=n)).encode()) for n in range(4)])
    with running_daemon(tmp_path / "base") as daemon, Raw(daemon.endpoint) as raw:
        raw.store("storeEvent", event("before"))
        assert raw.ask("store", body, items=items, session=name, seq=1, atomic=True).header["count"] == 4
        raw.store("storeEvent", event("behind", timestamp=9))
        assert daemon.stop() == 0
    back_up(tmp_path / "base", tmp_path / "backup")
    for to, left in ((4, 1), (5, 5), (6, 6)):
        base = tmp_path / f"restored{to}"
        assert restore(str(tmp_path / "backup"), str(base), to_position=to).position == left
        assert len(records(base)) == left
    with running_daemon(tmp_path / "restored4") as daemon, Raw(daemon.endpoint) as raw:
        assert raw.ask("store", body, items=items, session=name, seq=1, atomic=True).header["position"] == 2
        assert daemon.stop() == 0


# --- beside a daemon -------------------------------------------------------------------------------


def test_a_restore_brings_back_the_named_cursors(original: Path, tmp_path: Path) -> None:
    """As of the backup. A subscriber of the old history learns that this is another one."""
    base, target = copy_base(original, tmp_path / "base"), tmp_path / "backup"
    with running_daemon(base, *SMALL_SEGMENTS) as daemon, Client(daemon.endpoint) as client:
        client.set_cursor("early", 3)
        client.set_cursor("late", 12)
        client.set_cursor("deleted", 1)
        client.delete_cursor("deleted")
        before = client.hello()["store"]
        store(daemon.endpoint, [event_call("after the cursors")])
        assert daemon.stop() == 0
    last = back_up(base, target)
    bring_back(target, tmp_path / "restored")
    with running_daemon(tmp_path / "restored") as daemon, Client(daemon.endpoint) as client:
        assert {one["name"]: one["position"] for one in client.cursors()} == {"early": 3, "late": 12}
        rest = [one["position"] for one in client.follow(name="late", idle_s=0)]
        assert rest == list(range(13, last + 1))
        with pytest.raises(PositionGone):
            next(client.follow(name="late", store=before, idle_s=0))
        assert daemon.stop() == 0


def test_a_daemon_that_serves_elsewhere_is_found(tmp_path: Path) -> None:
    """Under systemd it does: its socket is not the base's."""
    base, endpoint = tmp_path / "base", f"ipc://{tmp_path}/elsewhere.sock"
    with running_daemon(base, "--bind", endpoint), Raw(endpoint) as raw:
        raw.store("storeEvent", event())
        assert back_up(base, tmp_path / "backup") == 1
        assert raw.ask("ping").header["ok"]


def test_backups_under_load_hold_what_was_acknowledged_before(tmp_path: Path) -> None:
    """Three, one on the other, while clients store: each is the history up to its position."""
    target = tmp_path / "backup"
    with running_daemon(tmp_path / "base", *SMALL_SEGMENTS) as daemon:
        kinds = ("awaiting", "batching")
        with load(daemon.endpoint, tmp_path / "history", 1, kinds), Client(daemon.endpoint) as client:
            for n in range(3):
                acknowledged = client.store_event(event(f"before backup {n}", text="x" * 400_000))
                enough = acknowledged + 300
                eventually(lambda enough=enough: client.stats()["position"] >= enough, "the load goes on")  # type: ignore[misc]
                done = backup(str(daemon.base), str(target), endpoint=None, verify_all=n == 2)
                assert done.manifest.position >= acknowledged
                assert done.copied_segments <= len(done.manifest.segments)
                shutil.copytree(target, tmp_path / f"backup{n}")
        assert done.copied_segments < len(done.manifest.segments)
        assert daemon.stop() == 0
    whole = records(tmp_path / "base")
    for n in range(3):
        manifest = manifest_of(tmp_path / f"backup{n}")
        assert manifest is not None
        bring_back(tmp_path / f"backup{n}", tmp_path / f"restored{n}")
        assert records(tmp_path / f"restored{n}") == whole[: manifest.position]
    middle = len(whole) // 3
    bring_back(target, tmp_path / "middle", middle)
    assert records(tmp_path / "middle") == whole[:middle]
    followed(tmp_path / "middle")
    assert Checked(tmp_path / "middle").findings == []


def test_a_backup_is_not_replaced_by_another_continuation(original: Path, tmp_path: Path) -> None:
    """Of a base that was put back from an older copy and grew beyond it: its records would go."""
    source, target = copy_base(original, tmp_path / "source"), tmp_path / "backup"
    older = copy_base(original, tmp_path / "older")
    for base, later in ((source, 2), (older, 4)):
        with running_daemon(base) as daemon:
            store(daemon.endpoint, [event_call(f"{base.name} {n}") for n in range(later)])
            assert daemon.stop() == 0
    assert back_up(original, tmp_path / "earlier") == 20
    assert back_up(source, target) == 22
    before = files_in(target)
    with pytest.raises(ConfigError, match="another continuation of this history"):
        back_up(older, target)
    assert files_in(target) == before
    assert back_up(older, tmp_path / "earlier") == 24


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_only_what_is_new_is_copied(original: Path, tmp_path: Path) -> None:
    """Segments that had ended stay as they are, to the inode; those that were replaced go."""
    source = copy_base(original, tmp_path / "source")
    target = tmp_path / "backup"
    assert back_up(source, target) == 20
    before = {path.name: path.stat().st_ino for path in target.iterdir()}
    with running_daemon(source) as daemon:
        store(daemon.endpoint, [event_call("later")])
        assert daemon.stop() == 0
    done = backup(str(source), str(target), endpoint=None, verify_all=False)
    assert (done.manifest.position, done.copied_segments) == (21, 1)
    after = {path.name: path.stat().st_ino for path in target.iterdir()}
    assert len(after) == len(before) == 5
    assert len(before.items() & after.items()) == 3
    again = backup(str(source), str(target), endpoint=None, verify_all=True)
    assert (again.copied_segments, again.copied_bytes) == (0, 0)
    assert again.checked_bytes > 0


# --- cut short -------------------------------------------------------------------------------------


def _opened_again(fd: int) -> int:
    return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_DIRECTORY)  # a dup would share the lock


class _Disk(SimulatedDisk):
    """Forgets names in folders that the process that died had open."""

    def create(self, name: str, mode: int, *, dir_fd: int) -> int:
        return super().create(name, mode, dir_fd=_opened_again(dir_fd))

    def rename(self, source: str, target: str, *, source_dir: int, target_dir: int) -> None:
        folder = _opened_again(source_dir)
        super().rename(source, target, source_dir=folder, target_dir=folder)


@pytest.mark.parametrize("first", [False, True])
def test_a_backup_killed_at_any_step_is_never_mistaken_for_a_good_one(
    original: Path, tmp_path: Path, *, first: bool
) -> None:
    """On a new folder and on one with a backup: what counts is the old one or the new one, and is whole."""
    grown = copy_base(original, tmp_path / "grown")
    with running_daemon(grown) as daemon:
        store(daemon.endpoint, [event_call("later", text="x" * 100_000)])
        assert daemon.stop() == 0
    all_records = records(grown)
    step = 0
    counted: set[int] = set()
    while True:
        step += 1
        target = tmp_path / f"{first}{step}"
        if not first:
            back_up(original, target)
        disk = _Disk(step, dies_at=step)
        try:
            back_up(grown, target, disk)
        except Died:
            disk.cut_power()
            died = True
        else:
            died = False
        manifest = manifest_of(target) if target.exists() else None
        counted.add(0 if manifest is None else manifest.position)
        if not died:
            assert manifest is not None
            assert manifest.position == 21
            break
        if manifest is not None:
            bring_back(target, tmp_path / f"restored{first}{step}")
            assert records(tmp_path / f"restored{first}{step}") == all_records[: manifest.position]
        assert back_up(grown, target) == 21
        names = {path.name for path in target.iterdir()}
        after = manifest_of(target)
        assert after is not None
        assert names == {"backup.json", *(copy.file for copy in after.segments)}
    assert step > 30
    assert counted == ({0, 21} if first else {20, 21})


def test_the_copies_have_their_names_on_disk_before_they_count(original: Path, tmp_path: Path) -> None:
    """Whatever order the disk has of its own: no power cut leaves a manifest without what it names."""

    class Noting(FileSystem):
        def __init__(self) -> None:
            self.unsynced: set[str] = set()
            self.beside: list[set[str]] = []

        def rename(self, source: str, target: str, *, source_dir: int, target_dir: int) -> None:
            if target == "backup.json":
                self.beside.append(set(self.unsynced))
            super().rename(source, target, source_dir=source_dir, target_dir=target_dir)
            self.unsynced.add(target)

        def sync(self, fd: int) -> None:
            super().sync(fd)
            self.unsynced.clear()

    files = Noting()
    back_up(original, tmp_path / "backup", files)
    assert files.beside == [set()]
    assert files.unsynced == set()


def test_a_restore_killed_at_any_step_leaves_no_base_or_a_whole_one(original: Path, tmp_path: Path) -> None:
    """And can be run again, until there is one."""
    back_up(original, tmp_path / "backup")
    expected = records(original)[:17]
    step = 0
    while True:
        step += 1
        base = tmp_path / f"base{step}"
        try:
            bring_back(tmp_path / "backup", base, 17, SimulatedDisk(step, dies_at=step))
        except Died:
            pass
        else:
            break
        if not (base / ".stored").exists():
            bring_back(tmp_path / "backup", base, 17)
        assert records(base) == expected
        assert [path.name for path in base.iterdir()] == [".stored"]
    assert step > 30


class _Folders(SimulatedDisk):
    """Forgets all data that was not synced, and names folder by folder: those of some folders, or of all."""

    def __init__(self, seed: int, *, dies_at: int | None) -> None:
        super().__init__(seed, dies_at=dies_at)
        self._undo: list[tuple[int, Callable[[], object]]] = []

    def sync(self, fd: int) -> None:
        inode = os.fstat(fd).st_ino
        self._undo = [(folder, undo) for folder, undo in self._undo if folder != inode]

    def create(self, name: str, mode: int, *, dir_fd: int) -> int:
        fd = FileSystem.create(self, name, mode, dir_fd=dir_fd)
        self._note(dir_fd, lambda folder: os.unlink(name, dir_fd=folder))
        return fd

    def make_dir(self, name: str, mode: int, *, dir_fd: int | None = None) -> bool:
        assert dir_fd is not None
        is_new = FileSystem.make_dir(self, name, mode, dir_fd=dir_fd)
        if is_new:
            self._note(dir_fd, lambda folder: shutil.rmtree(name, dir_fd=folder))
        return is_new

    def rename(self, source: str, target: str, *, source_dir: int, target_dir: int) -> None:
        assert source_dir == target_dir
        FileSystem.rename(self, source, target, source_dir=source_dir, target_dir=target_dir)
        self._note(source_dir, lambda f: os.rename(target, source, src_dir_fd=f, dst_dir_fd=f))

    def _note(self, folder: int, undo: Callable[[int], object]) -> None:
        again = _opened_again(folder)
        self._undo.append((os.fstat(folder).st_ino, lambda: undo(again)))

    def cut_power(self, *, loses_all: bool = False) -> None:
        self.lose_data()
        folders = {folder for folder, _ in self._undo}
        lost = {folder for folder in sorted(folders) if loses_all or self.random.random() < 0.5}
        for folder, undo in reversed(self._undo):
            if folder in lost:
                with contextlib.suppress(FileNotFoundError):  # gone with its folder
                    undo()


def test_a_power_cut_in_a_restore_leaves_no_base_or_a_whole_one(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any call, and right after the last one; then it is there, whatever was not synced is lost."""
    back_up(original, tmp_path / "backup")
    expected = records(original)[:17]
    # A process without power cleans up nothing.
    monkeypatch.setattr(
        "perstack_stored.offline.backup.restore.shutil", SimpleNamespace(rmtree=lambda _path: None)
    )
    whole = step = 0
    is_done = False
    while not is_done:
        step += 1
        base = tmp_path / f"base{step}"
        disk = _Folders(step, dies_at=step)
        try:
            bring_back(tmp_path / "backup", base, 17, disk)
            is_done = True
        except Died:
            pass
        disk.cut_power(loses_all=is_done)
        if (base / ".stored").exists():
            whole += 1
            assert records(base) == expected
    assert whole >= 1
    assert records(tmp_path / f"base{step}") == expected
    assert step > 30


# --- damage ----------------------------------------------------------------------------------------


def test_a_backup_that_is_damaged_is_refused_and_leaves_no_base(original: Path, tmp_path: Path) -> None:
    """Any byte of any file, a file cut or missing, a manifest that is none; the damage is named."""
    target = tmp_path / "backup"
    back_up(original, target)
    random = Random(7)

    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
        path.write_bytes(data)

    def cut(path: Path) -> None:
        path.write_bytes(path.read_bytes()[: random.randrange(path.stat().st_size)])

    ways: list[Callable[[Path], object]] = [
        flip,
        flip,
        flip,
        cut,
        Path.unlink,
        lambda p: p.write_bytes(b"{}"),
    ]
    for path in sorted(target.iterdir()):
        for number, damage in enumerate(ways):
            damaged = tmp_path / f"{path.name}-{number}"
            shutil.copytree(target, damaged)
            damage(damaged / path.name)
            base = tmp_path / f"base-{path.name}-{number}"
            with pytest.raises(StoredError) as caught:
                bring_back(damaged, base)
            if damage is not Path.unlink or path.name != "backup.json":
                assert isinstance(caught.value, BackupDamagedError)
                assert path.name in str(caught.value)
            assert not base.exists() or not list(base.iterdir())


def test_a_manifest_with_another_time_or_position_is_refused(original: Path, tmp_path: Path) -> None:
    """It can still be read, and says what was never written: its checksum tells."""
    back_up(original, tmp_path / "backup")
    path = tmp_path / "backup" / "backup.json"
    good = path.read_text()
    for field in ("timeMs", "position"):
        path.write_text(re.sub(rf'("{field}":\d*)(\d)', lambda m: f"{m[1]}{9 - int(m[2])}", good))
        assert path.read_text() != good
        with pytest.raises(BackupDamagedError, match="does not match its checksum"):
            manifest_of(tmp_path / "backup")


def test_a_copy_that_reads_back_wrong_does_not_count(original: Path, tmp_path: Path) -> None:
    """What the disk makes of it is looked at before the manifest names it."""

    class Forgetful(FileSystem):
        def rename(self, source: str, target: str, *, source_dir: int, target_dir: int) -> None:
            if source.endswith(".part") and "00000003-" in source:
                fd = self.open(source, dir_fd=source_dir, write=True)
                self.write(fd, [b"\0"], 200)
                self.close(fd)
            super().rename(source, target, source_dir=source_dir, target_dir=target_dir)

    with pytest.raises(BackupDamagedError, match="0000000003-"):
        back_up(original, tmp_path / "backup", Forgetful())
    assert manifest_of(tmp_path / "backup") is None


# --- refused ---------------------------------------------------------------------------------------


def test_what_can_not_be_backed_up_or_restored_is_named(original: Path, tmp_path: Path) -> None:
    """Nothing is changed by any of these."""
    target = tmp_path / "backup"
    back_up(original, target)
    other = tmp_path / "other"
    make_base(other, [event_call()])
    shorter = copy_base(original, tmp_path / "shorter")
    bring_back(target, tmp_path / "again", 12)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "letter.txt").write_text("mine")
    (tmp_path / "empty").mkdir()

    def refused(words: str, act: Callable[[], object]) -> None:
        with pytest.raises(ConfigError, match=words):
            act()

    refused("another history", lambda: back_up(other, target))
    refused("another history", lambda: back_up(tmp_path / "again", target))
    refused("no backup, such as 'letter.txt'", lambda: back_up(original, tmp_path / "foreign"))
    refused("within the base", lambda: back_up(shorter, shorter / "jobs" / "backup"))
    refused("within the base", lambda: back_up(shorter, shorter))
    refused("not the base", lambda: back_up(tmp_path / "empty", tmp_path / "b"))
    refused("is not empty", lambda: bring_back(target, other))
    refused("no backup that was completed", lambda: bring_back(tmp_path / "empty", tmp_path / "b"))
    refused("positions 1 to 20, not 21", lambda: bring_back(target, tmp_path / "b", 21))
    with manifest.open_folder(FileSystem(), str(target), make=True):
        refused("another process", lambda: back_up(original, target))
        refused("another process", lambda: bring_back(target, tmp_path / "b"))
    for path in sorted((shorter / ".stored" / "journal").glob("*.segment"))[2:]:
        path.unlink()
    for path in (shorter / ".stored").glob("index.sqlite*"):
        path.unlink()
    (shorter / ".stored" / "tree.cursor").unlink()
    refused("up to position 20, the base only to", lambda: back_up(shorter, target))
    assert manifest_of(target) is not None
    assert (tmp_path / "foreign" / "letter.txt").read_text() == "mine"
