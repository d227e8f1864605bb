"""The keeper packs complete segments beside the load; readers notice nothing, and no kill loses a record."""

import itertools
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from perstack_storage import Client
from perstack_stored.keeper import process as keeper_process
from perstack_stored.keeper.channel import JournalState, KeeperConfig
from perstack_stored.process import interpreter
from tests.helpers.daemon import RunningDaemon, eventually, running_daemon
from tests.helpers.long_events import store
from tests.offline.bases import SMALL_SEGMENTS, Checked, read

PATIENCE_SECONDS = 600  # it runs where a processor is idle

pytestmark = pytest.mark.timeout(1500)


def store_segments(daemon: RunningDaemon, name: str, count: int = 2000) -> None:
    """Store some MiB of events: several segments of 1 MiB."""
    store(daemon.endpoint, name, count, words=40)


def stats(daemon: RunningDaemon) -> dict[str, Any]:
    with Client(daemon.endpoint) as client:
        return dict(client.stats())


def is_packed(path: Path) -> bool:
    try:
        return path.read_bytes()[8:10] == b"\2\0"
    except FileNotFoundError:
        return False


def complete(base: Path) -> list[Path]:
    """The segments but the last one."""
    return sorted((base / ".stored/journal").glob("*.segment"))[:-1]


def all_packed(base: Path) -> Callable[[], bool]:
    return lambda: (
        all(is_packed(path) for path in complete(base) if path.stat().st_size >= 1 << 20)
        and any(is_packed(path) for path in complete(base))
    )


def keepers(daemon: RunningDaemon) -> list[int]:
    """Processes of the keeper."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                line = Path(f"/proc/{name}/cmdline").read_bytes()
            except OSError:
                continue
            if b"perstack_stored.keeper.worker" in line and str(daemon.base).encode() in line:
                found.append(int(name))
    return found


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    with running_daemon(tmp_path / "base", *SMALL_SEGMENTS) as daemon:
        yield daemon


def test_complete_segments_are_packed_and_read_as_before(daemon: RunningDaemon) -> None:
    """All answers are the same, stats and metrics say what was packed, and no reader holds an old file."""
    store_segments(daemon, "j1")
    run = {"jobId": "j1", "runId": "r1"}
    before = read(daemon.endpoint, "getEventContents", **run), read(daemon.endpoint, "readAll", limit=2000)
    eventually(all_packed(daemon.base), "all complete segments are packed", PATIENCE_SECONDS)
    after = read(daemon.endpoint, "getEventContents", **run), read(daemon.endpoint, "readAll", limit=2000)
    assert after == before
    eventually(
        lambda: stats(daemon)["journal"]["packed"]["segments"] >= len(complete(daemon.base)) - 1,
        "stats say so",
        PATIENCE_SECONDS,
    )
    packed = stats(daemon)["journal"]["packed"]
    assert packed["fault"] == ""
    assert packed["bytes"] > 10 * packed["packedBytes"]
    assert sum(path.stat().st_size for path in complete(daemon.base)) * 5 < packed["bytes"]
    eventually(lambda: not deleted_segments(daemon), "no old file is held open", PATIENCE_SECONDS)
    assert daemon.stop() == 0
    assert not Checked(daemon.base).findings
    assert not list((daemon.base / ".stored/journal").glob("*.part"))


def deleted_segments(daemon: RunningDaemon) -> list[str]:
    """Removed segments that a process of the daemon has open."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            for fd in os.listdir(f"/proc/{name}/fd"):
                target = os.readlink(f"/proc/{name}/fd/{fd}")
                if str(daemon.base) in target and ".segment (deleted)" in target:
                    found.append(target)
        except OSError:
            continue
    return found


def test_a_keeper_that_is_killed_starts_again(daemon: RunningDaemon) -> None:
    """Whatever it had not finished is void; the daemon serves on."""
    store_segments(daemon, "j1")
    eventually(lambda: bool(keepers(daemon)), "the keeper runs", PATIENCE_SECONDS)
    for pid in keepers(daemon):
        os.kill(pid, signal.SIGKILL)
    store_segments(daemon, "j2")
    eventually(all_packed(daemon.base), "all complete segments are packed", PATIENCE_SECONDS)
    assert len(json.loads(read(daemon.endpoint, "getEventContents", jobId="j2", runId="r1"))) == 2000
    assert daemon.stop() == 0
    assert not keepers(daemon)
    assert not Checked(daemon.base).findings


