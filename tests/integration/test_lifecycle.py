"""Start, stop, restart and damage, with real processes: what is refused is named, what can be mended is."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

from perstack_storage import Client, socket_path_of
from tests.helpers import commands, signals
from tests.helpers.daemon import RunningDaemon, eventually, files_of, running_daemon
from tests.helpers.raw_client import Raw, checkpoint, event, job, setting
from tests.integration.filled import assert_checked, refusal, settled_tree


@contextmanager
def load(endpoint: str, clients: int = 3) -> Iterator[dict[int, str]]:
    """Clients that store events one after the other; position and id of what was acknowledged.

    At the end each of them has its last store answered, across restarts of the daemon.
    """
    acknowledged: dict[int, str] = {}
    done = threading.Event()
    failures: list[Exception] = []

    def store(name: str) -> None:
        try:
            with Client(endpoint, timeout_s=60) as client:
                n = 0
                while not done.is_set():
                    n += 1
                    id = f"{name}-{n}"
                    step = n // 10
                    value = event(id, jobId=name, stepNumber=step, timestamp=n, text="x" * 500)
                    acknowledged[client.store_event(value)] = id
                    time.sleep(0.005)  # enough of a load; more costs CPU time alone
                    if n % 10 == 0:
                        client.store_checkpoint(checkpoint(f"c{step % 3}", jobId=name, stepNumber=step))
                        client.store_job(job(name, totalSteps=step))
        except Exception as error:  # noqa: BLE001 - raised by the thread that waits
            failures.append(error)

    threads = [threading.Thread(target=store, args=(f"job{n}",)) for n in range(clients)]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: len(acknowledged) > 20 or bool(failures), "the load has begun")
        yield acknowledged
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert failures == []


def assert_all_there(raw: Raw, acknowledged: dict[int, str]) -> None:
    """Each acknowledged event is at its position, and no event is there twice."""
    events = [record for record in raw.read_all() if record["op"] == "storeEvent"]
    found = {record["position"]: record["value"]["id"] for record in events}
    assert {position: found.get(position) for position in acknowledged} == acknowledged
    assert len(set(found.values())) == len(events)


# --- start -----------------------------------------------------------------------------------------


def test_an_empty_base_is_served_as_the_log_says(tmp_path: Path) -> None:
    """It says where; modes are as the design has them. How long a start takes is for the benchmark."""
    with running_daemon(tmp_path / "base") as daemon:
        (ready,) = daemon.events("ready")
        assert ready["endpoints"] == [daemon.endpoint]
        assert ready["base"] == str(daemon.base)
        with Client(base_path=daemon.base) as client:
            client.store_run_setting(setting())
            eventually(lambda: len(files_of(daemon.base)) == 1, "the file is there")
        modes = {path.name: path.stat().st_mode & 0o777 for path in daemon.base.rglob("*")}
        assert modes["run-setting.json"] == 0o640
        assert modes["jobs"] == modes["r1"] == 0o750
        assert modes["stored.sock"] == 0o660
        assert modes[".stored"] == 0o710  # the group passes through it to the socket, no more
        assert modes["journal"] == modes["staging"] == 0o700
        assert modes["index.sqlite"] == modes["0000000001.segment"] == 0o600


def test_a_second_daemon_on_a_base_names_the_first(tmp_path: Path) -> None:
    """It ends with status 1, and says process and endpoint; the first one is not disturbed."""
    with running_daemon(tmp_path / "base") as daemon:
        for arguments in ((), ("--bind", f"ipc://{tmp_path}/other.sock")):
            reason = refusal(daemon.base, *arguments, status=1)
            assert f"process id {daemon.pid}" in reason
            assert daemon.endpoint in reason
        assert not (tmp_path / "other.sock").exists()
        with Raw(daemon.endpoint) as raw:
            raw.store("storeEvent", event())


def test_a_second_base_does_not_take_over_an_endpoint(tmp_path: Path) -> None:
    """Also on tcp, and the first daemon goes on serving there."""
    with running_daemon(tmp_path / "base", "--bind", f"ipc://{tmp_path}/x.sock") as daemon:
        assert f"{tmp_path}/x.sock" in refusal(tmp_path / "b2", "--bind", f"ipc://{tmp_path}/x.sock")
        with Raw(f"ipc://{tmp_path}/x.sock") as raw:
            assert raw.ask("hello").value["base"] == str(daemon.base)
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        port = router.bind_to_random_port("tcp://127.0.0.1")
        assert f"tcp://127.0.0.1:{port}" in refusal(
            tmp_path / "b3", "--bind", f"tcp://127.0.0.1:{port}", "--insecure-tcp"
        )


def test_it_serves_several_endpoints(tmp_path: Path) -> None:
    """Two sockets and a loopback port at once; an address of the outside is refused."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        port = router.bind_to_random_port("tcp://127.0.0.1")
    endpoints = [f"ipc://{tmp_path}/a.sock", f"ipc://{tmp_path}/b.sock", f"tcp://127.0.0.1:{port}"]
    binds = [part for endpoint in endpoints for part in ("--bind", endpoint)]
    with running_daemon(tmp_path / "base", *binds, "--insecure-tcp") as daemon:
        for n, endpoint in enumerate(endpoints, 1):
            with Raw(endpoint) as raw:
                assert raw.store("storeEvent", event(f"e{n}")) == n
        assert daemon.stop() == 0
        assert not list(tmp_path.glob("*.sock"))
    assert "loopback" in refusal(tmp_path / "base", "--bind", "tcp://0.0.0.0:5555", "--insecure-tcp")
    assert "insecure-tcp" in refusal(tmp_path / "base", "--bind", "tcp://127.0.0.1:5555")


