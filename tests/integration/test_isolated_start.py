"""What our processes run does not depend on the folder that they are started in, nor on the environment."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import perstack_storage
import perstack_stored
from perstack_storage import Client
from perstack_stored.process import child_main, interpreter
from tests.helpers.daemon import RunningDaemon, eventually
from tests.helpers.raw_client import event

COMMAND = Path(sys.executable).with_name("perstack-stored")
# All that is imported by server, workers and tools, and names that are looked for in vain.
_NAMES = """
import json, sys
class Seen:
    names = set()
    def find_spec(self, name, path=None, target=None):
        self.names.add(name)
sys.meta_path.insert(0, Seen())
if sys.argv[1:]:
    import perstack_stored.cli.main, perstack_stored.projection.worker, perstack_storage._storectl.cli
else:
    import runpy, pkgutil, encodings.idna
print(json.dumps(sorted({name.partition(".")[0] for name in {*Seen.names, *sys.modules}})))
"""


def names_imported(*arguments: str) -> set[str]:
    command = [sys.executable, "-I", "-c", _NAMES, *arguments]
    found: list[str] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return set(found)


@pytest.fixture(scope="module")
def names() -> set[str]:
    """Names of modules that our processes import, without those that every interpreter has at its start."""
    ours = {"__main__", "perstack_stored", "perstack_storage"}
    return names_imported("all") - ours - set(sys.builtin_module_names)


@pytest.fixture
def hostile(tmp_path: Path, names: set[str]) -> Path:
    """A folder with a module of each name; one that is run leaves its name in `ran`."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    program = f"open({str(tmp_path / 'ran')!r}, 'a').write(__name__ + ' ')\nraise ImportError(__name__)\n"
    for name in {*names, "sitecustomize", "usercustomize", "startup"}:
        (folder / f"{name}.py").write_text(program)
    return folder


