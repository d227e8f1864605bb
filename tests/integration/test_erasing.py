"""What was deleted is gone from the files too: from journal, index, its log, the tree and new backups."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from perstack_storage import Client
from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.journal.segment_file import open_segment
from tests.helpers import commands
from tests.helpers.daemon import RunningDaemon, eventually, running_daemon
from tests.helpers.storectl import COMMAND as STORECTL
from tests.offline.bases import SMALL_SEGMENTS, Call, Checked, as_call, event, job, read, run, setting, store

pytestmark = pytest.mark.timeout(1500)

PATIENCE_SECONDS = 600  # the process that erases runs where a processor is idle
SENTINEL = "sentinel-of-the-deleted-job"
COUNT = 300  # several segments in all
KEY = "sk-redacted-sentinel"
WORDS = (SENTINEL, KEY)
TEXT = "these are the words of a long conversation, " * 40
SEGMENT_MAGIC = b"PSTKJNL1"


def events_of(job_id: str, word: str, count: int) -> list[Call]:
    """Events of a job, of 2 KB each, with a word in all that a client chooses."""
    return [
        event(
            f"{word}-{n}",
            jobId=job_id,
            runId=f"run-{word}",
            type=f"of-{word}",
            timestamp=n,
            delta=f"{n} {word} {TEXT}",
        )
        for n in range(count)
    ]


def with_key(key: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(setting(jobId="kept", runId="run-kept")[1])
    return {**value, "providerConfig": {"apiKey": key}}


def found(folder: Path) -> dict[str, int]:
    """Files with a word of what was deleted; packed segments are unpacked."""
    places = {}
    for path in sorted(folder.rglob("*")):
        try:
            data = path.read_bytes() if path.is_file() else b""
        except FileNotFoundError:
            continue
        if data.startswith(SEGMENT_MAGIC + b"\2\0"):
            data += unpacked(path)
        count = sum(data.count(word.encode()) for word in WORDS)
        if count:
            places[str(path.relative_to(folder))] = count
    return places


def unpacked(path: Path) -> bytes:
    """The logical bytes of a packed segment."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        file = open_segment(FileSystem(), path.name, dir_fd=folder)
    finally:
        os.close(folder)
    try:
        return file.read(file.size(), 0)
    finally:
        file.close()


def is_erased(daemon: RunningDaemon) -> bool:
    """Whether the daemon says that all is erased, and its statistics say the same."""
    with Client(daemon.endpoint) as client:
        listed, pending = list(client.deletions()), client.stats()["deletions"]["pending"]
    return len(listed) > 0 and all(one["erased"] for one in listed) and pending == 0


def await_tree(daemon: RunningDaemon, position: int) -> None:
    """Wait until index and tree have reached a position."""
    with Client(daemon.endpoint) as client:
        eventually(
            lambda: min(client.stats()[kind]["position"] or 0 for kind in ("index", "tree")) >= position,
            "index and tree follow",
            PATIENCE_SECONDS,
        )


@pytest.mark.parametrize("flags", [(), ("--no-pack",)])
def test_no_byte_of_what_was_deleted_is_left(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """Of a job among others, and of a key in a setting; nor in the next backup, and what it restores."""
    base, copies, restored = tmp_path / "base", tmp_path / "copies", tmp_path / "restored"
    with running_daemon(base, *SMALL_SEGMENTS, "--erase-within-seconds=1", *flags) as daemon:
        store(daemon.endpoint, [job("kept"), *events_of("kept", "kept", COUNT)])
        calls = [job("gone"), *events_of("gone", SENTINEL, COUNT), *events_of("kept", "more", COUNT)]
        store(daemon.endpoint, [*calls, as_call("storeRunSetting", with_key(KEY))])
        before = read(daemon.endpoint, "getEventContents", jobId="kept", runId="run-kept")
        assert run("backup", base, str(copies), "--endpoint", daemon.endpoint).returncode == 0
        eventually(lambda: bool(found(base / "jobs")), "the tree has it")
        assert found(copies)
        with Client(daemon.endpoint) as client:
            client.delete_job("gone")
            client.redact_run_setting(with_key("none"))
        eventually(lambda: is_erased(daemon), "all is erased", PATIENCE_SECONDS)
        assert not found(base)
        assert read(daemon.endpoint, "getEventContents", jobId="kept", runId="run-kept") == before
        assert b'"gaps"' not in read(daemon.endpoint, "readAll", after=0)
        assert run("backup", base, str(copies), "--endpoint", daemon.endpoint).returncode == 0
        assert not found(copies)
        assert daemon.stop() == 0
    assert not found(base)
    checked = Checked(base)
    assert not checked.findings
    assert "journal_gap" not in checked.note_names
    assert checked.summary["erased records"] >= COUNT
    assert run("rebuild", base).returncode == 0
    assert not Checked(base).findings
    assert commands.run("restore", str(copies), "--base-path", str(restored)).returncode == 0
    with running_daemon(restored) as daemon:
        assert read(daemon.endpoint, "getEventContents", jobId="kept", runId="run-kept") == before
        assert daemon.stop() == 0
    assert not found(restored)


def test_what_holds_erasing_back_is_said(tmp_path: Path) -> None:
    """A damaged segment can't be written again: `stats`, `status`, the log, and who waits say so."""
    base = tmp_path / "base"
    with running_daemon(base, *SMALL_SEGMENTS, "--no-pack") as daemon:
        store(daemon.endpoint, events_of("gone", SENTINEL, COUNT))
        await_tree(daemon, COUNT)  # else it meets the damage, and does not go on
        damaged = min((base / ".stored/journal").glob("*.segment"))
        with damaged.open("r+b") as file:
            file.seek(5000)
            file.write(b"not the byte that was there")
        with Client(daemon.endpoint) as client:
            assert client.stats()["deletions"]["fault"] == ""
            words = ["--base-path", str(base), "delete", "gone", "--yes", "--wait-erased"]
            with subprocess.Popen([*STORECTL, *words], stderr=subprocess.PIPE) as waiting:
                assert waiting.stderr is not None
                # On a busy machine its process may be ended as hanging first, which is said as well.
                said = next(line for line in map(bytes.decode, waiting.stderr) if damaged.name in line)
                waiting.terminate()
            assert "held back" in said
            assert damaged.name in client.stats()["deletions"]["fault"]
        shown = run("status", base)
        assert "erasing" in shown.stdout
        assert damaged.name in shown.stdout
        held_back = [event for event in daemon.events("erasing_held_back") if damaged.name in event["reason"]]
        assert len(held_back) == 1


def test_a_tree_that_can_t_go_on_holds_erasing_back(tmp_path: Path) -> None:
    """Its files are erased by it. Until then the deletion is pending, and `stats` says why."""
    base, aside = tmp_path / "base", tmp_path / "aside"
    with running_daemon(base) as daemon, Client(daemon.endpoint) as client:
        store(daemon.endpoint, events_of("gone", SENTINEL, 2))
        await_tree(daemon, 2)
        (base / "jobs").rename(aside)
        (base / "jobs").write_bytes(b"not a folder")
        client.delete_job("gone")
        eventually(lambda: "the tree: " in client.stats()["deletions"]["fault"], "the fault is shown")
        assert client.stats()["deletions"]["pending"] == 1
        (base / "jobs").unlink()
        aside.rename(base / "jobs")
        eventually(lambda: is_erased(daemon), "all is erased", PATIENCE_SECONDS)
        assert client.stats()["deletions"]["fault"] == ""
        assert daemon.stop() == 0
    assert not found(base)
