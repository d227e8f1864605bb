"""An installation's life under a live systemd in a Debian container, from `make install` to `make uninstall`.

One test, since each step stands on the one before. What was done and printed is in build/systemd-test/log.
"""

from pathlib import Path

import pytest

from tests.helpers.daemon import eventually
from tests.systemd.container import Container
from tests.systemd.debian import BUILD, parts

SOCKET = "/run/perstack-stored/stored.sock"
ENDPOINT = f"PERSTACK_STORED_ENDPOINT=ipc://{SOCKET}"
PYTHON = "/usr/local/lib/perstack-stored/bin/python"
SETTINGS = "/etc/perstack-stored/perstack-stored.toml"
UNIT = "perstack-stored.service"
LOG = f"journalctl --no-pager --output=cat --unit={UNIT} --lines=20"
SECONDS = 60.0
EVENT = (
    '{"id":"%s","jobId":"%s","runId":"r1","type":"startRun","expertKey":"me",'
    '"timestamp":1795406152251,"stepNumber":0}'
)


@pytest.mark.long
@pytest.mark.timeout(1800)  # the first run makes a Debian
def test_the_life_of_an_installation(tmp_path: Path) -> None:
    """Installed, started by a client, refused, hung, killed, restarted under load, reloaded, removed."""
    made = parts()
    log = BUILD / "log"
    with Container(made, tmp_path, log) as container:
        for step in (
            _install,
            _start_by_a_client,
            _members_of_the_group_only,
            _hang,
            _kill,
            _restart_under_load,
            _reload,
            _metrics_and_tcp,
            _a_failure_for_a_person,
            _switch_over_from_a_tree,
            _back_up_and_drill,
            _back_up_by_the_timer,
            _lists_of_users,
            _one_store_per_project,
            _for_a_developer,
            _stop_and_uninstall,
        ):
            container.say(f"=== {step.__name__.strip('_').replace('_', ' ')}")
            step(container)
        container.say("=== all done")


def _install(container: Container) -> None:
    container.run("PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels make -C /src install")
    for line in ("root:root 755 /usr/local/bin", "perstack-stored:perstack 750 /run/perstack-stored"):
        path = line.split()[-1]
        assert container.run(f"stat --format='%U:%G %a %n' {path}") == line
    units = f"{UNIT} perstack-stored.socket perstack-stored@x.service perstack-stored@x.socket"
    assert not container.run(f"systemd-analyze verify {units} 2>&1 | grep stored", status=None)
    score = container.run(f"systemd-analyze security --no-pager {UNIT} | tail -1")
    assert float(score.split(":")[1].split()[0]) <= 1.0
    for user in ("alice", "bob"):
        container.run(f"useradd --create-home {user}")
    container.run("usermod --append --groups perstack alice")


def _start_by_a_client(container: Container) -> None:
    """Only the socket is there, and a client waits at it until the daemon answers."""
    container.run("systemctl start perstack-stored.socket")
    assert _state(container) == "inactive"
    assert container.run(f"stat --format='%U:%G %a' {SOCKET}") == "perstack-stored:perstack 660"
    container.run(_store("e1"), user="alice")
    assert _state(container) == "active"
    container.run(f"systemctl enable --now {UNIT}")
    _prints(container, f"systemctl show --property=StatusText {UNIT}", "position 1;")
    container.run(f"systemctl status --no-pager --full {UNIT}")
    _prints(
        container,
        "find /var/lib/perstack-stored/perstack -name 'event-*' -printf '%M %u:%g'",
        "-rw-r----- perstack-stored:perstack",
    )


def _members_of_the_group_only(container: Container) -> None:
    refused = container.run(f"timeout 30 sh -c '{_command('stats', timeout='2')}'", user="bob", status=None)
    assert "this user may not enter the folder of" in refused
    connect = f"import socket; socket.socket(socket.AF_UNIX).connect('{SOCKET}')"
    assert "Permission denied" in container.run(f'{PYTHON} -c "{connect}"', user="bob", status=1)
    assert "Permission denied" in container.run("ls /var/lib/perstack-stored", user="bob", status=2)
    assert "position" in container.run(_command("stats"), user="alice")
    assert "startRun" in container.run(
        "cat /var/lib/perstack-stored/perstack/jobs/j1/runs/r1/event-*", user="alice"
    )


