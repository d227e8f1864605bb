"""A daemon or a command in a fork is like one that a user starts."""

import json
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.helpers import commands, forks
from tests.helpers.daemon import RunningDaemon, eventually
from tests.helpers.image import image, needs_images

_STARTER = """
import os, sys
from tests.helpers import forks
process = forks.start(["serve", "--base-path", sys.argv[1]], dict(os.environ), 1, 2)
print(process.pid, flush=True)
os.kill(os.getpid(), 9)
"""


def test_a_command_has_the_folder_and_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its output and its status are those of the command."""
    monkeypatch.chdir(tmp_path)
    assert commands.run("keygen", "key").returncode == 0
    assert (tmp_path / "key").is_file()
    told = commands.run("config", "--json", environment={"PERSTACK_STORED_BASE": "elsewhere"})
    assert json.loads(told.stdout)["base-path"]["value"] == str(tmp_path / "elsewhere")
    wrong = commands.run("serve", "--no-such-flag")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "no-such-flag" in wrong.stderr


def test_it_can_be_waited_for_and_killed(tmp_path: Path) -> None:
    """As `subprocess.Popen` shows it; a signal that comes too late reaches nobody."""
    daemon = RunningDaemon(tmp_path / "base").start()
    process = daemon.process
    assert isinstance(process, forks.Fork)
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.kill()
    assert process.wait() == process.poll() == -signal.SIGKILL
    process.terminate()
    daemon.start()
    assert daemon.stop() == 0


def test_a_daemon_sees_what_was_mounted_before_it_started(tmp_path: Path) -> None:
    """Also where the process that forks was there before."""
    needs_images()
    assert commands.run("--version").returncode == 0
    with image(tmp_path, 256 << 20) as disk:
        daemon = RunningDaemon(disk.path / "base").start()
        try:
            assert (disk.path / "base" / ".stored" / "stored.sock").is_socket()
        finally:
            assert daemon.stop() == 0


def test_threads_that_wait_for_the_same_end_all_see_it(tmp_path: Path) -> None:
    daemon = RunningDaemon(tmp_path / "base").start()
    process = daemon.process
    assert isinstance(process, forks.Fork)
    with ThreadPoolExecutor(8) as threads:
        waits = [threads.submit(process.wait, 60) for _ in range(8)]
        os.kill(process.pid, signal.SIGKILL)
        assert {wait.result() for wait in waits} == {-signal.SIGKILL}


def test_an_answer_that_nobody_took_does_not_confuse_the_next_one() -> None:
    """A test whose time is over may end between a request and its answer."""
    left = forks.start(["--version"], dict(os.environ), 1, 2)
    left._server._line.send(json.dumps([0, left.pid]).encode())
    assert commands.run("serve", "--no-such-flag").returncode == 2


def test_what_counts_at_the_start_of_a_process_starts_one(tmp_path: Path) -> None:
    """Variables of the linker and of the interpreter come too late for a fork."""
    daemon = RunningDaemon(tmp_path / "base", environment={"LD_BIND_NOW": "1"}).start()
    assert not isinstance(daemon.process, forks.Fork)
    assert daemon.stop() == 0


def test_all_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    """However that ended."""
    starter = subprocess.run(
        [sys.executable, "-c", _STARTER, str(tmp_path / "base")], stdout=subprocess.PIPE, check=False
    )
    assert starter.returncode == -signal.SIGKILL
    eventually(lambda: _is_dead(int(starter.stdout)), "the daemon is dead")


def _is_dead(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_workers_are_children_of_the_daemon_and_end_with_it(tmp_path: Path) -> None:
    """They are named as a user's are, and one that dies is started again."""
    daemon = RunningDaemon(tmp_path / "base").start()
    try:
        eventually(lambda: {"index", "tree"} <= set(daemon.workers()), "both run")
        before = daemon.workers()["index"]
        os.kill(before, signal.SIGKILL)
        eventually(lambda: daemon.workers().get("index", before) != before, "there is another index")
        children = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()
        assert len(children) > len(daemon.workers()), "the spare process is one of them"
        daemon.kill()
        eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), "all have ended")
    finally:
        daemon.make_sure_it_ended()


def test_a_worker_of_a_fork_has_what_any_other_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files, signals, mask of new files, limits."""
    forked, other = (RunningDaemon(tmp_path / name / "base") for name in ("forked", "other"))
    try:
        forked.base.parent.mkdir()
        other.base.parent.mkdir()
        forked.start()
        monkeypatch.setattr(forks, "ARE_USED", False)
        other.start()
        for kind in ("index", "tree"):
            eventually(lambda at=kind: _facts(forked, at) == _facts(other, at) != [], f"{kind}: the same")  # type: ignore[misc]
    finally:
        forked.make_sure_it_ended()
        other.make_sure_it_ended()


def _facts(daemon: RunningDaemon, kind: str) -> list[str]:
    """Of a worker, once it has the journal open."""
    pid = daemon.workers().get(kind)
    if pid is None:
        return []
    try:
        files = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    except FileNotFoundError:  # closed meanwhile
        return []
    if not any(file.endswith(".segment") for file in files):
        return []
    names = sorted(re.sub(r"[0-9]+\]", "]", file.replace(str(daemon.base.parent), "")) for file in files)
    kept = re.findall(
        r"^(?:Umask|SigBlk|SigIgn|SigCgt):.*", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE
    )
    return [*names, *kept, Path(f"/proc/{pid}/limits").read_text()]
