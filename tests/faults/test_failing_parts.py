"""A journal whose disk fails under a load ends the daemon; what was acknowledged is kept, says the judge."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.crash.judge import judge
from tests.crash.load import Load, load
from tests.crash.rounds import SETTINGS, await_progress
from tests.helpers.daemon import RunningDaemon, eventually
from tests.helpers.raw_client import Raw, event

# The real daemon, one of whose calls fails from a moment on. With a sync, all that waited for it is gone from
# the page cache as well, as the kernel may have it.
_PROGRAM = """
import errno, os, runpy, sys
from perstack_stored.datadir.filesystem import FileSystem
name, trigger = sys.argv.pop(1), sys.argv.pop(1)
write, sync_data, real = FileSystem.write, FileSystem.sync_data, getattr(FileSystem, name)
unsynced = []

def noted_write(self, fd, buffers, offset):
    unsynced.append((fd, offset, sum(map(len, buffers))))
    write(self, fd, buffers, offset)

def noted_sync(self, fd):
    waiting = list(unsynced)
    sync_data(self, fd)
    for piece in waiting:
        if piece[0] == fd:
            unsynced.remove(piece)

def failing(self, *arguments, **named):
    if not os.path.exists(trigger):
        return before(self, *arguments, **named)
    if name == "sync_data":
        for fd, offset, length in list(unsynced):
            if fd == arguments[0]:
                os.pwrite(fd, bytes(length), offset)
    raise OSError(errno.EIO, os.strerror(errno.EIO))

FileSystem.write, FileSystem.sync_data = noted_write, noted_sync
before = getattr(FileSystem, name)
setattr(FileSystem, name, failing)
runpy.run_module("perstack_stored", run_name="__main__", alter_sys=True)
"""


def start_failing(daemon: RunningDaemon, call: str, trigger: Path) -> None:
    """Start a daemon one of whose calls fails as soon as the trigger is there."""
    command = [sys.executable, "-c", _PROGRAM, call, str(trigger), "serve", "--base-path", str(daemon.base)]
    with daemon.log.open("ab") as log:
        daemon.process = subprocess.Popen([*command, *SETTINGS], stderr=log, stdin=subprocess.DEVNULL)


@contextmanager
def loaded(tmp_path: Path, daemon: RunningDaemon) -> Iterator[Load]:
    """A load on a daemon that is ready; in the end the judge says that all is well."""
    try:
        with load(daemon.endpoint, tmp_path / "history", 3, ("steady", "batching")) as clients:
            await_progress(clients)
            yield clients
            await_progress(clients)
            clients.join()
        verdict = judge(clients.histories, daemon.endpoint, daemon.base)
        assert not verdict.kinds, str(verdict)
        assert verdict.acknowledged > 0
        assert daemon.stop() == 0
    finally:
        daemon.make_sure_it_ended()


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("call", "says"),
    [
        ("write", "writing the journal failed"),
        ("sync_data", "writing the journal failed"),
        ("rename", "making room in the journal failed"),
        ("sync", "syncing the journal's folder failed"),
    ],
)
def test_a_journal_that_fails_ends_the_daemon_and_nothing_acknowledged_is_lost(
    tmp_path: Path, call: str, says: str
) -> None:
    """Status 1 and the reason; what was not synced is gone, and was never acknowledged."""
    trigger = tmp_path / "failing"
    daemon = RunningDaemon(tmp_path / "base", *SETTINGS)
    start_failing(daemon, call, trigger)
    eventually(lambda: bool(daemon.events("ready")), "it is ready")
    with loaded(tmp_path, daemon):
        trigger.touch()
        assert daemon.process is not None
        assert daemon.process.wait(timeout=120) == 1
        (failed,) = daemon.events("failed")
        assert says in failed["reason"]
        assert "Input/output error" in failed["reason"]
        daemon.start()


@pytest.mark.parametrize("call", ["list_dir", "open", "read", "write"])
def test_a_start_on_a_failing_disk_ends_with_a_status_for_another_try(tmp_path: Path, call: str) -> None:
    """Status 1, as when it fails later: 78 would say that settings or damage want a person."""
    trigger = tmp_path / "failing"
    daemon = RunningDaemon(tmp_path / "base", *SETTINGS).start()
    try:
        with Raw(daemon.endpoint) as raw:
            raw.store("storeEvent", event())
        daemon.kill()
        trigger.touch()
        start_failing(daemon, call, trigger)
        assert daemon.process is not None
        assert daemon.process.wait(timeout=120) == 1
        (failed,) = daemon.events("failed")
        assert "Input/output error" in failed["reason"]
        assert b"Traceback" not in daemon.log.read_bytes(), daemon.log.read_text()
        daemon.start()
        with Raw(daemon.endpoint) as raw:
            assert [record["position"] for record in raw.read_all()] == [1]
        assert daemon.stop() == 0
    finally:
        daemon.make_sure_it_ended()
