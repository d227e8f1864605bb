"""`make install` and `make uninstall` into a folder, and what the units say without being run."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.systemd.debian import ROOT, need

UNITS = (
    "perstack-stored.service",
    "perstack-stored.socket",
    "perstack-stored@.service",
    "perstack-stored@.socket",
    "perstack-stored-backup.service",
    "perstack-stored-backup.timer",
    "perstack-stored-backup@.service",
    "perstack-stored-backup@.timer",
)
EXPOSURE_MAX = 1.0
# Plays Python for the installer: gives it the program that was made before. To make it again takes long.
REMAKER = """#!/bin/sh
for last; do :; done
case "$*" in
*"-m venv --without-pip"*) cp -a '{made}' "$last" ;;
*"-m venv"*) mkdir -p "$last/bin" && ln -s "$0" "$last/bin/python" ;;
esac
"""


def make(target: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a target with DESTDIR."""
    words = [f"{name}={value}" for name, value in {"DESTDIR": str(folder), **variables}.items()]
    return subprocess.run(
        ["make", "-C", str(ROOT), target, *words], capture_output=True, text=True, timeout=300, check=False
    )


def snapshot(folder: Path) -> dict[str, str]:
    """Every path below a folder, and what it is."""
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else str(path.stat().st_mode)
        for path in folder.rglob("*")
    }


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a part of a system is already, with the program beside it."""
    python = "/usr/bin/python3"
    check = "import ensurepip, sys; sys.exit(sys.version_info < (3, 11))"
    ready = os.path.exists(python) and not subprocess.run([python, "-c", check], check=False).returncode
    need(ready, f"{python} must be 3.11 or newer with its venv module (Debian: python3-venv)")
    folder = tmp_path_factory.mktemp("destination")
    (folder / "usr/lib/systemd/system").mkdir(parents=True)
    (folder / "usr/lib/systemd/system/other.service").write_text("[Service]\n")
    (folder / "usr/bin").mkdir()
    done = make("install", folder, PREFIX="/usr")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_nothing_points_to_where_it_was_made(installed: Path) -> None:
    """A package is made in one place and lives in another: no path of the maker's is left in it."""
    for path in installed.rglob("*"):
        if path.is_symlink():
            assert str(installed) not in os.readlink(path)
        elif path.is_file():
            content = path.read_bytes()
            assert str(installed).encode() not in content, path
            assert str(ROOT).encode() not in content, path
    (record,) = installed.glob(
        "usr/lib/perstack-stored/lib/*/site-packages/perstack_stored-*.dist-info/RECORD"
    )
    assert "../../../bin/perstack-stored,,\n" in record.read_text()
    first, *_ = (installed / "usr/lib/perstack-stored/bin/perstack-stored").read_text().splitlines()
    assert first == "#!/usr/lib/perstack-stored/bin/python"
    assert (
        os.readlink(installed / "usr/bin/perstack-stored") == "/usr/lib/perstack-stored/bin/perstack-stored"
    )


def test_only_what_runs_is_installed(installed: Path) -> None:
    """Of the lock; neither pip nor what tests and checks need."""
    (site,) = (installed / "usr/lib/perstack-stored/lib").glob("python*/site-packages")
    found = {path.name.split("-")[0].replace("_", "-") for path in site.glob("*.dist-info")}
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    assert found <= locked | {"perstack-stored"}
    assert {"perstack-stored", "pyzmq", "msgspec"} <= found
    python = installed / "usr/lib/perstack-stored/bin/python"
    run = "import perstack_stored.cli.main; print(perstack_stored.__file__)"
    done = subprocess.run([python, "-c", run], capture_output=True, text=True, check=False)
    assert str(site) in done.stdout, done.stderr


def test_the_units_are_sound_and_tight(installed: Path) -> None:
    """Nothing that systemd doesn't know, and hardly anything that the daemon could do to the machine."""
    need(shutil.which("systemd-analyze") is not None, "install systemd, for systemd-analyze")
    folder = installed / "usr/lib/systemd/system"
    for name in UNITS:
        assert "@PREFIX@" not in (folder / name).read_text()
        assert not re.findall(r"@[A-Z]+@", (folder / name).read_text())
    for name in (unit for unit in UNITS if unit.endswith(".service")):
        said = subprocess.run(
            ["systemd-analyze", "security", "--offline=true", "--no-pager", str(folder / name)],
            capture_output=True, text=True, check=False,
        ).stdout  # fmt: skip
        match = re.search(r"Overall exposure level for .*: ([0-9.]+)", said)
        assert match is not None, said
        assert float(match[1]) <= EXPOSURE_MAX, said


