"""What a failed system call at the start means: wait and try again, or call a person."""

import errno
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import zmq

from perstack_stored.access import curve_keys
from perstack_stored.config import sources
from perstack_stored.config.sources import Sources
from perstack_stored.errors import ConfigError, StartFailedError, start_error
from perstack_stored.observe.counters import LoopCounters
from perstack_stored.observe.health import Health
from perstack_stored.observe.http import MetricsServer
from perstack_stored.transport import binding
from perstack_stored.transport.socket_activation import inherited_listeners

PASSING = (
    "ENOSPC", "EDQUOT", "EMFILE", "ENFILE", "ENOMEM", "ENOBUFS", "EIO", "EINTR", "EAGAIN", "EBUSY", "ESTALE",
    "ETIMEDOUT", "EADDRNOTAVAIL", "ENETDOWN",
)  # fmt: skip
LASTING = ("EACCES", "EPERM", "ENOENT", "ENOTDIR", "EROFS", "ENAMETOOLONG", "ELOOP", "EINVAL", "EADDRINUSE")


def os_error(name: str) -> OSError:
    number = getattr(errno, name)
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize("name", PASSING)
def test_what_may_pass_is_tried_again(name: str) -> None:
    found = start_error("can't do it", os_error(name))
    assert (type(found), found.exit_status) == (StartFailedError, 1)
    assert str(found) == f"can't do it: {os_error(name).strerror}"


@pytest.mark.parametrize("name", LASTING)
def test_what_stays_needs_a_person(name: str) -> None:
    found = start_error("can't do it", os_error(name))
    assert (type(found), found.exit_status) == (ConfigError, 78)


def test_errors_of_zeromq_are_judged_alike() -> None:
    assert start_error("", zmq.ZMQError(errno.EMFILE)).exit_status == 1
    assert start_error("", zmq.ZMQError(errno.EADDRINUSE)).exit_status == 78


@pytest.mark.parametrize("step", ["open", "chmod", "rename", "lstat"])
@pytest.mark.parametrize("name", ["ENOSPC", "EMFILE", "ENOMEM", "EACCES"])
def test_a_socket_that_can_t_be_bound_now_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, name: str
) -> None:
    """At each step of binding it; a permission that is missing needs a person."""

    def fails(*_: Any, **__: Any) -> Any:
        raise os_error(name)

    monkeypatch.setattr(f"perstack_stored.transport.binding.os.{step}", fails)
    with pytest.raises(ConfigError if name == "EACCES" else StartFailedError, match="can't bind ipc://"):
        binding.listen_ipc(f"{tmp_path}/x.sock", 0o600)


def test_a_socket_that_could_not_be_bound_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its file, which the next start would leave as well, nor a descriptor."""

    def fails(*_: Any, **__: Any) -> Any:
        raise os_error("ENOSPC")

    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patched:
        patched.setattr("perstack_stored.transport.binding.os.rename", fails)
        with pytest.raises(StartFailedError):
            binding.listen_ipc(f"{tmp_path}/x.sock", 0o600)
    assert list(tmp_path.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("name", ["EMFILE", "EIO", "ENOENT"])
def test_files_that_can_t_be_read_now_are_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The settings file, the key and the list of clients."""

    def fails(*_: Any, **__: Any) -> Any:
        raise os_error(name)

    for module, work in (
        (sources, lambda: Sources(f"{tmp_path}/a.toml", {}, {}).read()),
        (curve_keys, lambda: curve_keys.load(f"{tmp_path}/key")),
        (curve_keys, lambda: curve_keys.load_clients(f"{tmp_path}/clients")),
    ):
        monkeypatch.setattr(module, "open", fails, raising=False)
        with pytest.raises(ConfigError if name == "ENOENT" else StartFailedError, match=str(tmp_path)):
            work()


def test_a_port_for_metrics_that_can_t_be_had_now_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Any:
        raise os_error("ENFILE")

    monkeypatch.setattr(socket.socket, "bind", fails)
    health = Health(LoopCounters(), lambda: "")
    collector: Any = type("Nothing", (), {"collect": lambda _self: []})()
    with pytest.raises(StartFailedError, match="metrics-bind"):
        MetricsServer("127.0.0.1:0", collector, health)


def test_an_inherited_descriptor_that_is_no_socket_needs_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that the system can't look at now is tried again."""
    environment = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
    for name, kind in (("ENOTSOCK", ConfigError), ("ENOMEM", StartFailedError)):

        def fails(name: str = name, **_: Any) -> Any:
            raise os_error(name)

        monkeypatch.setattr("perstack_stored.transport.socket_activation.socket.socket", fails)
        with pytest.raises(kind, match="descriptor 3"):
            inherited_listeners(dict(environment))


def test_an_invalid_port_is_refused() -> None:
    """ZeroMQ would bind 34463 for it, and say nothing."""
    with (
        zmq.Context() as context,
        context.socket(zmq.ROUTER) as router,
        pytest.raises(ConfigError, match="65535"),
    ):
        binding.bind_tcp(router, "tcp://127.0.0.1:99999", insecure_tcp=True)