def _hang(container: Container) -> None:
    """The watchdog of the unit's 30 s, made shorter for the test; then as installed again."""
    folder = f"/run/systemd/system/{UNIT}.d"
    container.run(f"mkdir -p {folder} && printf '[Service]\\nWatchdogSec=10\\n' > {folder}/short.conf")
    container.run(f"systemctl daemon-reload && systemctl restart {UNIT}")
    before = _pid(container)
    container.run(f"kill -STOP {before}")
    eventually(lambda: _pid(container) not in {before, "0"}, "the watchdog restarts it", SECONDS)
    container.run(_store("e2"), user="alice")
    assert "Watchdog timeout" in container.run(f"journalctl --no-pager --unit={UNIT} --grep=Watchdog")
    container.run(f"journalctl --no-pager --unit={UNIT} --grep='Fatal Python error: Aborted'")
    container.run(f"rm -r {folder} && systemctl daemon-reload && systemctl restart {UNIT}")


def _kill(container: Container) -> None:
    """As the kernel does when memory runs out; the client waits at the socket meanwhile."""
    before, inode = _pid(container), container.run(f"stat --format=%i {SOCKET}")
    container.run(f"kill -KILL {before}")
    container.run(_store("e3"), user="alice")
    assert _pid(container) != before
    assert container.run(f"stat --format=%i {SOCKET}") == inode
    assert container.run(_events("j1"), user="alice").count('"id"') == 3


def _restart_under_load(container: Container) -> None:
    """Every store that was acknowledged is there, once, and no call has failed."""
    agent = f"{PYTHON} /src/tests/systemd/agent.py ipc://{SOCKET} under-load /tmp/enough"
    running = container.start(agent, user="alice")
    position = 0
    # Of the whole unit systemd can't kill processes that end at the same moment: EIO.
    for how in ("restart", "kill --kill-whom=main --signal=KILL", "restart"):
        eventually(lambda at=position: _position(container) > at + 50, "events are stored", SECONDS)  # type: ignore[misc]
        position = _position(container)
        container.run(f"systemctl {how} {UNIT}")
    eventually(lambda: _position(container) > position + 50, "events are stored", SECONDS)
    container.run("touch /tmp/enough")
    output, _ = running.communicate(timeout=SECONDS)
    container.say(f"    {output.strip()} events acknowledged, all there once")
    assert running.returncode == 0, output
    assert int(output) > 150


def _reload(container: Container) -> None:
    """A new value is taken up by the process that runs; a wrong one is said and changes nothing."""
    before = _pid(container)
    container.run(f"echo 'log-level = \"debug\"' >> {SETTINGS}")
    container.run(f"systemctl reload {UNIT}")
    _prints(container, LOG, '"event": "reloaded"')
    container.run(f"echo 'log-levle = \"debug\"' >> {SETTINGS}")
    container.run(f"systemctl reload {UNIT}")
    _prints(container, LOG, '"event": "reload_failed"')
    container.run(_store("e4"), user="alice")
    assert _pid(container) == before
    container.run(f"sed -i '/log-levle/d' {SETTINGS}")


def _metrics_and_tcp(container: Container) -> None:
    """On loopback, once the unit allows it; tcp for a listed key only, the daemon's own from a credential."""
    folder, key = f"/etc/systemd/system/{UNIT}.d", "perstack-stored.curve-key"
    container.run(f"mkdir {folder} && cp /usr/local/share/doc/perstack-stored/network.conf {folder}/")
    container.run(f"cp {SETTINGS} /tmp/settings")
    made = container.run(f"mkdir -p /etc/credstore && perstack-stored keygen /etc/credstore/{key}")
    listed = container.run("perstack-stored keygen --name alice /home/alice/key", user="alice")
    container.run("perstack-stored keygen /home/alice/other", user="alice")
    container.run(f"echo '{listed.splitlines()[-1]}' > /etc/perstack-stored/clients")
    for line in (
        'metrics-bind = "127.0.0.1:9464"',
        'bind = ["tcp://127.0.0.1:7171"]',
        f'curve-key = "/run/credentials/{UNIT}/{key}"',
        'curve-clients = "/etc/perstack-stored/clients"',
    ):
        container.run(f"echo '{line}' >> {SETTINGS}")
    container.run(f"systemctl daemon-reload && systemctl restart {UNIT}")
    scrape = (
        "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:9464/%s').read().decode())"
    )
    assert "perstack_stored_position" in container.run(f'{PYTHON} -c "{scrape % "metrics"}"')
    container.run(f'{PYTHON} -c "{scrape % "readyz"}"')

    def ask(key_file: str, seconds: int) -> str:
        return (
            f"PERSTACK_STORED_ENDPOINT=tcp://127.0.0.1:7171 PERSTACK_STORED_SERVER_KEY='{made.split()[-1]}'"
            f" PERSTACK_STORED_KEY_FILE=/home/alice/{key_file}"
            f" perstack-storectl --timeout {seconds} events j1 r1 --contents"
        )

    assert "e3" in container.run(ask("key", 30), user="alice")
    assert "e3" not in container.run(ask("other", 2), user="alice", status=3)
    container.run(f"cat /run/credentials/{UNIT}/{key}", user="alice", status=1)
    container.run(f"cp /tmp/settings {SETTINGS} && rm -r {folder} /etc/credstore")
    container.run(f"systemctl daemon-reload && systemctl restart {UNIT}")


