"""What lies in `.stored` is for the daemon's user alone: who may read a file could lock it."""

import fcntl
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from perstack_stored.config.settings import Settings
from perstack_stored.errors import ConfigError
from perstack_stored.launcher.run import execute
from perstack_stored.offline.locked import locked_datadir
from tests.helpers.daemon import RunningDaemon, eventually, running_daemon
from tests.helpers.raw_client import Raw, event, job

GROUP, MEMBER = 60_001, 60_002
_needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: takes the ids of other users")


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that members of the group may enter."""
    folder = Path(tempfile.mkdtemp(prefix="stored-", dir="/var/tmp"))
    try:
        os.chown(folder, 0, GROUP)
        folder.chmod(0o750)
        yield folder
    finally:
        shutil.rmtree(folder)


def modes_of(stored: Path) -> dict[str, int]:
    """Modes of all that lies in `.stored`, by its path there."""
    return {
        str(p.relative_to(stored)): stat.S_IMODE(p.lstat().st_mode)
        for p in stored.rglob("*")
        if not p.is_symlink()
    }


def assert_private(base: Path) -> None:
    """Nothing in `.stored` is open to others but the socket, and the way to it."""
    stored = base / ".stored"
    assert stat.S_IMODE(stored.stat().st_mode) & 0o066 == 0
    for name, mode in modes_of(stored).items():
        assert name == "stored.sock" or mode & 0o077 == 0, f"{name} has the mode {mode:o}"


def use(daemon: RunningDaemon) -> None:
    """Store some of what makes files: segments, a checkpoint of the index, a file that is replaced."""
    with Raw(daemon.endpoint) as raw:
        for n in range(3):
            raw.store("storeJob", job("j", totalSteps=n))
            raw.store("storeEvent", event(f"e{n}", jobId="j", text="x" * 1_500_000, timestamp=n))
        assert len(raw.ask("getEventsByRun", {"jobId": "j", "runId": "r1"}).value) == 3
        eventually(lambda: raw.ask("stats").value["tree"]["lagRecords"] == 0, "the tree is whole")


def as_member(work: Callable[[], str]) -> str:
    """What a process of another user of the group says."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.setgroups([])
            os.setgid(GROUP)
            os.setuid(MEMBER)
            said = work()
        except BaseException as error:  # noqa: BLE001 - nothing of it may go on in the child
            said = f"{type(error).__name__}: {error}"
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    return said


def test_all_that_is_made_is_the_daemon_s_alone(tmp_path: Path) -> None:
    """While it runs, after a stop, and with wide modes of the tree."""
    modes = ("--file-mode", "0666", "--folder-mode", "0777", "--segment-bytes", str(1 << 20))
    before = os.umask(0)
    try:
        with running_daemon(tmp_path / "base", *modes) as daemon:
            use(daemon)
            assert_private(daemon.base)
            assert (daemon.base / ".stored/journal/0000000002.segment").exists()
            assert daemon.stop() == 0
    finally:
        os.umask(before)
    assert_private(tmp_path / "base")
    tree = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "base/jobs").rglob("*")}
    assert (tree["j"], tree["job.json"]) == (0o777, 0o666)


@_needs_root
def test_a_member_of_the_group_connects_and_reads_the_tree_and_can_lock_nothing(shared: Path) -> None:
    """The way to the socket is open, what lies beside it is not; the tree can be read."""
    daemon = RunningDaemon(shared / "base", prefix=("setpriv", f"--regid={GROUP}", "--clear-groups")).start()
    try:
        use(daemon)
        stored = daemon.base / ".stored"
        names = sorted(modes_of(stored))

        def opened() -> str:
            found = []
            for name in names:
                for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDONLY | os.O_DIRECTORY):
                    try:
                        fcntl.flock(
                            os.open(stored / name, flags | os.O_NONBLOCK), fcntl.LOCK_SH | fcntl.LOCK_NB
                        )
                    except OSError:
                        continue
                    found.append(name)
            return f"opened {found}"

        def connected() -> str:
            with socket.socket(socket.AF_UNIX) as peer:
                peer.connect(daemon.endpoint.removeprefix("ipc://"))
            os.stat(stored / "stored.sock")
            return (daemon.base / "jobs/j/job.json").read_text()[:1]

        assert as_member(opened) == "opened []"
        assert as_member(lambda: str(os.listdir(stored))).startswith("PermissionError")
        assert as_member(connected) == "{"
    finally:
        daemon.make_sure_it_ended()