def test_a_stale_socket_is_replaced_and_a_clean_stop_removes_it(tmp_path: Path) -> None:
    """SIGKILL leaves the file behind; the next start serves there all the same."""
    with running_daemon(tmp_path / "base") as daemon:
        sock = daemon.base / ".stored" / "stored.sock"
        daemon.kill()
        assert sock.is_socket()
        daemon.start()
        with Raw(daemon.endpoint) as raw:
            assert raw.ask("ping").header["ok"]
        assert daemon.stop() == 0
        assert not sock.exists()


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_no_socket_is_left_alone(tmp_path: Path, kind: str) -> None:
    """ZeroMQ alone would remove it."""
    stored = tmp_path / "base" / ".stored"
    stored.mkdir(parents=True)
    sock = stored / "stored.sock"
    precious = tmp_path / "precious"
    precious.write_text("precious")
    if kind == "file":
        precious.rename(sock)
    elif kind == "folder":
        sock.mkdir()
    else:
        sock.symlink_to(precious)
    assert f"{sock} is there and is not a socket" in refusal(tmp_path / "base")
    if kind == "folder":
        assert sock.is_dir()
    else:
        assert sock.read_text() == "precious"


def test_a_base_too_deep_for_a_socket_uses_the_runtime_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Daemon and client derive the same name there; without that folder both say what to do."""
    base = tmp_path / ("x" * 60) / ("y" * 60)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    (tmp_path / ("x" * 60)).mkdir()
    for reason in (refusal(base), _endpoint_error(base)):
        assert "107" in reason
        assert "XDG_RUNTIME_DIR" in reason
        assert "PERSTACK_STORED_ENDPOINT" in reason
    with tempfile.TemporaryDirectory() as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        with running_daemon(base) as daemon, Client(base_path=base) as client:
            assert socket_path_of(str(base)).startswith(f"{runtime}/perstack-stored-")
            assert daemon.events("ready")[-1]["endpoints"] == [f"ipc://{socket_path_of(str(base))}"]
            assert client.hello()["base"] == str(base)
            assert daemon.stop() == 0
        assert os.listdir(runtime) == []
    long = f"ipc://{tmp_path}/{'z' * 100}.sock"
    assert "107" in refusal(tmp_path / "base", "--bind", long)


def _endpoint_error(base: Path) -> str:
    with pytest.raises(Exception, match="PERSTACK_STORED_ENDPOINT") as caught:
        Client(base_path=base)
    return str(caught.value)


def _as_file(base: Path) -> None:
    base.write_text("a file")


def _below_a_file(base: Path) -> None:
    base.parent.joinpath("file").write_text("a file")
    base.symlink_to(base.parent / "file" / "below")


def _stored_is_a_file(base: Path) -> None:
    base.mkdir()
    (base / ".stored").write_text("a file")


def _stored_is_a_link(base: Path) -> None:
    base.mkdir()
    (base.parent / "elsewhere").mkdir()
    (base / ".stored").symlink_to(base.parent / "elsewhere")


def _journal_is_a_file(base: Path) -> None:
    (base / ".stored").mkdir(parents=True)
    (base / ".stored" / "journal").write_text("a file")


def _lock_is_a_folder(base: Path) -> None:
    (base / ".stored" / "lock").mkdir(parents=True)


@pytest.mark.parametrize(
    "prepare",
    [_as_file, _below_a_file, _stored_is_a_file, _stored_is_a_link, _journal_is_a_file, _lock_is_a_folder],
)
def test_a_base_that_can_not_be_used_is_named(tmp_path: Path, prepare: Callable[[Path], None]) -> None:
    """Status 1 and a sentence with the path, and nothing is written elsewhere."""
    base = tmp_path / "base"
    prepare(base)
    reason = refusal(base)
    assert os.path.realpath(base) in reason
    elsewhere = tmp_path / "elsewhere"
    assert not elsewhere.exists() or not any(elsewhere.iterdir())


def _without_override() -> None:
    """Let permissions bind root as well."""
    prctl_capbset_drop, cap_dac_override, cap_dac_read_search = 24, 1, 2
    for capability in (cap_dac_override, cap_dac_read_search):
        ctypes.CDLL(None).prctl(prctl_capbset_drop, capability, 0, 0, 0)


@pytest.mark.parametrize("there", [False, True], ids=["new base", "used base"])
def test_a_base_without_permission_is_named(tmp_path: Path, *, there: bool) -> None:
    """A folder that may be read only."""
    base = tmp_path / "folder" / "base"
    base.mkdir(parents=True)
    if there:
        RunningDaemon(base).start().stop()
    else:
        base.rmdir()
    folders = [base.parent, *(path for path in base.parent.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    done = subprocess.run(
        [sys.executable, "-m", "perstack_stored", "serve", "--base-path", str(base)],
        preexec_fn=_without_override, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    for folder in folders:
        folder.chmod(0o755)
    assert done.returncode == 78
    assert "Traceback" not in done.stderr
    failed = json.loads(done.stderr.splitlines()[-1])
    assert str(base) in failed["reason"]
    assert "Permission denied" in failed["reason"]


@pytest.mark.parametrize(
    ("flag", "value", "says"),
    [
        ("--frame-bytes-max", "5", "frame-bytes-max must be between"),
        ("--answer-bytes", str(2**40), "answer-bytes must be between"),
        ("--read-seconds", "0", "read-seconds must be between"),
        ("--read-seconds", "-1", "read-seconds must be between"),
        ("--read-seconds", "soon", "read-seconds"),
        ("--file-mode", "888", "file-mode"),
        ("--file-mode", "0", "file-mode must be between"),
        ("--log-level", "loud", "--log-level"),
        ("--bind", "udp://127.0.0.1:1", "udp://127.0.0.1:1"),
        ("--bind", "nonsense", "nonsense"),
        ("--bind", "ipc:///nowhere/at/all.sock", "ipc:///nowhere/at/all.sock"),
    ],
)
def test_a_setting_that_is_wrong_is_named(tmp_path: Path, flag: str, value: str, says: str) -> None:
    """As a flag, and some of them as an environment variable too."""
    variable = "PERSTACK_STORED_" + flag.removeprefix("--").replace("-", "_").upper()
    if flag == "--bind":
        variable = "PERSTACK_STORED_ENDPOINT"
    ways: list[tuple[tuple[str, ...], dict[str, str]]] = [((flag, value), {})]
    if value in {"5", "soon", "888", "nonsense"}:
        ways.append(((), {variable: value}))
    for arguments, environment in ways:
        done = commands.run(
            "serve", "--base-path", str(tmp_path / "base"), *arguments, environment=environment
        )
        assert done.returncode in {78, 2}
        assert says in done.stderr
        assert "Traceback" not in done.stderr


# --- stop ------------------------------------------------------------------------------------------

IN_TIME_S = 30.0  # a stop takes 5 s at most; then processes end, slowly on a busy machine


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_under_load_keeps_all_that_was_acknowledged(tmp_path: Path, number: signal.Signals) -> None:
    """Status 0 in time, twice in a row; the clients go on with the next daemon as if nothing had been."""
    with running_daemon(tmp_path / "base") as daemon:
        with load(daemon.endpoint) as acknowledged:
            for _ in range(2):
                before = len(acknowledged)
                eventually(lambda before=before: len(acknowledged) > before + 50, "it goes on")  # type: ignore[misc]
                assert daemon.process is not None
                start = time.monotonic()
                daemon.process.send_signal(number)
                assert daemon.process.wait(timeout=120) == 0
                assert time.monotonic() - start < IN_TIME_S
                assert len(daemon.events("stopped")) == len(daemon.events("ready"))
                daemon.start()
        with Raw(daemon.endpoint) as raw:
            assert_all_there(raw, acknowledged)
            eventually(lambda: settled_tree(raw), "the tree is complete")
        assert daemon.stop() == 0
    assert_checked(daemon.base)


def test_a_stop_does_not_wait_for_reads_that_are_queued(tmp_path: Path) -> None:
    """Thousands of large reads wait; a stop answers what is begun, and ends in time."""
    with running_daemon(tmp_path / "base") as daemon, Raw(daemon.endpoint) as raw:
        for n in range(20):
            raw.store("storeEvent", event(f"e{n}", text="x" * 150_000))
        for _ in range(3000):
            raw.send("getEventContents", {"jobId": "j1", "runId": "r1"})
        eventually(lambda: _reads_wait(daemon), "the reads have arrived")
        start = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - start < IN_TIME_S


def _reads_wait(daemon: RunningDaemon) -> bool:
    with Raw(daemon.endpoint) as raw:
        return int(raw.ask("stats").value["reads"]["pending"]) > 1000


def test_a_signal_while_the_daemon_starts_ends_it(tmp_path: Path) -> None:
    """At any moment of the start; the next one is ready."""
    base = tmp_path / "base"
    for n in range(6):
        daemon = RunningDaemon(base).start(wait=False)
        assert daemon.process is not None
        deadline = time.monotonic() + 0.05 * n
        while time.monotonic() < deadline and daemon.process.poll() is None:
            pass
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(timeout=120) in {0, -signal.SIGTERM}
    with running_daemon(base) as daemon, Raw(daemon.endpoint) as raw:
        raw.store("storeEvent", event())


# --- workers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["index", "tree"])
def test_a_worker_that_is_killed_is_started_again(tmp_path: Path, kind: str) -> None:
    """Under load, twice: reads work again, the stores go on all the while, the tree is complete."""
    with running_daemon(tmp_path / "base") as daemon, Raw(daemon.endpoint) as raw:
        with load(daemon.endpoint, 2) as acknowledged:
            for _ in range(2):
                eventually(lambda: kind in daemon.workers(), "it runs")
                killed = daemon.workers()[kind]
                os.kill(killed, signal.SIGKILL)
                before = len(acknowledged)
                eventually(lambda before=before: len(acknowledged) > before + 50, "stores go on")  # type: ignore[misc]
                assert raw.ask("getEventsByRun", {"jobId": "job0", "runId": "r1"}).value
                eventually(
                    lambda killed=killed: daemon.workers().get(kind, killed) != killed,  # type: ignore[misc]
                    "it runs again",
                    20,
                )
        assert raw.ask("stats").value[kind]["starts"] == 3
        assert len(daemon.events("follower_ended")) == 2
        assert_all_there(raw, acknowledged)
        eventually(lambda: settled_tree(raw), "the tree is complete")
        assert raw.ask("stats").value["tree"]["fault"] == ""
        events = [name for name in files_of(daemon.base) if "/event-" in name]
        assert len(events) == len(acknowledged)
        assert daemon.stop() == 0
    assert_checked(daemon.base)


def test_workers_end_with_their_daemon(tmp_path: Path) -> None:
    """Otherwise the next one's would write beside them; the base can be served again at once."""
    with running_daemon(tmp_path / "base") as daemon:
        eventually(lambda: set(daemon.workers()) == {"index", "tree"}, "both run")
        pids = daemon.workers()
        daemon.kill()
        daemon.start()
        eventually(lambda: not any(_runs_worker(pid) for pid in pids.values()), "they are gone")


def _runs_worker(pid: int) -> bool:
    try:
        return b"perstack_stored.projection.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False


def test_a_read_is_given_up_in_time_while_the_index_hangs(tmp_path: Path) -> None:
    """DEADLINE, although nothing else happens; stores and pings go on, and the read works again later."""
    with running_daemon(tmp_path / "base") as daemon, Raw(daemon.endpoint) as raw:
        raw.store("storeEvent", event("before"))
        run = {"jobId": "j1", "runId": "r1"}
        assert len(raw.ask("getEventsByRun", run).value) == 1
        index = daemon.workers()["index"]
        signals.stop(index)
        try:
            raw.store("storeEvent", event("behind", timestamp=2))
            start = time.monotonic()
            assert raw.ask("getEventsByRun", run, timeoutMs=300).code == "DEADLINE"
            assert 0.25 < time.monotonic() - start < 10
            assert raw.ask("ping").header["ok"]
        finally:
            os.kill(index, signal.SIGCONT)
        assert len(raw.ask("getEventsByRun", run).value) == 2