def _a_failure_for_a_person(container: Container) -> None:
    """Not started again and again; the reason is in the status; the way out is as documented."""
    container.run(f"systemctl stop perstack-stored.socket && echo 'no-such = 1' >> {SETTINGS}")
    container.run(f"systemctl start {UNIT}", status=1)
    assert _state(container) == "failed"
    assert (
        container.run(f"systemctl show --property=ExecMainStatus,NRestarts {UNIT}")
        == "NRestarts=0\nExecMainStatus=78"
    )
    assert "no-such" in container.run(f"systemctl show --property=StatusText {UNIT}")
    container.run(f"sed -i '/no-such/d' {SETTINGS} && systemctl start {UNIT}")
    assert container.run(_events("j1"), user="alice").count('"id"') == 4


def _switch_over_from_a_tree(container: Container) -> None:
    """In place, with the base elsewhere; and back to the old base."""
    tree, override = "/srv/agents/perstack", f"/etc/systemd/system/{UNIT}.d"
    run = f"{tree}/jobs/old/runs/r1"
    event = EVENT % ("e1", "old")
    container.run(f"mkdir -p {run} && echo '{event}' > {run}/event-1795406152251-0-startRun.json")
    container.run(f"echo torn > {run}/event-1795406152252-0-startRun.json")
    container.run(f"systemctl stop perstack-stored.socket && chown -R perstack-stored:perstack {tree}")
    container.run(f"echo 'base-path = \"{tree}\"' >> {SETTINGS} && mkdir {override}")
    container.run(f"printf '[Service]\\nReadWritePaths={tree}\\n' > {override}/override.conf")
    container.run(f"systemctl daemon-reload && systemctl start {UNIT}")
    assert container.run(_events("old"), user="alice") == event
    assert "import_file_skipped" in container.run(LOG)
    container.run(
        f"systemctl stop perstack-stored.socket && rm -r {override} && sed -i /base-path/d {SETTINGS}"
    )
    assert container.run(f"cat {run}/event-1795406152251-0-startRun.json") == event
    container.run(f"systemctl daemon-reload && systemctl start {UNIT}")


def _back_up_and_drill(container: Container) -> None:
    """Beside the running daemon, which hands out its position; the drill touches nothing of it."""
    base = "/var/lib/perstack-stored/perstack"
    for event in ("e5", "e6"):  # the second time only what is new
        container.run(_store(event), user="alice")
        container.run(f"perstack-stored backup --base-path {base} /backup/perstack")
    container.run("perstack-stored restore --base-path /var/tmp/drill /backup/perstack")
    look = "perstack-stored exec --base-path /var/tmp/drill -- perstack-storectl"
    assert container.run(f"{look} events j1 r1 --contents --json") == container.run(
        _events("j1"), user="alice"
    )
    assert "clean" in container.run("perstack-stored check --base-path /var/tmp/drill")
    owners = f"find {base} -not -user perstack-stored -o -not -group perstack"
    assert not container.run(owners), "root has made something in the base that the daemon could not write"


def _back_up_by_the_timer(container: Container) -> None:
    """Beside the running daemon, as its user, in the sandbox of its unit; the newest stay."""
    unit, folder = "perstack-stored-backup", "/var/lib/perstack-stored.backups"
    edited = f"/etc/systemd/system/{unit}.service.d"
    container.run(f"systemctl enable --now {unit}.timer && systemctl list-timers --no-pager {unit}.timer")
    container.run(
        f"mkdir -p {edited} && printf '[Service]\\nEnvironment=BACKUP_KEEP=2\\n' > {edited}/keep.conf"
    )
    container.run("systemctl daemon-reload")
    for _ in range(3):
        container.run(f"systemctl start {unit}.service")
    taken = container.run(f"ls {folder}").splitlines()
    assert len(taken) == 2
    assert container.run(f"stat --format='%U:%G %a' {folder}") == "perstack-stored:perstack 750"
    container.run(f"perstack-stored restore --base-path /var/tmp/kept {folder}/{taken[-1]}")
    base = "/var/lib/perstack-stored/perstack/jobs"
    container.run(f"perstack-stored exec --base-path /var/tmp/kept -- perstack-storectl jobs && ls {base}")
    assert "removed" in container.run(f"journalctl --no-pager --output=cat --unit={unit}.service")
    container.run(f"systemctl disable --now {unit}.timer && rm -r {edited} && systemctl daemon-reload")


