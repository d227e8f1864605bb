"""Units that an operator copies, under a live systemd: the inspector's, and the daemon's with a mirror.

`make test-release` runs it on the packages in dist/. build/release-test/units.log has what was done and
printed.
"""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.helpers.daemon import eventually
from tests.helpers.s3 import BUCKET, ENVIRONMENT
from tests.packaging.roots import BUILD
from tests.systemd.container import Container
from tests.systemd.debian import ROOT, need, parts, wheels_of, wheels_of_inspector

DOCS = "/usr/share/doc/perstack-stored"
ENDPOINT = "PERSTACK_STORED_ENDPOINT=ipc:///run/perstack-stored/stored.sock"
PYTHON = "/usr/lib/perstack-stored/bin/python"
CLIENT = f"{ENDPOINT} {PYTHON} /src/tests/packaging/first_event.py"
SETTINGS = "/etc/perstack-stored/perstack-stored.toml"
BASE = "/var/lib/perstack-stored/perstack"
DAEMON = "perstack-stored.service"
INSPECTOR = "perstack-stored-inspect.service"
TOKEN = "/etc/perstack-stored/inspect-token"
SECONDS = 60.0
EXPOSURE_MAX = 2.0
# As the guide makes it.
MAKE_TOKEN = f"(umask 077; head -c 24 /dev/urandom | base64 | tr '+/' '-_' >{TOKEN})"


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """One with the Debian package, and alice in the group."""
    packages = sorted((ROOT / "dist").glob("perstack-stored_*.deb"))
    need(len(packages) == 1, f"make deb must have made one package, not {len(packages)}")
    made = parts()
    BUILD.mkdir(parents=True, exist_ok=True)
    folder = tmp_path_factory.mktemp("units")
    with Container(made, folder / "container", BUILD / "units.log") as container:
        container.run(f"DEBIAN_FRONTEND=noninteractive dpkg --install /src/{packages[0].relative_to(ROOT)}")
        container.run("useradd --create-home alice && usermod --append --groups perstack alice")
        container.run(CLIENT, user="alice")
        yield container


@pytest.mark.timeout(900)
def test_the_inspector_s_unit(container: Container) -> None:
    """It answers those who have the token, under a user of its own that sees nothing but the socket."""
    wheels = wheels_of_inspector(parts().debian).relative_to(ROOT)
    (wheel,) = (ROOT / "dist").glob("*.whl")
    pip = f"PIP_NO_INDEX=1 PIP_FIND_LINKS=/src/{wheels} /opt/perstack-inspect/bin/pip install -q"
    container.run("python3 -m venv /opt/perstack-inspect")
    container.run(f"{pip} --require-hashes -r /src/requirements-inspect.lock")
    container.run(f"{pip} --no-deps /src/{wheel.relative_to(ROOT)}")
    container.run(MAKE_TOKEN)
    container.run(f"cp {DOCS}/inspect.service /etc/systemd/system/{INSPECTOR}")
    assert not container.run(f"systemd-analyze verify {INSPECTOR} 2>&1 | grep inspect", status=None)
    score = container.run(f"systemd-analyze security --no-pager {INSPECTOR} | tail -1")
    assert float(score.split(":")[1].split()[0]) <= EXPOSURE_MAX
    container.run(f"systemctl enable --now {INSPECTOR}")
    token = container.run(f"cat {TOKEN}")
    _answers(container, token)
    assert container.run(_asking("/api/jobs")) == "401"
    assert "<!doctype html>" in container.run(_asking("/", token)).lower()
    assert "job-1" in container.run(_asking("/api/jobs", token))
    _is_confined(container)

    before = _pid(container)
    container.run(f"kill -KILL {before}")
    eventually(lambda: _pid(container) not in {before, "0"}, "it is started again", SECONDS)
    _answers(container, token)
    container.run(f"systemctl restart {DAEMON}")
    _answers(container, token)

    container.run(f"systemctl stop {INSPECTOR}")
    shown = f"systemctl show --property=Result,ExecMainStatus {INSPECTOR}"
    assert container.run(shown).splitlines() == ["Result=success", "ExecMainStatus=0"]
    said = container.run(f"journalctl --no-pager --output=cat --unit={INSPECTOR}")
    assert "Started" in said
    assert token not in said
    assert "Traceback" not in said


def _is_confined(container: Container) -> None:
    """What its user may, seen from within its mounts."""
    pid = _pid(container)
    status = dict(
        line.split(":", 1) for line in container.run(f"cat /proc/{pid}/status").splitlines() if ":" in line
    )
    user, group = status["Uid"].split()[0], status["Gid"].split()[0]
    assert user not in {"0", container.run("id --user perstack-stored")}
    assert status["CapEff"].strip() == "0" * 16
    groups = ",".join(status["Groups"].split())
    inside = f"nsenter --target={pid} --mount setpriv --reuid={user} --regid={group} --groups={groups}"
    for path in (f"{BASE}/.stored/journal", f"{BASE}/.stored/index.sqlite", TOKEN, "/etc/shadow"):
        assert "Permission denied" in container.run(f"{inside} cat {path}", status=1)
    for path in (f"{BASE}/jobs/x", "/etc/x", "/opt/x"):
        assert container.run(f"{inside} touch {path}", status=1)
    assert "Permission denied" in container.run(f"cat /run/credentials/{INSPECTOR}/token", "alice", 1)


