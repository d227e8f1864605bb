"""Over tcp: who has a key on the list is let in, nobody else whatever is wrong; what the refused learn."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
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
from perstack_stored.access.curve_keys import Access, KeyPair, ListedClient
from perstack_stored.access.rules import AccessRules
from perstack_stored.errors import ConfigError, GateFailedError
from perstack_stored.transport import binding
from perstack_stored.transport.zap import ZapHandler
from tests.helpers import commands
from tests.helpers.daemon import RunningDaemon, eventually, running_daemon
from tests.helpers.raw_client import event, setting

SECRET = "sk-PLANTED-curve"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def keygen(path: Path, *arguments: str) -> str:
    """The line that is printed."""
    done = subprocess.run(
        [sys.executable, "-m", "perstack_stored", "keygen", *arguments, str(path)],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout


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


# --- keys ------------------------------------------------------------------------------------------


def test_keygen_makes_a_file_for_its_owner_alone_and_shows_no_secret(tmp_path: Path) -> None:
    """Whatever the umask is; and it overwrites nothing."""
    path = tmp_path / "k"
    before = os.umask(0)
    try:
        line = keygen(path, "--name", "agents@host")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    name, access, public = line.split()
    assert (name, access) == ("agents@host", "read-write")
    pair = curve_keys.load(str(path))
    assert pair.public.decode() == public
    assert pair.secret.decode() not in line
    assert pair.secret.decode() not in repr(pair)
    again = subprocess.run(
        [sys.executable, "-m", "perstack_stored", "keygen", str(path)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert again.returncode == 2
    assert curve_keys.load(str(path)) == pair


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [
        ("", 0o600, "no CURVE key pair"),
        ('public-key = "short"\nsecret-key = "short"', 0o600, "no CURVE key pair"),
        (None, 0o644, "others may read"),
        (None, 0o602, "others may read"),
        ("other", 0o600, "no pair"),
        ("\xff\xfe", 0o600, "no key file"),
    ],
)
def test_a_key_file_that_is_wrong_is_refused(tmp_path: Path, text: str | None, mode: int, says: str) -> None:
    """Also one that others can read: the secret is none any more. No message has a key in it."""
    path = tmp_path / "k"
    pair = curve_keys.generate(str(path))
    if text == "other":
        path.write_text(path.read_text().replace(pair.public.decode(), zmq.curve_keypair()[0].decode()))
    elif text is not None:
        path.write_bytes(text.encode("latin-1"))
    path.chmod(mode)
    with pytest.raises(ConfigError, match=says) as caught:
        curve_keys.load(str(path))
    assert pair.secret.decode() not in str(caught.value)


def test_a_key_in_the_place_of_a_path_is_not_repeated(tmp_path: Path) -> None:
    secret = zmq.curve_keypair()[1].decode().replace("/", "x")
    for load in (curve_keys.load, curve_keys.load_clients):
        with pytest.raises(ConfigError) as caught:
            load(secret)
        assert secret not in str(caught.value)


KEY = zmq.curve_keypair()[0].decode()


@pytest.mark.parametrize(
    "line",
    [
        "name",
        f"name {KEY}",
        f"read-write {KEY} name",
        f"name write {KEY}",
        f"name read-write {KEY[:-1]}",
        f"name read-write {KEY}x",
        f"na/me read-write {KEY}",
        f"name read-write {KEY} more",
        f"a read-write {KEY}\nb read-only {KEY}",
    ],
    ids=range(9),
)
def test_a_list_with_one_wrong_line_is_no_list(tmp_path: Path, line: str) -> None:
    """It is not used up to that line: who was meant to be let in is not known."""
    path = tmp_path / "clients"
    path.write_text(f"good read-write {zmq.curve_keypair()[0].decode()}\n{line}\n")
    with pytest.raises(ConfigError, match=r"line [23]"):
        curve_keys.load_clients(str(path))


# --- who is let in ---------------------------------------------------------------------------------


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
        async with AsyncClient(site.endpoint, keys=site.keys("writer"), timeout_s=20) as client:
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
    with Client(site.endpoint, timeout_s=20) as client:
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


# --- failing closed: parts taken out ---------------------------------------------------------------

PAIR, CLIENT = KeyPair(*zmq.curve_keypair()), KeyPair(*zmq.curve_keypair())
LISTED = AccessRules(clients={CLIENT.public.decode(): ListedClient("c", Access.WRITE)})


class _Failing(AccessRules):
    """Rules that can't be asked."""

    def of_key(self, key: str) -> ListedClient | None:
        raise RuntimeError("broken")


@pytest.fixture
def context() -> Iterator["zmq.Context[zmq.Socket[bytes]]"]:
    made = zmq.Context()
    yield made
    made.destroy(linger=0)


Bound = tuple["zmq.Socket[bytes]", str, ZapHandler | None]


def bound(context: "zmq.Context[zmq.Socket[bytes]]", rules: AccessRules | None) -> Bound:
    """A router on tcp, its endpoint, and with rules the gate before it."""
    router = context.socket(zmq.ROUTER)
    router.handshake_ivl = 1000
    gate = None if rules is None else ZapHandler(context, router, rules)
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    binding.bind_tcp(router, endpoint, curve=PAIR)
    return router, endpoint, gate


def is_heard(router: "zmq.Socket[bytes]", endpoint: str, seconds: float) -> bool:
    """Whether anything of a client on the list comes through."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as client:
        client.linger = 0
        client.curve_serverkey, client.curve_publickey, client.curve_secretkey = PAIR.public, *CLIENT
        client.connect(endpoint)
        client.send(b"hello")
        return bool(router.poll(int(seconds * 1000)))


def test_with_its_gate_a_listed_client_is_admitted(context: "zmq.Context[zmq.Socket[bytes]]") -> None:
    """The tests below take something away from this."""
    router, endpoint, gate = bound(context, LISTED)
    assert gate is not None
    assert is_heard(router, endpoint, 20)
    gate.check()
    router.close()
    gate.stop()


def test_without_a_gate_no_client_is_admitted(context: "zmq.Context[zmq.Socket[bytes]]") -> None:
    """Libzmq alone would take any key then."""
    router, endpoint, _ = bound(context, None)
    assert not is_heard(router, endpoint, 2.5)


def test_with_an_empty_list_no_client_is_admitted(context: "zmq.Context[zmq.Socket[bytes]]") -> None:
    for rules in (AccessRules(), AccessRules(clients={})):
        made = zmq.Context()
        router, endpoint, gate = bound(made, rules)
        assert gate is not None
        assert not is_heard(router, endpoint, 2.5)
        router.close()
        gate.stop()
        made.term()


def test_a_gate_whose_rules_break_lets_nobody_in_and_says_so(
    context: "zmq.Context[zmq.Socket[bytes]]",
) -> None:
    """The daemon asks it each second, and ends: a daemon that admits no client any more must be restarted."""
    router, endpoint, gate = bound(context, _Failing(clients={}))
    assert gate is not None
    gate.check()
    assert not is_heard(router, endpoint, 2.5)

    def fails() -> bool:
        try:
            gate.check()
        except GateFailedError:
            return True
        return False

    eventually(fails, "the gate is known to have failed")
    assert not is_heard(router, endpoint, 2.5)
    router.close()
    gate.stop()


def test_a_gate_that_was_stopped_lets_nobody_in(context: "zmq.Context[zmq.Socket[bytes]]") -> None:
    router, endpoint, gate = bound(context, LISTED)
    assert gate is not None
    gate.stop()
    assert not is_heard(router, endpoint, 2.5)
    with pytest.raises(GateFailedError):
        gate.check()
