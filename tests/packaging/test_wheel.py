"""Wheel and sdist: what is in them, what they say of themselves, and that both hold the same program."""

import email
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from pathlib import Path

import pytest

from perstack_storage import __version__
from tests.docs.pages import ROOT

PACKAGES = {"perstack_stored": "daemon", "perstack_storage": "client/python"}
INFO = f"perstack_stored-{__version__}.dist-info"
PAGE = "perstack_storage/_inspect/page"
# Runs the build, and ends where it lists a folder that a link leads to.
NO_LINKS = """
import runpy, sys
def hook(event, args):
    if event == "os.scandir" and "/link" in str(args[0]):
        sys.exit(f"walks {args[0]}")
sys.addaudithook(hook)
runpy.run_module("hatchling", run_name="__main__")
"""
COMMANDS = "[console_scripts]\nperstack-storectl = perstack_storage.__main__:main\n"


def build(source: Path, folder: Path, kind: str) -> Path:
    """Build a wheel or an sdist, as the make targets do."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)],
        cwd=source, check=True, capture_output=True, timeout=280,
    )  # fmt: skip
    (built,) = folder.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("wheel"), "wheel")


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("sdist"), "sdist")


def test_the_sdist_holds_what_git_holds(sdist: Path) -> None:
    """Every file in version control but those of CI, the inspector and the TypeScript client; and the page.

    No file of a folder that is only here, as build/ is: the systemd tests keep a whole Debian there.
    """
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    left_out = (".ci/", "client/inspector/", "client/typescript/")
    wanted = {path for path in listed.stdout.splitlines() if not path.startswith(left_out)}
    page = {f"client/python/{PAGE}/{path.name}" for path in (ROOT / "client/python" / PAGE).glob("*")}
    with tarfile.open(sdist) as archive:
        found = {name.partition("/")[2] for name in archive.getnames()}
    assert found == wanted | page | {"PKG-INFO"}


def test_a_build_follows_no_link_beside_the_sources(sdist: Path, tmp_path: Path) -> None:
    """The systemd tests mount /proc under build/ for a while: links in there lead everywhere."""
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    source = tmp_path / f"perstack_stored-{__version__}"
    for name in ("build", "node_modules"):
        (source / name).mkdir()
        (source / name / "link").symlink_to(tmp_path)
    for kind in ("sdist", "wheel"):
        done = subprocess.run(
            [sys.executable, "-c", NO_LINKS, "build", "-t", kind, "-d", str(tmp_path / kind)],
            cwd=source, capture_output=True, text=True, timeout=280, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        return email.message_from_bytes(archive.read(f"{INFO}/METADATA"))


def test_the_wheel_holds_both_packages_and_nothing_else(wheel: Path) -> None:
    """Every module, the marker of types, the inspector's page if it is built; no test, no compiled file."""
    wanted = {
        str(path.relative_to(ROOT / folder))
        for package, folder in PACKAGES.items()
        for path in (ROOT / folder / package).rglob("*.py")
    }
    wanted |= {f"{package}/py.typed" for package in PACKAGES}
    wanted |= {f"{INFO}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt")}
    page = {path.name for path in (ROOT / "client/python" / PAGE).glob("*")}
    assert page in (set(), {"index.html", "page.js", "page.css", "icon.svg"})
    wanted |= {f"{PAGE}/{name}" for name in page}
    with zipfile.ZipFile(wheel) as archive:
        found = set(archive.namelist())
    assert found == wanted | {f"{INFO}/licenses/LICENSE"}


def test_the_metadata_says_what_a_user_needs(wheel: Path) -> None:
    """Version, Python, licence, a readme; each Python that is tried; no address that is not ours."""
    said = metadata(wheel)
    assert (said["Name"], said["Version"]) == ("perstack-stored", __version__)
    assert (said["Requires-Python"], said["License-Expression"]) == (">=3.11", "Apache-2.0")
    assert said["Description-Content-Type"] == "text/markdown"
    readme = said.get_payload(decode=True)
    assert isinstance(readme, bytes)
    assert readme.decode().strip() == (ROOT / "README.md").read_text().strip()
    pythons = {
        line.rpartition(":: ")[2] for line in said.get_all("Classifier", []) if ":: Python :: 3." in line
    }
    assert pythons == {"3.11", "3.12", "3.13", "3.14"}
    assert said.get_all("Project-URL") is None


def test_the_client_alone_needs_no_server(wheel: Path) -> None:
    """What only the daemon needs is behind its extra."""
    needs = metadata(wheel).get_all("Requires-Dist", [])
    assert {need for need in needs if "extra" not in need} == {"orjson>=3.10", "pyzmq>=27.0"}
    daemon = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"][
        "daemon"
    ]
    assert {need.partition(";")[0] for need in needs if "extra == 'daemon'" in need} == set(daemon)


def test_the_wheel_brings_the_commands(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        said = archive.read(f"{INFO}/entry_points.txt").decode()
    assert said == f"{COMMANDS}perstack-stored = perstack_stored.__main__:main\n"


def test_the_sdist_builds_the_same_wheel(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    """Byte for byte, without a repository around it; and it holds what a packager needs."""
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    source = tmp_path / f"perstack_stored-{__version__}"
    assert build(source, tmp_path / "again", "wheel").read_bytes() == wheel.read_bytes()
    locks = ("requirements.lock", "requirements-inspect.lock")
    for name in ("LICENSE", "CHANGELOG.md", *locks, "deploy/install.sh", "tests/conftest.py"):
        assert (source / name).is_file(), name