def test_an_older_base_is_tightened_once_with_a_line_in_the_log(tmp_path: Path) -> None:
    """Files, folders and what a repair kept; a link leads to nothing that is changed."""
    base, outside = tmp_path / "base", tmp_path / "outside"
    outside.write_text("precious")
    outside.chmod(0o644)
    with running_daemon(base) as daemon:
        use(daemon)
        assert daemon.stop() == 0
    stored = base / ".stored"
    (stored / "repaired-0001").mkdir()
    (stored / "repaired-0001" / "0000000001.segment.damaged").touch()
    (stored / "planted").symlink_to(outside)
    opened = [path for path in (stored, *stored.rglob("*")) if not path.is_symlink()]
    for path in opened:
        path.chmod(0o2750 if path.is_dir() else 0o644)
    with running_daemon(base) as daemon:
        (said,) = daemon.events("stored_tightened")
        assert said["changed"] == len(opened) - len(list((stored / "staging").iterdir()))
        assert said["path"] == str(stored)
        assert {".", "index.sqlite", "journal"} <= set(said["names"])
        assert daemon.events("stored_not_tightened") == []
        use(daemon)
        assert_private(base)
        assert stat.S_IMODE(stored.stat().st_mode) == 0o2710
        assert daemon.stop() == 0
        daemon.log.unlink()
    assert stat.S_IMODE(outside.stat().st_mode) == 0o644
    with running_daemon(base) as daemon:
        assert daemon.events("stored_tightened") == []


def test_rights_that_an_operator_took_are_not_given_back(tmp_path: Path) -> None:
    with running_daemon(tmp_path / "base") as daemon:
        assert daemon.stop() == 0
    (tmp_path / "base/.stored").chmod(0o700)
    with running_daemon(tmp_path / "base") as daemon:
        assert stat.S_IMODE((daemon.base / ".stored").stat().st_mode) == 0o700
        assert daemon.events("stored_tightened") == []


def test_a_process_that_only_locks_the_base_is_named(tmp_path: Path) -> None:
    """As one could who had the file open before the base was tightened."""
    with running_daemon(tmp_path / "base") as daemon:
        assert daemon.stop() == 0
        with (daemon.base / ".stored/lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            daemon.start(wait=False)
            assert daemon.process is not None
            assert daemon.process.wait(120) == 1
        reason = str(daemon.events("failed")[-1]["reason"])
        assert f"process id {os.getpid()};" in reason


@_needs_root
def test_what_belongs_to_others_is_named_and_does_not_keep_it_from_starting(tmp_path: Path) -> None:
    """A daemon without privileges can't change what another user's is; it says which, and whose."""
    with running_daemon(tmp_path / "base") as daemon:
        assert daemon.stop() == 0
    stored = tmp_path / "base/.stored"
    (stored / "foreign").touch()
    (stored / "foreign").chmod(0o644)
    os.chown(stored / "foreign", MEMBER, MEMBER)
    daemon = RunningDaemon(tmp_path / "base", prefix=("setpriv", "--bounding-set=-all", "--inh-caps=-all"))
    try:
        (said,) = daemon.start().events("stored_not_tightened")
        assert said["left"] == 1
        assert said["names"] == {"foreign": "Operation not permitted"}
        use(daemon)
    finally:
        daemon.make_sure_it_ended()


@_needs_root
def test_offline_tools_tell_another_user_whose_the_base_is(shared: Path) -> None:
    """Not that it is no base, nor only that permission is denied."""
    daemon = RunningDaemon(shared / "base", prefix=("setpriv", f"--regid={GROUP}", "--clear-groups")).start()
    assert daemon.stop() == 0

    def check() -> str:
        with locked_datadir(str(daemon.base), "check", reads_only=True):
            return "held"

    def run() -> str:
        return str(execute(str(daemon.base), "", ["true"], Settings(), drain_seconds=0, say=lambda _: None))

    for work in (check, run):
        said = as_member(work)
        assert said.startswith(ConfigError.__name__), said
        assert f"{daemon.base}/.stored is open to its owner alone, the user root" in said
