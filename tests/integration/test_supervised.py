"""The daemon under a service manager: its notifications, the watchdog, and sockets that are handed over."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from perstack_storage import Client
from perstack_stored.process.hang_detector import thread_states
from tests.helpers import signals
from tests.helpers.daemon import eventually, refuses_descriptors
from tests.helpers.raw_client import Raw, event, session

# Passes a listening socket on as descriptor 3, with its own process id, as a service manager does.
HAND_OVER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.set_inheritable(3, True)
os.environ["LISTEN_PID"] = str(os.getpid())
os.environ["LISTEN_FDS"] = "1"
os.execv(sys.executable, [sys.executable, "-m", "perstack_stored", *sys.argv[2:]])
"""
SECONDS = 120.0


class Manager:
    """Listens as a service manager does, and starts the daemon."""

    def __init__(self, folder: Path) -> None:
        self.base = folder / "base"
        self.log = folder / "log"
        self._address = str(folder / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self._address)
        self._socket.settimeout(0.05)
        self._words: list[str] = []
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(
        self, *arguments: str, listener: socket.socket | None = None, watchdog: float = 30.0
    ) -> subprocess.Popen[bytes]:
        """A daemon that knows this manager."""
        command = ["serve", "--base-path", str(self.base), *arguments]
        start = [sys.executable, "-m", "perstack_stored", *command]
        if listener is not None:
            start = [sys.executable, "-c", HAND_OVER, str(listener.fileno()), *command]
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                start,
                stdin=subprocess.DEVNULL,
                stderr=log,
                pass_fds=[] if listener is None else [listener.fileno()],
                env={
                    **os.environ,
                    "NOTIFY_SOCKET": self._address,
                    "WATCHDOG_USEC": str(int(watchdog * 1e6)),
                },
            )
        self._processes.append(process)
        return process

    def heard(self) -> list[str]:
        """Every assignment so far, in order."""
        try:
            while True:
                self._words += self._socket.recv(4096).decode().split("\n")
        except TimeoutError:
            return self._words

    def hears(self, word: str, times: int = 1) -> bool:
        """Whether an assignment that begins like this came so often."""
        return sum(item.startswith(word) for item in self.heard()) >= times

    def wait_for(self, word: str, times: int = 1) -> None:
        """Until it came."""
        eventually(lambda: self.hears(word, times), f"{word} is told\n{self.log.read_text()}", SECONDS)

    def forget(self) -> None:
        """Drop what came so far."""
        self.heard()
        self._words.clear()

    def close(self) -> None:
        """End what was started."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    """A service manager of the test's own."""
    made = Manager(tmp_path)
    yield made
    made.close()


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A socket that somebody else holds, as a .socket unit does."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(128)
    yield listener
    listener.close()


def test_it_says_that_it_is_ready_how_it_goes_and_that_it_stops(manager: Manager) -> None:
    """READY no earlier than it answers, figures after it, STOPPING once."""
    process = manager.start()
    manager.wait_for("READY=1")
    with Raw(f"ipc://{manager.base}/.stored/stored.sock") as raw:
        raw.store("storeEvent", event(), session=session(), seq=1)
    figures = re.compile(r"STATUS=position 1; \d+ records/s; 1 sessions; 0 refused; behind: index 0, tree 0")
    # Not the first one: beside load the tree may still start.
    eventually(lambda: any(map(figures.fullmatch, manager.heard())), "it says how it goes", SECONDS)
    process.send_signal(signal.SIGTERM)
    assert process.wait(SECONDS) == 0
    words = manager.heard()
    assert words.count("READY=1") == 1
    assert words.count("STOPPING=1") == 1


def test_the_watchdog_is_notified_by_a_running_loop_only(manager: Manager) -> None:
    """A thread of its own would go on feeding; SIGABRT then tells where the loop hung."""
    period = 1.5
    process = manager.start(watchdog=period)
    manager.wait_for("READY=1")
    manager.wait_for("WATCHDOG=1", times=3)
    signals.stop(process.pid)
    # The signal may take a while to arrive, and a ping that was sent before is no fault.
    eventually(lambda: set(thread_states(process.pid)) == {b"T"}, "it has stopped")
    manager.forget()
    time.sleep(period)  # the time in which nothing may come
    assert not manager.hears("WATCHDOG=1")
    process.send_signal(signal.SIGCONT)
    # A main thread that is still stopped does not take the signal; another one would.
    eventually(lambda: b"T" not in thread_states(process.pid), "it goes on")
    process.send_signal(signal.SIGABRT)
    assert process.wait(SECONDS) == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in manager.log.read_text()
    assert "in run" in manager.log.read_text()


def test_a_long_import_asks_for_more_time(manager: Manager) -> None:
    """Otherwise the manager would end it, again and again."""
    events = manager.base / "jobs" / "j1" / "runs" / "r1"
    events.mkdir(parents=True)
    for number in range(20):
        value = event(f"e{number}", timestamp=1717171717200 + number)
        (events / f"event-{value['timestamp']}-0-startRun.json").write_text(json.dumps(value))
    manager.start()
    manager.wait_for("READY=1")
    words = manager.heard()
    assert words.index("EXTEND_TIMEOUT_USEC=120000000") < words.index("READY=1")
    assert any(word.startswith("STATUS=importing the tree: ") for word in words)


