"""The life of the Debian package under a live systemd: installed, used, upgraded, removed, purged.

`make test-release` runs it on the package in dist/. build/release-test/deb.log has what was done and printed.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers.daemon import eventually
from tests.packaging.roots import BUILD, figure
from tests.systemd.container import Container
from tests.systemd.debian import ROOT, need, parts

UNIT = "perstack-stored.service"
SETTINGS = "/etc/perstack-stored/perstack-stored.toml"
STATE = "/var/lib/perstack-stored"
CLIENT = (
    "PERSTACK_STORED_ENDPOINT=ipc:///run/perstack-stored/stored.sock"
    " /usr/lib/perstack-stored/bin/python /src/tests/packaging/first_event.py"
)
SECONDS = 60.0
INSTALL = "DEBIAN_FRONTEND=noninteractive dpkg --install"
NEWER = "99"


@pytest.fixture(scope="module")
def package() -> Path:
    found = sorted((ROOT / "dist").glob("perstack-stored_*.deb"))
    need(len(found) == 1, f"make deb must have made one package, not {len(found)}")
    return found[0]


def test_lintian_finds_nothing(package: Path) -> None:
    """Beyond what the package overrides, with a reason for each."""
    need(shutil.which("lintian") is not None, "install lintian")
    words = [
        "lintian",
        "--allow-root",
        "--tag-display-limit",
        "0",
        "--fail-on",
        "error,warning",
        str(package),
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def newer(package: Path, folder: Path) -> Path:
    """The same as a later version, with other settings as its default."""
    made = BUILD / "newer.deb"
    tree = folder / "newer"
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    control = tree / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^Version: ", f"Version: {NEWER}:", control.read_text()))
    with (tree / SETTINGS.lstrip("/")).open("a") as settings:
        settings.write("# of the later version\n")
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", "-Znone", tree, made], check=True)
    return made


@pytest.mark.timeout(900)
def test_the_life_of_the_package(package: Path, tmp_path: Path) -> None:
    """It runs once installed; an upgrade keeps settings; what is stored goes only when that is asked for."""
    made = parts()
    BUILD.mkdir(parents=True, exist_ok=True)
    later = newer(package, tmp_path)
    with Container(made, tmp_path / "container", BUILD / "deb.log") as container:
        _install(container, f"/src/{package.relative_to(ROOT)}")
        _upgrade(container, f"/src/{later.relative_to(ROOT)}")
        _remove(container)
        _purge(container)
        _install_again_and_purge_all(container, f"/src/{package.relative_to(ROOT)}")
    later.unlink()
    figure(f"{package.name}: {os.path.getsize(package) / 1e6:.1f} MB")


def _install(container: Container, package: str) -> None:
    container.run(f"{INSTALL} {package}")
    assert container.run(f"systemctl is-active {UNIT}") == "active"
    assert container.run(f"systemctl is-enabled {UNIT} perstack-stored.socket").split() == ["enabled"] * 2
    assert container.run("systemctl is-enabled perstack-stored-backup.timer", status=1) == "disabled"
    assert container.run("systemctl --global is-enabled perstack-stored.socket", status=1) == "disabled"
    container.run("useradd --create-home alice && usermod --append --groups perstack alice")
    assert container.run(CLIENT, user="alice") == "1"
    assert container.run(f"stat --format='%U:%G %a' {STATE}") == "perstack-stored:perstack 750"
    assert not container.run("dpkg --verify perstack-stored")
    listed = container.run("dpkg --listfiles perstack-stored")
    assert all(f"/man1/{name}.1.gz" in listed for name in ("perstack-stored", "perstack-storectl"))
    assert all(f"/completions/{name}" in listed for name in ("perstack-stored", "perstack-storectl"))
    container.run("systemctl enable --now perstack-stored-backup.timer")
    container.run("systemctl start perstack-stored-backup.service")
    container.run(f"cp {SETTINGS} /etc/perstack-stored/acme.toml")
    container.run("systemctl enable --now perstack-stored@acme.service")


def _upgrade(container: Container, package: str) -> None:
    """With settings that somebody has changed. A client waits at the socket meanwhile."""
    container.run(f"""echo 'log-level = "debug"' >> {SETTINGS} && systemctl reload {UNIT}""")
    show = f"systemctl show --property=MainPID --value {UNIT} perstack-stored@acme.service"
    before = container.run(show).split()
    container.run(f"{INSTALL} --force-confold {package}")
    after = container.run(show).split()
    assert len(after) == 2
    assert not set(before) & set(after)
    assert "debug" in container.run(f"tail -1 {SETTINGS}")
    assert "of the later version" in container.run(f"tail -1 {SETTINGS}.dpkg-dist")
    assert container.run(CLIENT, user="alice") == "2"
    assert container.run("systemctl is-active perstack-stored-backup.timer") == "active"
    assert NEWER in container.run("dpkg-query --show perstack-stored")


def _remove(container: Container) -> None:
    container.run("DEBIAN_FRONTEND=noninteractive dpkg --remove perstack-stored")
    active = "systemctl list-units --no-legend --state=active 'perstack-stored*'"
    eventually(lambda: not container.run(active), "nothing of it runs", SECONDS)
    container.run(f"test -e {SETTINGS} && test -d {STATE}/perstack/jobs/job-1")
    assert not container.run("find /usr/bin /usr/lib /usr/share -name '*perstack*'")


def _purge(container: Container) -> None:
    """Without an answer, what is stored stays. So do settings that the operator has made."""
    container.run("DEBIAN_FRONTEND=noninteractive dpkg --purge perstack-stored")
    left = container.run("find /etc /usr /run -path /run/systemd -prune -o -name '*perstack*' -print")
    assert left.splitlines() == ["/etc/perstack-stored"]
    assert container.run("ls /etc/perstack-stored") == "acme.toml"
    container.run(
        f"test -d {STATE}/perstack/jobs/job-1 && test -d {STATE}-acme && rm -r /etc/perstack-stored"
    )


def _install_again_and_purge_all(container: Container, package: str) -> None:
    """What was stored is there again; a purge that is asked to takes it, and leaves the backups."""
    container.run(f"{INSTALL} {package}")
    assert container.run(CLIENT, user="alice") == "3"
    answer = "perstack-stored perstack-stored/remove-what-is-stored boolean true"
    container.run(f"echo '{answer}' | debconf-set-selections")
    container.run("DEBIAN_FRONTEND=noninteractive dpkg --purge perstack-stored")
    left = container.run(
        "find /etc /usr /var/lib /run -path /run/systemd -prune -o -name '*perstack*' -print"
    )
    assert left.splitlines() == [f"{STATE}.backups"]
