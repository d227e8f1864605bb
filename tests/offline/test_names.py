"""Names that stand in files of ours are looked at before anything is removed, opened or renamed by them."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from crc32c import crc32c

from perstack_stored.datadir.filesystem import FileSystem, read_whole
from perstack_stored.datadir.lock import describe, facts_of
from perstack_stored.errors import ConfigError
from perstack_stored.journal.segment_names import is_segment_name, segment_numbers
from perstack_stored.launcher.users import LauncherLock
from perstack_stored.model.gaps import Gap
from perstack_stored.offline.backup.copy import backup
from perstack_stored.offline.backup.manifest import BackupDamagedError
from perstack_stored.offline.backup.restore import restore
from perstack_stored.offline.locked import locked_datadir
from perstack_stored.offline.repair.evidence import IndexEvidence, Known
from tests.helpers.daemon import running_daemon
from tests.offline.bases import event, segments, store
from tests.offline.inprocess import Checked, Repaired

Change = Callable[[dict[str, Any]], object]


def first(**changed: object) -> Change:
    return lambda manifest: manifest["segments"][0].update(changed)


def last(**changed: object) -> Change:
    return lambda manifest: manifest["segments"][-1].update(changed)


WRONG: dict[str, Change] = {
    "a path above": first(file="../victim"),
    "an absolute path": last(file="/etc/hostname"),
    "a foreign file": first(file="victim"),
    "the manifest": last(file="backup.json"),
    "no name": first(file=""),
    "a NUL": first(file="a\0b"),
    "a line break": lambda m: m["segments"][0].update(file=m["segments"][0]["file"] + "\n"),
    "digits of another script": lambda m: m["segments"][0].update(
        file=m["segments"][0]["file"].replace("0000000001", "000000000\u0661")
    ),
    "another number": first(number=2),
    "another size": lambda m: m["segments"][0].update(bytes=m["segments"][0]["bytes"] + 8),
    "a size below a header": lambda m: m["segments"][0].update(bytes=-1),
    "a position before": last(firstPosition=0),
    "a first position": first(firstPosition=2),
    "twice": lambda m: m["segments"].append(m["segments"][0]),
    "none": lambda m: m["segments"].clear(),
    "one missing": lambda m: m["segments"].pop(0),
    "an end before": lambda m: m.update(position=-5),
    "a store": lambda m: m.update(store="../../x"),
}


def sign(target: Path, manifest: dict[str, Any]) -> None:
    """Write a manifest as somebody can who knows the format."""
    text = json.dumps(manifest)
    (target / "backup.json").write_text(f'{{"crc32c":{crc32c(text.encode())},"manifest":{text}}}')


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG.keys())
def test_a_backup_whose_manifest_names_something_else_is_refused(
    base_of_segments: Path, tmp_path: Path, change: Change
) -> None:
    """By restore and by the next backup; nothing is removed, opened or made by such a name."""
    target = tmp_path / "backup"
    backup(str(base_of_segments), str(target), endpoint=None, verify_all=False)
    for victim in (tmp_path / "victim", target / "victim"):
        victim.write_text("of somebody else")
    manifest = json.loads((target / "backup.json").read_bytes())["manifest"]
    change(manifest)
    sign(target, manifest)
    before = contents(target)
    with pytest.raises(BackupDamagedError, match=r"backup\.json"):
        restore(str(target), str(tmp_path / "restored"), to_position=None)
    with pytest.raises(BackupDamagedError, match=r"backup\.json"):
        backup(str(base_of_segments), str(target), endpoint=None, verify_all=False)
    assert contents(target) == before
    assert (tmp_path / "victim").read_text() == "of somebody else"
    assert not list(tmp_path.glob("restored/.*"))


@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "another copy"])
def test_a_copy_that_is_no_file_of_ours_is_refused(base: Path, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "backup"
    backup(str(base), str(target), endpoint=None, verify_all=False)
    (copy,) = target.glob("*.segment")
    moved = copy.rename(tmp_path / "elsewhere")
    if kind == "link":
        copy.symlink_to(moved)
    elif kind == "fifo":
        os.mkfifo(copy)
    elif kind == "folder":
        copy.mkdir()
    else:
        data = bytearray(moved.read_bytes())
        copy.write_bytes(data)
        manifest = json.loads((target / "backup.json").read_bytes())["manifest"]
        name = copy.name.replace(copy.name[11:19], f"{int(copy.name[11:19], 16) ^ 1:08x}")
        copy.rename(target / name)
        manifest["segments"][0]["file"] = name
        sign(target, manifest)
    with pytest.raises(BackupDamagedError):
        restore(str(target), str(tmp_path / "restored"), to_position=None)


@pytest.mark.parametrize(
    "plan",
    [
        b'{"segments":["../victim"]}',
        b'{"segments":["../../jobs/j1/job.json"]}',
        b'{"segments":["0000000001.segment.damaged"]}',
        b'{"segments":["0000000000.segment"]}',
        b'{"segments":[1]}',
        b'{"segments":"0000000001.segment"}',
        b"[" * 5000,
    ],
)
def test_a_plan_of_a_repair_that_names_something_else_is_refused(base: Path, plan: bytes) -> None:
    """Nothing gets another name by it."""
    folder = base / ".stored/repair"
    folder.mkdir()
    (folder / "plan.json").write_bytes(plan)
    (base / ".stored/victim").write_text("of somebody else")
    (folder / "0000000001.segment.damaged").write_text("kept")
    before = contents(base)
    with pytest.raises(ConfigError, match="plan of a repair"):
        Repaired(base)
    assert {name: text for name, text in contents(base).items() if name != ".stored/lock"} == {
        name: text for name, text in before.items() if name != ".stored/lock"
    }


def test_what_a_repair_made_ready_must_be_a_file(base: Path) -> None:
    folder = base / ".stored/repair"
    folder.mkdir()
    (folder / "plan.json").write_text('{"segments":["0000000001.segment"]}')
    (folder / "0000000001.segment").symlink_to("/etc/hostname")
    with pytest.raises(ConfigError, match="no regular file"):
        Repaired(base)
    assert not segments(base)[0].is_symlink()


ODD = ["\u00b2.segment", "1.segment", "00000000002.segment", "000000000\u0662.segment", "0000000000.segment"]


def test_a_name_in_the_journal_s_folder_that_is_not_ours_to_the_letter_is_no_segment(base: Path) -> None:
    """A start, a check and a repair pass it over, and leave it."""
    for name in [*ODD, "0000000003.segment\n", "0000000003.segment.bak"]:
        assert not is_segment_name(name)
        (base / ".stored/journal" / name).write_text("of somebody else")
    (base / ".stored/repaired-\u00b2").mkdir()
    assert segment_numbers([*ODD, "0000000007.segment", "0000000003.segment"]) == [3, 7]
    assert not Checked(base).findings
    with running_daemon(base) as daemon:
        store(daemon.endpoint, [event("new")])
        assert daemon.stop() == 0
    assert Repaired(base).done is None
    assert (base / ".stored/journal/1.segment").read_text() == "of somebody else"


def test_a_row_of_the_index_can_t_lead_a_repair_out_of_the_tree(base: Path, tmp_path: Path) -> None:
    """Ids in it are names of folders; those of a damaged one may be anything."""
    (base.parent / "job.json").write_bytes(b"{}")
    vouching: tuple[int, int, int, int] = (1, 64, 2, crc32c(b"{}"))
    with locked_datadir(str(base), "test", reads_only=True) as held:
        vouchers = IndexEvidence(held, None, str(tmp_path))
        for path in (("jobs", "..", "..", "job.json"), ("jobs", "../..", "job.json"), ("", "job.json")):
            assert vouchers.in_tree(Known(Gap(), 1, vouching, path)) is None
        vouchers.close()


def test_a_file_that_is_too_large_to_be_ours_is_not_read(tmp_path: Path) -> None:
    """A hole of terabytes under the name of a small file costs no memory."""
    with (tmp_path / "small").open("wb") as file:
        file.truncate(1 << 42)
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="File too large"):
            read_whole(FileSystem(), "small", dir_fd=fd)
    finally:
        os.close(fd)


HOSTILE_FACTS = [
    b'{"pid":-1}',
    b'{"pid":0,"role":"daemon"}',
    b'{"pid":true}',
    b'{"pid":1e400}',
    b'{"pid":"1"}',
    b'{"pid":99999999999}',
    b"[1]",
    b"5",
    b"[" * 4096,
    b"\xff\xfe",
    b"",
]


@pytest.mark.parametrize("data", HOSTILE_FACTS)
def test_the_file_of_a_lock_may_say_anything(tmp_path: Path, data: bytes) -> None:
    """A number that is no process's is none: it could be that of a group, or of all."""
    assert "pid" not in facts_of(data)
    assert describe(data) == ("another process", False)
    (tmp_path / "exec").write_bytes(data)
    fd = os.open(tmp_path, os.O_RDONLY)
    users = LauncherLock(fd)
    try:
        assert users.last() is None
    finally:
        users.leave()
        os.close(fd)


def test_other_facts_of_a_wrong_kind_are_left_out() -> None:
    assert facts_of(b'{"pid":7,"endpoints":5,"role":[]}') == {"pid": 7}
    assert facts_of(b'{"pid":7,"endpoints":["ipc:///x",1]}') == {"pid": 7}
    assert describe(b'{"pid":4194304,"endpoints":["ipc:///x"]}')[0].endswith("4194304 on ipc:///x")