def test_man_pages_and_completions_are_where_they_are_looked_for(installed: Path) -> None:
    """Of both commands; `test_man.py` and `test_completions.py` use them."""
    share = installed / "usr/share"
    found = {
        str(path.relative_to(share))
        for path in share.rglob("*")
        if path.is_file() and "doc" not in path.parts
    }
    assert found == {
        "man/man1/perstack-stored.1", "man/man1/perstack-storectl.1",
        "bash-completion/completions/perstack-stored", "bash-completion/completions/perstack-storectl",
        "zsh/vendor-completions/_perstack-stored", "zsh/vendor-completions/_perstack-storectl",
        "fish/vendor_completions.d/perstack-stored.fish", "fish/vendor_completions.d/perstack-storectl.fish",
    }  # fmt: skip
    assert "#compdef perstack-storectl" in (share / "zsh/vendor-completions/_perstack-storectl").read_text()


def test_uninstall_removes_exactly_what_install_put(installed: Path, tmp_path: Path) -> None:
    """Also after a second install over the first; settings stay if somebody has changed them."""
    folder = tmp_path / "destination"
    shutil.copytree(installed, folder, symlinks=True)
    settings = folder / "etc/perstack-stored/perstack-stored.toml"
    settings.write_text("log-level = 'debug'\n")
    stale = folder / "usr/lib/systemd/system/of-an-older-version.service"
    stale.write_text("[Service]\n")
    with (folder / "usr/lib/perstack-stored/manifest").open("a") as manifest:
        manifest.write("file /usr/lib/systemd/system/of-an-older-version.service\n")
    python = tmp_path / "python3"
    python.write_text(REMAKER.format(made=installed / "usr/lib/perstack-stored"))
    python.chmod(0o755)
    again = make("install", folder, PREFIX="/usr", PYTHON=str(python))
    assert again.returncode == 0, again.stdout + again.stderr
    assert settings.read_text() == "log-level = 'debug'\n"
    assert not stale.exists()
    removed = make("uninstall", folder, PREFIX="/usr")
    assert removed.returncode == 0, removed.stdout + removed.stderr
    assert "kept, since it was changed" in removed.stdout
    assert set(snapshot(folder)) == {
        "usr", "usr/lib", "usr/lib/systemd", "usr/lib/systemd/system", "usr/lib/systemd/system/other.service",
        "usr/bin", "etc", "etc/perstack-stored", "etc/perstack-stored/perstack-stored.toml",
    }  # fmt: skip
    assert make("uninstall", folder, PREFIX="/usr").returncode != 0


def test_untouched_settings_go_too(installed: Path, tmp_path: Path) -> None:
    """They are as they were put."""
    folder = tmp_path / "destination"
    shutil.copytree(installed, folder, symlinks=True)
    assert make("uninstall", folder, PREFIX="/usr").returncode == 0
    assert not (folder / "etc").exists()


@pytest.mark.parametrize(
    ("variables", "says"),
    [({"PREFIX": "usr"}, "absolute"), ({"PYTHON": "/bin/false"}, "PYTHON=/path/to/python3")],
)
def test_what_can_not_work_is_reported_before_anything_is_installed(
    tmp_path: Path, variables: dict[str, str], says: str
) -> None:
    """With nothing left behind."""
    folder = tmp_path / "destination"
    done = make("install", folder, **variables)
    assert done.returncode != 0
    assert says in done.stderr
    assert not folder.exists()


def test_the_locks_are_of_one_mind() -> None:
    """What is installed is what was tested; and each part that daemon and inspector need is locked."""
    versions = {
        name: dict(
            re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / f"requirements{name}.lock").read_text(), re.MULTILINE)
        )
        for name in ("", "-build", "-inspect", "-dev")
    }
    for name in ("", "-build", "-inspect"):
        assert versions[name].items() <= versions["-dev"].items(), "make all locks again"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for name, extra in (("", "daemon"), ("-inspect", "inspect")):
        wanted = project["dependencies"] + project["optional-dependencies"][extra]
        names = {re.split(r"[<>=\[; ]", item)[0].lower().replace("_", "-") for item in wanted}
        assert names <= versions[name].keys()