@contextmanager
def served_from(folder: Path, base: Path, *command: str) -> Iterator[RunningDaemon]:
    """A daemon whose working directory is `folder`, started as the command line says."""
    daemon = RunningDaemon(base)
    with daemon.log.open("ab") as log:
        daemon.process = subprocess.Popen(
            [*command, "serve", "--base-path", str(base)],
            cwd=folder,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        eventually(lambda: b'"event": "ready"' in daemon.log.read_bytes(), "it is ready")
        yield daemon
    finally:
        daemon.make_sure_it_ended()


def store_and_await_tree(endpoint: str) -> None:
    with Client(endpoint, timeout_s=30) as client:
        client.store_event(event("e1"))
        assert len(client.get_event_contents("j1", "r1")) == 1
        eventually(lambda: client.stats()["tree"]["lagRecords"] == 0, "the tree is there")


def test_nothing_in_the_working_directory_of_a_daemon_is_run(hostile: Path, tmp_path: Path) -> None:
    """A module of each name that server and workers import lies there."""
    with served_from(hostile, tmp_path / "base", str(COMMAND)) as daemon:
        store_and_await_tree(daemon.endpoint)
    assert not (tmp_path / "ran").exists(), (tmp_path / "ran").read_text()


def test_nothing_in_the_working_directory_of_exec_is_run(hostile: Path, tmp_path: Path) -> None:
    """Nor what the environment names: the daemon that `exec` starts is isolated as well."""
    done = subprocess.run(
        [COMMAND, "exec", "--base-path", tmp_path / "base", "--", "true"],
        cwd=hostile,
        env={**os.environ, "PYTHONSTARTUP": str(hostile / "startup.py")},
        check=False,
        timeout=120,
    )
    assert done.returncode == 0
    assert not (tmp_path / "ran").exists(), (tmp_path / "ran").read_text()


@pytest.mark.parametrize("package", ["perstack_stored", "perstack_storage"])
def test_a_command_begun_by_python_m_imports_nothing_from_there(
    hostile: Path, tmp_path: Path, package: str
) -> None:
    """But for what Python itself imports before it comes to our first line."""
    for name in names_imported():
        (hostile / f"{name}.py").unlink(missing_ok=True)
    command = [sys.executable, "-m", package, "--version"]
    done = subprocess.run(command, cwd=hostile, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "ran").exists(), (tmp_path / "ran").read_text()


def test_a_program_that_imports_the_client_keeps_its_own_folder(tmp_path: Path) -> None:
    """It is our own commands only that leave the working directory."""
    package = tmp_path / "mine"
    package.mkdir()
    (package / "__init__.py").write_text("import perstack_storage\n")
    (package / "__main__.py").write_text("import beside\n")
    (tmp_path / "beside.py").write_text("print('beside')\n")
    command = [sys.executable, "-m", "mine", "perstack_storage"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "beside\n"


def test_a_package_that_only_the_environment_names_is_found_by_the_workers(tmp_path: Path) -> None:
    """As after `pip install --target`: an isolated interpreter does not look there by itself."""
    bare: str = getattr(sys, "_base_executable", sys.executable)
    folders = [entry for entry in sys.path if "site-packages" in entry or entry in _package_homes()]
    base = tmp_path / "base"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
    daemon = RunningDaemon(base)
    with daemon.log.open("ab") as log:
        daemon.process = subprocess.Popen(
            [bare, "-m", "perstack_stored", "serve", "--base-path", str(base)],
            cwd=tmp_path,
            env=environment,
            stderr=log,
        )
    try:
        eventually(lambda: b'"event": "ready"' in daemon.log.read_bytes(), "it is ready")
        store_and_await_tree(daemon.endpoint)
    finally:
        daemon.make_sure_it_ended()


def _package_homes() -> set[str]:
    return {str(Path(str(package.__file__)).parents[1]) for package in (perstack_stored, perstack_storage)}


def test_the_working_directory_comes_last_where_our_package_lies_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And not at all elsewhere; relative entries are left out."""
    home = Path(str(perstack_stored.__file__)).parents[1]
    monkeypatch.setattr(sys, "path", [str(home), "", "relative", "/elsewhere"])
    monkeypatch.chdir(home)
    assert interpreter.import_path() == ["/elsewhere", str(home)]
    monkeypatch.chdir("/")
    monkeypatch.setattr(sys, "path", ["/", str(home), "/elsewhere"])
    assert interpreter.import_path() == [str(home), "/elsewhere"]


def test_the_interpreter_s_own_library_goes_before_what_is_given() -> None:
    """A folder that the environment names can't put another `queue` in its place."""
    library = os.path.dirname(os.__file__)
    own = [library, f"{library}/lib-dynload", "/site-packages"]
    assert child_main.merged(own, ["/given", library, "/more"]) == [*own[:2], "/given", "/more", own[2]]


# --- signals of the group --------------------------------------------------------------------------


def assert_clean_stop(daemon: RunningDaemon) -> None:
    assert daemon.process is not None
    assert daemon.process.wait(120) == 0
    text = daemon.log.read_text()
    assert "Traceback" not in text
    assert not daemon.events("follower_ended")
    assert not daemon.events("tree_unfinished")
    assert not daemon.events("index_unfinished")


def test_ctrl_c_soon_after_ready_is_a_clean_stop(tmp_path: Path) -> None:
    """It reaches the whole group, workers that have only just been started included."""
    base = tmp_path / "base"
    with served_from(tmp_path, base, str(COMMAND)) as daemon, Client(daemon.endpoint) as client:
        for n in range(3):
            client.store_event(event(f"e{n}", timestamp=n))
        assert daemon.stop() == 0
    daemon.log.unlink()
    for _ in range(2):
        with served_from(tmp_path, base, str(COMMAND)) as daemon:
            os.killpg(daemon.pid, signal.SIGINT)
            assert_clean_stop(daemon)
        daemon.log.unlink()
    assert len(list((base / "jobs/j1/runs/r1").glob("event-*"))) == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_worker_ignores_signals_of_the_group_from_its_first_instruction(
    tmp_path: Path, number: signal.Signals
) -> None:
    """It is started with them blocked; one that came meanwhile is dropped, and does not end it later."""
    probe = tmp_path / "probe.py"
    probe.write_text(
        "import os, sys\nfrom perstack_stored.process.interpreter import ignore_group_signals\n"
        "def main():\n"
        "    os.write(int(sys.argv[1]), b'up'); os.read(int(sys.argv[2]), 1)\n"
        "    ignore_group_signals(); os.write(int(sys.argv[1]), b'on')\n"
    )
    said, tell = os.pipe()
    hear, go_on = os.pipe()
    sys.path.append(str(tmp_path))
    try:
        child = interpreter.start("probe", str(tell), str(hear), pass_fds=[tell, hear])
    finally:
        sys.path.remove(str(tmp_path))
    os.close(tell)
    os.close(hear)
    child.send_signal(number)
    assert os.read(said, 2) == b"up"
    child.send_signal(number)
    os.write(go_on, b"x")
    assert os.read(said, 2) == b"on"
    assert child.wait(120) == 0
    os.close(said)
    os.close(go_on)


def test_the_end_of_a_terminal_does_not_take_the_workers(tmp_path: Path) -> None:
    """SIGHUP reaches the group: the daemon reads its settings again, and its workers go on."""
    with served_from(tmp_path, tmp_path / "base", str(COMMAND)) as daemon:
        store_and_await_tree(daemon.endpoint)
        before = daemon.workers()
        os.killpg(daemon.pid, signal.SIGHUP)
        eventually(lambda: bool(daemon.events("reloaded")), "it has read its settings")
        store_and_await_tree(daemon.endpoint)
        assert daemon.workers() == before
