"""Users and TLS of a daemon at its servers: a fault is named; no secret is shown, or sent in plain text."""

import contextlib
import datetime
import ipaddress
import os
import signal
import socket
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.helpers.commands import run as stored
from tests.helpers.daemon import RunningDaemon, eventually
from tests.helpers.raw_client import Raw, event

from .cluster import Cluster, Node

SECRET = "correct-horse-battery"
USERS = f'authorization {{ users: [ {{ user: daemon, password: "{SECRET}" }} ] }}'


class Authority:
    """Signs certificates."""

    def __init__(self, folder: Path) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
        self.file = folder / "ca.pem"
        self.folder = folder
        made = self._signed(self._name, self._key, x509.BasicConstraints(ca=True, path_length=0))
        self.file.write_bytes(made.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> tuple[Path, Path]:
        """A certificate for 127.0.0.1, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate, private = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        made = self._signed(subject, key, names)
        certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        private.write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
        return certificate, private

    def _signed(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name)
        builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(days=1))
        builder = builder.not_valid_after(now + datetime.timedelta(days=1))
        return builder.add_extension(extension, critical=False).sign(self._key, hashes.SHA256())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Signs the certificates of this module."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Node]:
    """One server with TLS that knows one user."""
    certificate, key = authority.issue("server")
    tls = f'tls {{ cert_file: "{certificate}", key_file: "{key}" }}'
    servers = Cluster(tmp_path_factory.mktemp("server"), 1, f"{tls}\n{USERS}")
    try:
        servers.start()
        yield servers.nodes[0]
    finally:
        servers.stop()


def credentials(folder: Path, **facts: object) -> str:
    """A file with these facts."""
    path = folder / "credentials.toml"
    path.write_text("".join(f'{name} = "{value}"\n' for name, value in facts.items()))
    path.chmod(0o600)
    return str(path)


def test_a_daemon_shares_a_stream_of_servers_with_tls_and_users(
    tmp_path: Path, node: Node, authority: Authority
) -> None:
    certificate, key = authority.issue("daemon")
    file = credentials(
        tmp_path, user="daemon", password=SECRET, ca=authority.file, certificate=certificate, key=key
    )
    where = ["--journal", f"tls://127.0.0.1:{node.port}/private", "--nats-credentials", file]
    made = stored("stream", "create", *where, "--replicas", "1")
    assert made.returncode == 0, made.stderr
    daemon = RunningDaemon(tmp_path / "base", *where).start()
    config = node.config.read_text()
    try:
        with Raw(daemon.endpoint) as raw:
            assert raw.store("storeEvent", event("1"))
            # The user is taken from the servers, and comes back: the connection ends, and is made again.
            node.config.write_text(config.replace("user: daemon", "user: nobody"))
            node.signal(signal.SIGHUP)
            eventually(lambda: bool(daemon.events("stream_error")), "the server has sent it away")
            eventually(lambda: "it refuses the user" in daemon.log.read_text(), "the reason is logged")
            node.config.write_text(config)
            node.signal(signal.SIGHUP)
            assert raw.store("storeEvent", event("2"))
            # Another password, while the server is away.
            restart_with(node, [(node.config, config.replace(SECRET, f"{SECRET}-2").encode())])
            eventually(lambda: "it refuses the user" in replication(raw)["fault"], "the old one is refused")
            credentials(
                tmp_path,
                user="daemon",
                password=f"{SECRET}-2",
                ca=authority.file,
                certificate=certificate,
                key=key,
            )
            assert raw.store("storeEvent", event("3"))
            assert SECRET not in daemon.log.read_text()
    finally:
        restart_with(node, [(node.config, config.encode())])
        daemon.make_sure_it_ended()


def test_a_server_that_comes_back_with_a_wrong_certificate_is_refused_until_it_has_a_right_one(
    tmp_path: Path, node: Node, authority: Authority
) -> None:
    """The daemon says so in its log, `stats` and `status`, goes on trying, and what waits is stored."""
    file = credentials(tmp_path, user="daemon", password=SECRET, ca=authority.file)
    where = ["--journal", f"tls://127.0.0.1:{node.port}/certificates", "--nats-credentials", file]
    made = stored("stream", "create", *where, "--replicas", "1")
    assert made.returncode == 0, made.stderr
    certificate, key = authority.folder / "server.pem", authority.folder / "server.key"
    right = certificate.read_bytes(), key.read_bytes()
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    wrong = [path.read_bytes() for path in Authority(foreign).issue("server")]
    daemon = RunningDaemon(tmp_path / "base", *where).start()
    try:
        with Raw(daemon.endpoint) as raw:
            assert raw.store("storeEvent", event("1")) == 1
            restart_with(node, zip((certificate, key), wrong, strict=True))
            reason = "its certificate is not valid: "
            eventually(lambda: reason in replication(raw)["fault"], "stats say it")
            assert not replication(raw)["connected"]
            shown = stored("status", "--base-path", str(daemon.base)).stdout
            assert "no server of the replicated log can be used" in " ".join(shown.split())
            before = sockets(daemon)
            eventually(lambda: sum(line["times"] for line in said(daemon, reason)) > 12, "it tries on")
            assert sockets(daemon) < before + 6, "connections are closed"
            first, later = said(daemon, reason)[:2]
            assert first["times"] == 1
            assert later["times"] > 1
            number = raw.send("storeEvent", event("2"))
            restart_with(node, zip((certificate, key), right, strict=True))
            answer = raw.receive()
            assert (answer.header["id"], answer.position) == (number, 2)
            assert replication(raw)["fault"] == ""
            assert SECRET not in daemon.log.read_text()
    finally:
        daemon.make_sure_it_ended()
        for path, data in zip((certificate, key), right, strict=True):
            path.write_bytes(data)


def restart_with(node: Node, files: Iterable[tuple[Path, bytes]]) -> None:
    """Start a server again, with these contents of files."""
    node.terminate()
    for path, data in files:
        path.write_bytes(data)
    node.start()
    eventually(node.is_healthy, "the server is ready")


def replication(raw: Raw) -> dict[str, Any]:
    found: dict[str, Any] = raw.ask("stats").value["replication"]
    return found


def sockets(daemon: RunningDaemon) -> int:
    """How many a daemon has open."""
    found = 0
    for path in Path(f"/proc/{daemon.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found += os.readlink(path).startswith("socket:")
    return found


def said(daemon: RunningDaemon, reason: str) -> list[dict[str, Any]]:
    """Lines of the log with a reason."""
    return [line for line in daemon.events("stream_error") if reason in str(line["reason"])]


@pytest.mark.parametrize(
    ("facts", "host", "reason"),
    [
        ({"user": "daemon", "password": "wrong"}, "127.0.0.1", "it refuses the user"),
        ({}, "127.0.0.1", "it refuses the user"),
        ({"user": "daemon", "password": SECRET, "ca": ""}, "127.0.0.1", "unable to get local issuer"),
        ({"user": "daemon", "password": SECRET}, "localhost", "mismatch"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, node: Node, authority: Authority, facts: dict[str, str], host: str, reason: str
) -> None:
    facts = {name: value for name, value in ({"ca": str(authority.file)} | facts).items() if value}
    file = credentials(tmp_path, **facts)
    where = ["--journal", f"tls://{host}:{node.port}/private", "--nats-credentials", file]
    found = stored("stream", "check", *where)
    assert found.returncode != 0
    assert reason in found.stderr
    assert SECRET not in found.stdout + found.stderr


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "No such file"),
        (f'user = "{SECRET}"\n', "needs user and password"),
        (f"password: {SECRET}\n", "neither a .creds file nor TOML"),
        (f'passwort = "{SECRET}"\n', "may have these texts"),
        ('ca = "/dev/null"\n', "no usable certificate"),
        (f"-----BEGIN NATS USER JWT-----\n{SECRET}\n", "no JWT of a user with the seed after it"),
        (f'creds = "{SECRET}"\ntoken = "x"\n', "needs user and password, or token"),
        (f'seed = "{SECRET}"\n', "its seed has a typing mistake"),
        (f'token = "{SECRET}"\n# open', "others may read"),
    ],
)
def test_a_file_that_can_t_be_used_is_refused(tmp_path: Path, text: str | None, reason: str) -> None:
    path = tmp_path / "credentials"
    if text is not None:
        path.write_text(text)
        path.chmod(0o644 if "# open" in text else 0o640)
    found = stored("stream", "check", "--journal", "tls://127.0.0.1:1/s", "--nats-credentials", str(path))
    assert found.returncode == 2
    assert reason in found.stderr
    assert SECRET not in found.stderr


def test_nothing_is_sent_to_a_server_without_tls_if_the_address_asks_for_it(tmp_path: Path) -> None:
    """One in the middle that offers no TLS must not get the password."""
    heard = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b'INFO {"server_id":"x","version":"2.15.1","max_payload":1048576}\r\n')
                while data := connection.recv(4096):
                    heard.extend(data)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        file = credentials(tmp_path, user="daemon", password=SECRET)
        url = f"tls://127.0.0.1:{server.getsockname()[1]}/s"
        found = stored("stream", "check", "--journal", url, "--nats-credentials", file)
        thread.join(30)
    assert "offers no TLS" in found.stderr
    assert heard == b""
