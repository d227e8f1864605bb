"""Over tcp: who has a key on the list is let in, nobody else; what the refused learn."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import zmq

from perstack_storage import (
    AsyncClient,
    Client,
    CurveKeys,
    DaemonUnavailable,
    EndpointError,
    Forbidden,
    KeyRefused,
)
from perstack_stored.access import curve_keys
from tests.helpers import commands
from tests.helpers.daemon import RunningDaemon, eventually, running_daemon
from tests.helpers.ports import free_port
from tests.helpers.raw_client import event, setting
from tests.integration.curve import keygen

SECRET = "sk-PLANTED-curve"


class Site(NamedTuple):
    """A daemon on tcp, and the keys of its clients."""

    daemon: RunningDaemon
    endpoint: str
    folder: Path
    server_key: str
    clients: Path

    def keys(self, name: str) -> CurveKeys:
        return CurveKeys.from_file(self.server_key, self.folder / f"{name}.key")

    def client(self, name: str, timeout_s: float = 20) -> Client:
        return Client(self.endpoint, keys=self.keys(name), timeout_s=timeout_s)

    def reload(self, name: str) -> None:
        before = len(self.daemon.events(name))
        os.kill(self.daemon.pid, signal.SIGHUP)
        eventually(lambda: len(self.daemon.events(name)) > before, name)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key files of the daemon and of clients, and the lines that keygen printed."""
    folder = tmp_path_factory.mktemp("keys")
    lines = {
        name: keygen(folder / f"{name}.key", "--name", name, *(["--read-only"] if name == "reader" else []))
        for name in ("daemon", "writer", "reader", "stranger")
    }
    (folder / "lines.json").write_text(json.dumps(lines))
    return folder


@pytest.fixture
def site(made: Path, tmp_path: Path) -> Iterator[Site]:
    lines = json.loads((made / "lines.json").read_text())
    clients = tmp_path / "clients"
    clients.write_text("# who may connect\n\n" + lines["writer"] + lines["reader"])
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    ipc = f"ipc://{tmp_path}/sock"
    with running_daemon(
        tmp_path / "base",
        *("--bind", endpoint, "--bind", ipc, "--metrics-bind", "127.0.0.1:0", "--log-level", "debug"),
        *("--curve-key", str(made / "daemon.key"), "--curve-clients", str(clients)),
    ) as daemon:
        yield Site(daemon, endpoint, made, lines["daemon"].split()[2], clients)


def secret_of(path: Path) -> str:
    return curve_keys.load(str(path)).secret.decode()


def test_clients_on_the_list_may_do_what_it_says(site: Site) -> None:
    """Stores, reads, masked reads; and ipc is served beside it, without keys."""
    planted = setting(env={"KEY": SECRET})
    with site.client("writer") as writer, site.client("reader") as reader:
        assert writer.store_run_setting(planted) == 1
        assert writer.get_all_runs()[0]["env"] == {"KEY": SECRET}
        assert writer.hello()["access"] == "read-write"
        assert reader.hello()["access"] == "read-only"
        assert reader.get_all_runs()[0]["env"] == {"KEY": "***"}
        with pytest.raises(Forbidden, match="only read"):
            reader.store_event(event())
        with writer.pipeline() as pipeline:
            for n in range(100):
                pipeline.store_event(event(f"e{n}"))
        assert pipeline.positions == list(range(2, 102))
    assert site.daemon.events("forbidden")[0]["client"] == "reader"
    with Client(f"ipc://{site.daemon.base.parent}/sock") as local:
        assert local.store_event(event("local")) == 102


def test_an_asyncio_client_is_let_in_and_refused_alike(site: Site) -> None:
    async def store() -> None:
        async with AsyncClient(site.endpoint, keys=site.keys("writer"), timeout_s=60) as client:
            stores = [client.store_event(event(str(n))) for n in range(20)]
            assert await asyncio.gather(*stores) == list(range(1, 21))
        async with AsyncClient(site.endpoint, keys=site.keys("stranger"), timeout_s=2) as client:
            with pytest.raises(KeyRefused):
                await client.store_event(event())
            with pytest.raises(KeyRefused):
                await client.get_all_jobs()

    asyncio.run(store())