def test_no_keeper_runs_where_nothing_is_to_pack(tmp_path: Path) -> None:
    """Neither without the setting, nor in a journal of one segment."""
    with running_daemon(tmp_path / "off", *SMALL_SEGMENTS, "--no-pack") as off:
        with running_daemon(tmp_path / "one") as one:
            store_segments(off, "j1")
            store_segments(one, "j1", 10)
            with running_daemon(tmp_path / "on", *SMALL_SEGMENTS) as on:
                store_segments(on, "j1")
                eventually(all_packed(on.base), "the other one packs", PATIENCE_SECONDS)
            assert not keepers(off)
            assert not keepers(one)
        assert not any(is_packed(path) for path in complete(off.base))


def test_what_can_not_be_packed_is_reported(daemon: RunningDaemon) -> None:
    """A segment whose header is damaged stays as it is; the others are packed."""
    names = itertools.count()
    newest = cut_newest(daemon, f"j{next(names)}")
    while is_packed_after_all(daemon, newest):
        newest = cut_newest(daemon, f"j{next(names)}")
    assert newest.name in fault(daemon)
    assert newest.stat().st_size == 1000
    assert not list((daemon.base / ".stored/journal").glob("0*.part"))


def cut_newest(daemon: RunningDaemon, name: str) -> Path:
    """Cut the newest complete segment short when index and tree have read it; returns its path."""
    store_segments(daemon, name)
    eventually(lambda: has_caught_up(daemon), "index and tree have caught up", PATIENCE_SECONDS)
    newest = complete(daemon.base)[-1]
    os.truncate(newest, 1000)
    return newest


def is_packed_after_all(daemon: RunningDaemon, segment: Path) -> bool:
    """Whether the keeper had read it before it was cut; if not, its fault is reported."""
    eventually(lambda: bool(fault(daemon)) or is_packed(segment), "it is tried", PATIENCE_SECONDS)
    return not fault(daemon)


def has_caught_up(daemon: RunningDaemon) -> bool:
    now = stats(daemon)
    return [now[projection]["lagRecords"] for projection in ("index", "tree")] == [0, 0]


def fault(daemon: RunningDaemon) -> str:
    return str(stats(daemon)["journal"]["packed"]["fault"])


def test_a_keeper_of_a_server_that_has_ended_ends(tmp_path: Path) -> None:
    """It holds the base's lock: the next daemon could not start."""
    with running_daemon(tmp_path / "base", *SMALL_SEGMENTS) as daemon:
        store_segments(daemon, "j1")
        eventually(lambda: bool(keepers(daemon)), "the keeper runs", PATIENCE_SECONDS)
        daemon.kill()
        eventually(lambda: not keepers(daemon), "it has ended", PATIENCE_SECONDS)
    with running_daemon(tmp_path / "base", *SMALL_SEGMENTS) as daemon:
        eventually(all_packed(daemon.base), "the next one goes on", PATIENCE_SECONDS)
        assert daemon.stop() == 0
    assert not Checked(tmp_path / "base").findings


def test_a_keeper_that_can_not_start_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon does not end by it, and says why."""

    def refuse(*_arguments: str, pass_fds: object) -> None:
        raise OSError(11, "no room for a process")

    monkeypatch.setattr(interpreter, "start", refuse)
    monkeypatch.setattr(keeper_process, "_FIRST_START_SECONDS", 0.0)
    config = KeeperConfig("/nowhere", os.getpid(), True, "error", 1 << 20, 1 << 20)
    keeper = keeper_process.KeeperProcess(config, 0, 20.0, lambda: None)
    keeper.follow(JournalState(1))
    assert keeper.describe()["fault"] == ""
    keeper.follow(JournalState(2))
    assert "no room for a process" in keeper.describe()["fault"]
    keeper.follow(JournalState(2))
    keeper.stop()
