"""A start serves the base at its endpoints, and takes nothing from another daemon."""

import os
import tempfile
from pathlib import Path

import pytest
import zmq

from perstack_storage import Client, socket_path_of
from tests.helpers.daemon import eventually, files_of, running_daemon
from tests.helpers.raw_client import Raw, event, setting
from tests.integration.filled import refusal

pytestmark = pytest.mark.usefixtures("interpreters")


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