def _lists_of_users(container: Container) -> None:
    """Taken up by a reload: the socket lets alice in, the list of readers lets her look only."""
    container.run(f"""echo 'read-only-users = ["alice"]' >> {SETTINGS} && systemctl reload {UNIT}""")
    _prints(container, LOG, "read-only-users")
    assert "may only read" in container.run(_store("e7"), user="alice", status=None)
    assert "e6" in container.run(_events("j1"), user="alice")
    container.run(f"sed -i /read-only-users/d {SETTINGS} && systemctl reload {UNIT}")
    eventually(
        lambda: "stored a value" in container.run(_store("e7"), user="alice", status=None),
        "it stores",
        SECONDS,
    )


def _one_store_per_project(container: Container) -> None:
    container.run("cp /src/deploy/perstack-stored.toml /etc/perstack-stored/acme.toml")
    container.run("systemctl enable --now perstack-stored@acme.service")
    socket = "/run/perstack-stored-acme/stored.sock"
    container.run(_store("e1", job="acme-job", socket=socket), user="alice")
    _prints(container, "find /var/lib/perstack-stored-acme/perstack/jobs", "acme-job", user="alice")
    assert "acme-job" not in container.run("find /var/lib/perstack-stored/perstack/jobs")
    container.run("systemctl disable --now perstack-stored@acme.service perstack-stored@acme.socket")


def _for_a_developer(container: Container) -> None:
    """In a user's own service manager, with a socket for nobody else."""
    container.run("loginctl enable-linger bob")
    ids = container.run("id --user bob")
    manager = f"XDG_RUNTIME_DIR=/run/user/{ids}"
    eventually(
        lambda: (
            container.run(f"{manager} systemctl --user is-system-running", user="bob", status=None)
            in {"running", "degraded"}
        ),
        "the user's manager runs",
        SECONDS,
    )
    container.run(f"{manager} systemctl --user enable --now perstack-stored.service", user="bob")
    socket = f"/run/user/{ids}/perstack-stored/stored.sock"
    container.run(_store("e1", job="bobs", socket=socket), user="bob")
    _prints(container, "find /home/bob/.local/share/perstack-stored/perstack", "bobs", user="bob")
    container.run(f"{manager} systemctl --user show --property=StatusText perstack-stored", user="bob")
    container.run(
        f"{manager} systemctl --user disable --now perstack-stored.service perstack-stored.socket", user="bob"
    )
    container.run("loginctl disable-linger bob")


def _stop_and_uninstall(container: Container) -> None:
    refused = container.run("make -C /src uninstall", status=2)
    assert "systemctl disable --now" in refused
    container.run(f"systemctl disable --now {UNIT} perstack-stored.socket")
    assert container.run(f"systemctl show --property=Result {UNIT}") == "Result=success"
    container.run(f"test -e {SOCKET}", status=1)
    checked = container.run("perstack-stored check --base-path /var/lib/perstack-stored/perstack")
    assert "error" not in checked.lower()
    assert SETTINGS in container.run("make -C /src uninstall")  # kept: it was changed
    left = container.run("find /usr/local /etc -name '*perstack*'")
    assert set(left.splitlines()) == {"/etc/perstack-stored", SETTINGS}
    container.run("test -d /var/lib/perstack-stored/perstack/jobs/j1")


# --- what the steps ask ----------------------------------------------------------------------------


def _command(words: str, socket: str = SOCKET, timeout: str = "120") -> str:
    return f"PERSTACK_STORED_ENDPOINT=ipc://{socket} perstack-storectl --timeout {timeout} {words}"


def _store(id: str, job: str = "j1", socket: str = SOCKET) -> str:
    return f"echo '{EVENT % (id, job)}' | {_command('put event', socket)}"


def _events(job: str) -> str:
    return _command(f"events {job} r1 --contents --json")


def _state(container: Container) -> str:
    return container.run(f"systemctl is-active {UNIT}", status=None)


def _pid(container: Container) -> str:
    return container.run(f"systemctl show --property=MainPID --value {UNIT}")


def _position(container: Container) -> int:
    stats = container.run(_command("stats --json"), user="alice")
    return int(stats.partition('"position":')[2].split(",")[0])


def _prints(container: Container, command: str, text: str, user: str = "root") -> None:
    eventually(
        lambda: text in container.run(command, user=user, status=None), f"{command} prints {text}", SECONDS
    )