def test_a_recovery_asks_for_more_time(manager: Manager) -> None:
    """The end of the journal is read entry by entry."""
    process = manager.start()
    manager.wait_for("READY=1")
    with Client(base_path=manager.base) as client, client.pipeline() as pipeline:
        for number in range(100):
            pipeline.store_event(event(f"e{number}"))
    process.kill()
    process.wait()
    manager.forget()
    manager.start()
    manager.wait_for("READY=1")
    words = manager.heard()
    assert words.index("STATUS=reading the end of the journal") < words.index("READY=1")
    assert "EXTEND_TIMEOUT_USEC=120000000" in words


def test_why_it_does_not_start_is_reported_with_a_status_of_its_own(manager: Manager) -> None:
    """What a person must look at is not to be started again and again."""
    manager.base.mkdir()
    (manager.base / "jobs").symlink_to("elsewhere")
    assert manager.start().wait(SECONDS) == 78
    assert any(
        word.startswith("STATUS=failed: jobs/ in the base must be a folder") for word in manager.heard()
    )


def test_a_reload_is_reported_from_begin_to_end(manager: Manager, tmp_path: Path) -> None:
    """Also one that fails: a manager that waits for the end would call the daemon dead."""
    settings = tmp_path / "settings.toml"
    settings.write_text("slow-sync-ms = 50\n")
    process = manager.start("--config", str(settings))
    manager.wait_for("READY=1")
    for text, event_name in (("slow-sync-ms = 60\n", "reloaded"), ("slow-sync-ms = 'no'\n", "reload_failed")):
        manager.forget()
        settings.write_text(text)
        process.send_signal(signal.SIGHUP)
        manager.wait_for("READY=1")
        words = manager.heard()
        reloading = words.index("RELOADING=1")
        assert words[reloading + 1].startswith("MONOTONIC_USEC=")
        assert words.index("READY=1") > reloading
        assert f'"event": "{event_name}"' in manager.log.read_text()


# --- a socket that is handed over ------------------------------------------------------------------


def test_early_clients_wait_and_are_served(manager: Manager, tmp_path: Path) -> None:
    """The path is there before the daemon is; what was sent meanwhile is answered."""
    path = tmp_path / "stored.sock"
    with listening(path) as listener, Raw(f"ipc://{path}") as raw:
        id = raw.send("storeEvent", event(), session=session(), seq=1)
        manager.start(listener=listener)
        answer = raw.receive(SECONDS)
        assert (answer.header["id"], answer.position) == (id, 1)
        # Instead of the socket of the base, not beside it.
        assert not (manager.base / ".stored" / "stored.sock").exists()


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_the_path_survives_restarts(manager: Manager, tmp_path: Path, end: signal.Signals) -> None:
    """Clients find the same socket after a stop and after a crash, and wait there meanwhile."""
    path = tmp_path / "stored.sock"
    with listening(path) as listener:
        inode = path.stat().st_ino
        process = manager.start(listener=listener)
        with Client(f"ipc://{path}", timeout_s=SECONDS) as client:
            assert client.store_event(event("e1")) == 1
            process.send_signal(end)
            process.wait(SECONDS)
            assert path.stat().st_ino == inode
            manager.start(listener=listener)
            assert client.store_event(event("e2")) == 2
        with Raw(f"ipc://{path}") as raw:
            assert raw.ask("ping").header["ok"]


@pytest.mark.skipif(not refuses_descriptors(), reason="needs Linux 6.16")
def test_open_files_of_clients_are_not_taken_there(manager: Manager, tmp_path: Path) -> None:
    """As little as at the daemon's own socket."""
    path = tmp_path / "stored.sock"
    with listening(path) as listener:
        manager.start(listener=listener)
        manager.wait_for("READY=1")
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(path))
            with pytest.raises(PermissionError):
                socket.send_fds(peer, [b"\xff"], [0])


def test_a_socket_of_its_own_is_served_beside(manager: Manager, tmp_path: Path) -> None:
    """With --bind; both lead to the same store."""
    path, own = tmp_path / "stored.sock", tmp_path / "own.sock"
    with listening(path) as listener:
        process = manager.start("--bind", f"ipc://{own}", listener=listener)
        manager.wait_for("READY=1")
        with Raw(f"ipc://{path}") as raw, Raw(f"ipc://{own}") as other:
            assert raw.store("storeEvent", event("e1"), session=session(), seq=1) == 1
            assert other.store("storeEvent", event("e2"), session=session(), seq=1) == 2
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
        assert path.exists()
        assert not own.exists()


def _tcp() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.listen()
    return listener


def _not_listening() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)


def _datagrams() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)


@pytest.mark.parametrize("make", [_tcp, _not_listening, _datagrams])
def test_a_socket_of_another_kind_is_refused(manager: Manager, make: Callable[[], socket.socket]) -> None:
    """Over tcp clients can't be distinguished: it is not served just because it is handed over."""
    with make() as listener:
        assert manager.start(listener=listener).wait(SECONDS) == 78
    assert "Traceback" not in manager.log.read_text()
    assert "handed over" in manager.log.read_text()
