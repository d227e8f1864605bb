"""A backup beside a daemon holds all that was acknowledged, and copies what is new."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from perstack_storage import Client
from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.errors import ConfigError
from perstack_stored.offline.backup import manifest
from perstack_stored.offline.backup.copy import backup
from tests.crash.load import load
from tests.helpers.daemon import eventually, running_daemon
from tests.helpers.raw_client import Raw, event
from tests.offline.backups import back_up, bring_back, followed, manifest_of, records
from tests.offline.bases import SMALL_SEGMENTS, Checked, copy_base, make_base, store
from tests.offline.bases import event as event_call


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
