"""The line to the service manager: what is sent when, and that nothing of it holds up the daemon."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from perstack_stored.errors import ConfigError
from perstack_stored.observe.systemd import Notifier
from perstack_stored.transport.socket_activation import inherited_listeners


class Manager:
    """The receiving end."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.setblocking(False)

    def heard(self) -> list[str]:
        """All that came since the last call."""
        messages = []
        while True:
            try:
                messages.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return messages

    def close(self) -> None:
        """Gone, as a manager that ended."""
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a socket in the file system, and of one without a file."""
    return str(tmp_path / "notify") if request.param == "path" else f"@perstack-{tmp_path.name}-{os.getpid()}"


@pytest.fixture
def manager(address: str) -> Iterator[Manager]:
    """A service manager that listens."""
    made = Manager(address)
    yield made
    made.close()


def test_each_word_is_a_datagram_of_its_own(address: str, manager: Manager) -> None:
    """In the spelling of sd_notify(3)."""
    notifier = Notifier(address)
    notifier.ready()
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.reloading()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.stopping(2.5)
    ready, reloading, stopping = manager.heard()
    assert ready == "READY=1"
    first, _, usec = reloading.partition("\nMONOTONIC_USEC=")
    assert first == "RELOADING=1"
    assert before <= int(usec) <= after
    assert stopping == "STOPPING=1\nSTATUS=stopping\nEXTEND_TIMEOUT_USEC=2500000"


def test_a_status_can_not_smuggle_in_another_word(address: str, manager: Manager) -> None:
    """A path or an error's text may hold a line break."""
    notifier = Notifier(address)
    notifier.status("no base at a\nWATCHDOG=1\nplace")
    notifier.working("importing\nREADY=1")
    assert manager.heard() == [
        "STATUS=no base at a WATCHDOG=1 place",
        "EXTEND_TIMEOUT_USEC=120000000\nSTATUS=importing READY=1",
    ]


def test_many_steps_of_work_make_few_messages(address: str, manager: Manager) -> None:
    """It is called for each entry of the journal."""
    notifier = Notifier(address)
    for step in range(1000):
        notifier.working(f"step {step}")
    assert [message.rpartition("=")[2] for message in manager.heard()] == ["step 0"]


def test_the_watchdog_is_fed_by_turns_of_the_loop_only(address: str, manager: Manager) -> None:
    """Three times in its period, however often the loop turns; without turns never."""
    notifier = Notifier(address, watchdog_seconds=3.0)
    assert manager.heard() == []
    for turn in range(301):
        notifier.beat(1000 + turn / 100, lambda: "well")
    heard = manager.heard()
    assert heard.count("WATCHDOG=1") == 4
    assert heard.count("STATUS=well") == 1
    assert len(heard) == 5


def test_without_a_watchdog_there_are_figures_only(address: str, manager: Manager) -> None:
    """WatchdogSec= may be taken out of the unit."""
    notifier = Notifier(address)
    for turn in range(30):
        notifier.beat(1000.0 + turn, lambda: "well")
    assert set(manager.heard()) == {"STATUS=well"}


def test_a_ping_that_is_not_taken_is_sent_again_at_the_next_turn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And said once, not at each turn."""
    address = str(tmp_path / "notify")
    notifier = Notifier(address, watchdog_seconds=3.0)
    notifier.beat(1000.0, lambda: "well")
    notifier.beat(1000.1, lambda: "well")
    assert capsys.readouterr().out.count("notify_failed") == 1
    manager = Manager(address)
    notifier.beat(1000.2, lambda: "well")
    assert manager.heard() == ["WATCHDOG=1"]
    manager.close()


def test_a_manager_that_does_not_read_holds_up_no_turn(address: str, manager: Manager) -> None:
    """Its queue is full after some messages."""
    notifier = Notifier(address, watchdog_seconds=0.001)
    started = time.monotonic()
    for turn in range(5000):
        notifier.beat(1000.0 + turn, lambda: "well")
    assert time.monotonic() - started < 30
    assert len(manager.heard()) < 5000


def test_the_environment_is_taken_out(address: str, manager: Manager) -> None:
    """Workers and commands must not speak for the daemon."""
    environment = {
        "NOTIFY_SOCKET": address,
        "WATCHDOG_USEC": "3000000",
        "WATCHDOG_PID": str(os.getpid()),
        "HOME": "/",
    }
    notifier = Notifier.from_environment(environment)
    assert environment == {"HOME": "/"}
    notifier.beat(1000.0, lambda: "well")
    assert manager.heard() == ["WATCHDOG=1", "STATUS=well"]


@pytest.mark.parametrize(
    ("usec", "pid"), [("3000000", "1"), ("soon", None), ("", None)], ids=["other", "no number", "empty"]
)
def test_another_process_s_watchdog_is_not_fed(
    address: str, manager: Manager, usec: str, pid: str | None
) -> None:
    """Nor one whose period can't be read."""
    environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": usec} | ({"WATCHDOG_PID": pid} if pid else {})
    Notifier.from_environment(environment).beat(1000.0, lambda: "well")
    assert manager.heard() == ["STATUS=well"]


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "notify"])
def test_without_a_socket_nothing_is_sent(address: str) -> None:
    """Started by hand; or by a manager that speaks something else."""
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000"})
    notifier.ready()
    notifier.working("step")
    notifier.beat(1000.0, lambda: pytest.fail("nobody listens"))


# --- sockets that are handed over --------------------------------------------------------------------


def test_sockets_for_another_process_are_left_alone() -> None:
    """Any process in between inherits the variables, and the descriptors may be anything."""
    environment = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "HOME": "/"}
    assert inherited_listeners(environment) == {}
    assert environment == {"HOME": "/"}
    assert inherited_listeners({}) == {}
    assert inherited_listeners({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "many"}) == {}


def test_a_descriptor_that_is_no_socket_is_named() -> None:
    """A person has to look at the unit."""
    child = os.fork()
    if child == 0:  # descriptor 3 is the test runner's otherwise
        status = 1
        try:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 3)
            inherited_listeners({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"})
        except ConfigError as error:
            status = 0 if "descriptor 3" in str(error) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