def test_a_client_that_is_not_on_the_list_learns_that_it_is_refused(site: Site) -> None:
    """By the error's class, for stores and reads; the log has the key, the metrics count it."""
    with site.client("stranger", 2) as stranger:
        with pytest.raises(KeyRefused, match="does not let this client's key in"):
            stranger.store_event(event())
        with pytest.raises(KeyRefused):
            stranger.get_all_jobs()
    assert site.daemon.events("key_refused")[0]["key"] == site.keys("stranger").public_key
    assert site.daemon.events("key_refused")[0]["address"] == "127.0.0.1"


def test_a_wrong_server_key_and_a_missing_one_are_distinguished(site: Site) -> None:
    """Neither gets any further; nothing is stored."""
    wrong = CurveKeys.from_file(zmq.curve_keypair()[0].decode(), site.folder / "writer.key")
    told = pytest.raises(DaemonUnavailable, match="is the server key the daemon's own")
    with Client(site.endpoint, keys=wrong, timeout_s=2) as client, told:
        client.store_event(event())
    with Client(site.endpoint, timeout_s=2) as plain:
        with pytest.raises(DaemonUnavailable, match="CURVE") as caught:
            plain.store_event(event())
        assert not isinstance(caught.value, KeyRefused)
    with site.client("writer") as writer:
        assert writer.store_event(event()) == 1


def test_the_environment_names_the_keys(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSTACK_STORED_SERVER_KEY", site.server_key)
    with pytest.raises(EndpointError, match="go together"):
        Client(site.endpoint)
    monkeypatch.setenv("PERSTACK_STORED_KEY_FILE", str(site.folder / "writer.key"))
    with Client(site.endpoint, timeout_s=60) as client:
        assert client.store_event(event()) == 1
    monkeypatch.setenv("PERSTACK_STORED_KEY_FILE", str(site.clients))
    with pytest.raises(EndpointError, match="no CURVE key pair"):
        Client(site.endpoint)
    assert Client("ipc:///nowhere/x").endpoint  # needs no keys


def test_a_reload_lets_clients_in_and_turns_them_out(site: Site) -> None:
    """Who is connected is turned out too; a list that is broken changes nothing."""
    lines = json.loads((site.folder / "lines.json").read_text())
    with site.client("writer") as writer:
        assert writer.store_event(event("a")) == 1
        site.clients.write_text(lines["stranger"])
        site.reload("reloaded")
        with pytest.raises(Forbidden, match="not on the daemon's list"):
            writer.store_event(event("b"))
        with site.client("stranger") as stranger:
            assert stranger.store_event(event("c")) == 2
        site.clients.write_text(lines["writer"] + "broken\n")
        site.reload("reload_failed")
        with site.client("stranger") as stranger:
            assert stranger.store_event(event("d")) == 3
        with site.client("writer", 2) as again, pytest.raises(KeyRefused):
            again.store_event(event("e"))
        site.clients.unlink()
        site.reload("reload_failed")
        with site.client("stranger") as stranger:
            assert stranger.store_event(event("f")) == 4


def test_no_secret_key_is_in_log_or_metrics(site: Site) -> None:
    with site.client("writer") as writer:
        writer.store_event(event())
    with contextlib.suppress(DaemonUnavailable), site.client("stranger", 1) as stranger:
        stranger.store_event(event())
    site.daemon.stop()
    log = site.daemon.log.read_text()
    for name in ("daemon", "writer", "reader", "stranger"):
        assert secret_of(site.folder / f"{name}.key") not in log
    assert secret_of(site.folder / "writer.key") not in repr(site.keys("writer"))


@pytest.mark.parametrize("what", ["no list", "broken list", "no key", "open key"])
def test_a_daemon_whose_keys_are_wrong_does_not_start(made: Path, tmp_path: Path, what: str) -> None:
    key, clients = tmp_path / "daemon.key", tmp_path / "clients"
    key.write_text((made / "daemon.key").read_text())
    key.chmod(0o644 if what == "open key" else 0o600)
    clients.write_text("nonsense\n" if what == "broken list" else "")
    if what == "no list":
        clients.unlink()
    if what == "no key":
        key.unlink()
    keys = ("--curve-key", str(key), "--curve-clients", str(clients))
    bind = f"tcp://127.0.0.1:{free_port()}"
    done = commands.run("serve", "--base-path", str(tmp_path / "base"), "--bind", bind, *keys)
    assert done.returncode == 78
    assert str(tmp_path) in json.loads(done.stderr.splitlines()[-1])["reason"]
