"""What a container is made of, kept under build/ for the next run: a Debian folder, and wheels."""

import fcntl
import hashlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "systemd-test"
# A machine on which an operator may run `make install`, and no more.
PACKAGES = ("systemd-sysv", "dbus", "libpam-systemd", "python3-venv", "make")
TOOLS = {"mmdebstrap": "mmdebstrap", "systemd-nspawn": "systemd-container", "nsenter": "util-linux"}
_GLIBC_OF_DEBIAN_12 = 36
_MAKING_SECONDS = 1200


class Parts(NamedTuple):
    """The folder to boot, not to be written, and the folder of wheels."""

    debian: Path
    wheels: Path


def need(condition: bool, what: str) -> None:
    """Skip with a reason where this can't run; in CI that is a failure."""
    if not condition:
        if os.environ.get("CI"):
            pytest.fail(what)
        pytest.skip(what)


def parts() -> Parts:
    """Made at the first call, by one process at a time."""
    need(os.geteuid() == 0, "a container needs root")
    missing = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    need(not missing, f"install {' '.join(missing)}")
    BUILD.mkdir(parents=True, exist_ok=True)
    with _alone(BUILD / "lock"):
        debian = _debian()
        return Parts(debian, _wheels(debian, "requirements.lock", "requirements-build.lock"))


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _debian() -> Path:
    mirror, suite = _source()
    key = hashlib.sha256(repr((suite, PACKAGES)).encode()).hexdigest()[:12]
    folder = BUILD / f"debian-{key}"
    if folder.exists():
        return folder
    unfinished = BUILD / "debian.unfinished"
    if unfinished.exists():
        shutil.rmtree(unfinished)
    # What it mounts goes with its mount namespace, also where its time is over.
    made = subprocess.run(
        ["unshare", "--mount", "mmdebstrap", "--mode=root", "--variant=apt",
         f"--include={','.join(PACKAGES)}", "--dpkgopt=force-unsafe-io", suite, str(unfinished), mirror],
        capture_output=True, text=True, timeout=_MAKING_SECONDS, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout[-4000:] + made.stderr
    unfinished.rename(folder)
    return folder


def _source() -> tuple[str, str]:
    """Mirror and suite of this machine's own packages."""
    fields = "$(ORIGIN) $(LABEL) $(COMPONENT) $(SITE) $(CODENAME)"
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", fields, "Created-By: Packages"],
        capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip
    found = [line.split()[3:] for line in listed.splitlines() if line.startswith("Debian Debian main ")]
    main = [(site, suite) for site, suite in found if "-" not in suite]
    need(bool(main), "the test boots a Debian: it needs the package lists of one (apt-get update)")
    return main[0]


def wheels_of_inspector(debian: Path) -> Path:
    """What the inspector's lock names."""
    with _alone(BUILD / "lock"):
        return _wheels(debian, "requirements-inspect.lock")


def _wheels(debian: Path, *names: str) -> Path:
    """Those of some locks, for the Python that the folder has."""
    locks = [ROOT / name for name in names]
    key = hashlib.sha256(b"".join(lock.read_bytes() for lock in locks)).hexdigest()[:12]
    folder = BUILD / f"wheels-{key}"
    if folder.exists():
        return folder
    return _downloaded(debian, folder, [["--require-hashes", "-r", str(lock)] for lock in locks])


def wheels_of(package: str, debian: Path) -> Path:
    """A package, in the version that is installed here, and what it needs."""
    version = importlib.metadata.version(package)
    with _alone(BUILD / "lock"):
        folder = BUILD / f"{package}-{version}"
        if not folder.exists():
            _downloaded(debian, folder, [[f"{package}=={version}"]])
        return folder


def _downloaded(debian: Path, folder: Path, calls: list[list[str]]) -> Path:
    python = os.readlink(debian / "usr/bin/python3").removeprefix("python")
    tags = [f"manylinux_2_{minor}" for minor in range(5, _GLIBC_OF_DEBIAN_12 + 1)]
    tags += ["manylinux1", "manylinux2010", "manylinux2014"]
    platforms = [f"--platform={tag}_{platform.machine()}" for tag in tags]
    unfinished = BUILD / "wheels.unfinished"
    for words in calls:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check",
             "--only-binary=:all:", f"--python-version={python}", *platforms, "-d", str(unfinished), *words],
            check=True,
        )  # fmt: skip
    unfinished.rename(folder)
    return folder