@pytest.mark.timeout(900)
def test_the_daemon_s_unit_with_a_mirror(container: Container) -> None:
    """With the drop-in it reaches its bucket; its credentials are its own; the base comes back from there."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    need(version in container.run("readlink /usr/bin/python3"), "the container has another Python")
    libraries = f"/src/.venv/lib/{version}/site-packages"
    obstore = wheels_of("obstore", parts().debian).relative_to(ROOT)
    container.run("python3 -m venv /opt/pip")
    container.run(f"PIP_NO_INDEX=1 PIP_FIND_LINKS=/src/{obstore} {_what_the_daemon_says(container)}")
    server = _start_s3(container, libraries)
    port = container.run("cat /tmp/s3.port")
    keys = "\\n".join(f"{name.lower()} = {value}" for name, value in ENVIRONMENT.items())
    file = "/etc/perstack-stored/mirror-credentials"
    container.run(f"(umask 077; printf '[default]\\n{keys}\\n' >{file})")
    for line in (f'mirror = "s3://{BUCKET}/unit"', f'mirror-endpoint = "http://127.0.0.1:{port}"'):
        container.run(f"echo '{line}' >>{SETTINGS}")
    drop_in = f"/etc/systemd/system/{DAEMON}.d"
    container.run(f"mkdir {drop_in} && cp {DOCS}/mirror.conf {drop_in}/")
    container.run(f"systemctl daemon-reload && systemctl restart {DAEMON}")
    position = container.run(CLIENT, user="alice")
    stats = f"{ENDPOINT} perstack-storectl stats --json"
    eventually(
        lambda: f'"position":{position},' in container.run(stats, "alice").partition('"mirror":')[2],
        "the mirror has it",
        SECONDS,
    )
    assert "Permission denied" in container.run(
        f"cat /run/credentials/{DAEMON}/mirror-credentials", "alice", 1
    )
    said = container.run(f"journalctl --no-pager --output=cat --unit={DAEMON}")
    assert ENVIRONMENT["AWS_SECRET_ACCESS_KEY"] not in said
    restore = f"perstack-stored restore --base-path /var/tmp/again --mirror-endpoint http://127.0.0.1:{port}"
    container.run(f"PERSTACK_STORED_MIRROR_CREDENTIALS={file} {restore} s3://{BUCKET}/unit")
    look = "perstack-stored exec --base-path /var/tmp/again -- perstack-storectl events job-1 run-1"
    assert "startRun" in container.run(look)
    container.run("touch /tmp/s3.stop")
    server.communicate(timeout=SECONDS)


def _what_the_daemon_says(container: Container) -> str:
    """The command to install what a mirror needs, as a daemon without it tells."""
    serve = "perstack-stored serve --base-path /var/tmp/new --mirror s3://bucket/new"
    said = container.run(serve, status=78)
    assert "type python3 -m pip --python /usr/lib/perstack-stored/bin/python install" in said
    words = said.partition("type python3")[2].partition('"')[0]
    return f"/opt/pip/bin/python{words}"


def _start_s3(container: Container, libraries: str) -> "subprocess.Popen[str]":
    """An S3 server in there, with a bucket, until /tmp/s3.stop is there."""
    wait = "while [ ! -e /tmp/s3.stop ]; do sleep 0.2; done"
    serve = "python3 -m tests.helpers.s3 >/tmp/s3.port 2>/tmp/s3.log"
    server = container.start(f"cd /src && ({wait}) | PYTHONPATH={libraries}:/src {serve}")
    eventually(lambda: bool(container.run("cat /tmp/s3.port", status=None).isdigit()), "S3 serves", SECONDS)
    make = (
        "import urllib.request as u; port = open('/tmp/s3.port').read().strip();"
        f" u.urlopen(u.Request(f'http://127.0.0.1:{{port}}/{BUCKET}', method='PUT'))"
    )
    container.run(f'python3 -c "{make}"')
    return server


def _asking(path: str, token: str = "") -> str:
    return f"python3 /src/tests/packaging/ask_inspector.py {path} {token}"


def _answers(container: Container, token: str) -> None:
    eventually(
        lambda: container.run(_asking("/api/hello", token), status=None).startswith("200 "),
        "the inspector answers",
        SECONDS,
    )


def _pid(container: Container) -> str:
    return container.run(f"systemctl show --property=MainPID --value {INSPECTOR}")
