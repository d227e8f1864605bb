"""A daemon that signs in at its servers with a key: a seed, or the `.creds` file of an operator's user."""

from pathlib import Path

from tests.helpers.commands import run as stored
from tests.helpers.daemon import RunningDaemon, eventually
from tests.helpers.raw_client import Raw, event

from .cluster import Cluster
from .keys import USER, Key, Operator


def test_a_daemon_signs_in_with_the_creds_file_of_an_operators_user(tmp_path: Path) -> None:
    """After a restart of the server, too, with what the file holds then."""
    operator = Operator()
    text, seed = operator.creds()
    file = tmp_path / "daemon.creds"
    file.write_text(text)
    file.chmod(0o600)
    servers = Cluster(tmp_path, 1, operator.config())
    where = ["--journal", servers.url("keys"), "--nats-credentials", str(file)]
    daemon = RunningDaemon(tmp_path / "base", *where)
    try:
        servers.start()
        made = stored("stream", "create", *where, "--replicas", "1")
        assert made.returncode == 0, made.stderr
        daemon.start()
        with Raw(daemon.endpoint) as raw:
            assert raw.store("storeEvent", event("1")) == 1
            servers.nodes[0].terminate()
            file.write_text(text.replace(seed, Key(USER).seed))
            servers.nodes[0].start()
            eventually(
                lambda: "it refuses the user" in raw.ask("stats").value["replication"]["fault"],
                "another seed does not fit",
            )
            new, _ = operator.creds()
            file.write_text(new)
            assert raw.store("storeEvent", event("2")) == 2
        assert seed not in daemon.log.read_text()
        assert "BEGIN" not in daemon.log.read_text()
    finally:
        daemon.make_sure_it_ended()
        servers.stop()


def test_a_seed_signs_in(tmp_path: Path) -> None:
    """One that the servers don't know is refused by name."""
    key = Key(USER)
    servers = Cluster(tmp_path, 1, f"authorization {{ users: [ {{ nkey: {key.public} }} ] }}")
    file = tmp_path / "credentials.toml"
    where = ["--journal", servers.url("keys"), "--nats-credentials", str(file)]
    try:
        servers.start()
        for seed, status in ((key.seed, 0), (Key(USER).seed, 2)):
            file.write_text(f'seed = "{seed}"\n')
            file.chmod(0o600)
            done = stored("stream", "create", *where, "--replicas", "1")
            assert done.returncode == status, done.stderr
            assert status == 0 or "it refuses the user" in done.stderr
            assert seed not in done.stdout + done.stderr
    finally:
        servers.stop()
