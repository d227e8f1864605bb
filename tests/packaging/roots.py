"""Bare systems to install into: a folder for each distribution, kept under build/ for the next run.

A command runs in a copy (an overlay) of the folder, in namespaces of its own, so it ends with the test, and
nothing that it wrote is left in the folder.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.docs.pages import ROOT
from tests.systemd.debian import need

BUILD = ROOT / "build" / "release-test"
# What a user has who can make a virtual environment, and no more.
PACKAGES = "apt,python3-venv,ca-certificates"
DEBIAN, UBUNTU = "http://deb.debian.org/debian", "http://archive.ubuntu.com/ubuntu"
# Python 3.11, 3.13 and 3.12.
SYSTEMS = {"bookworm": DEBIAN, "trixie": DEBIAN, "noble": UBUNTU}
# Certificates of this machine: a mirror of the package index may have one of its own.
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_MAKE_SECONDS = 600
_COMMAND_SECONDS = 300
_ENTER = """
set -e
mount -t overlay overlay -o lowerdir="$1",upperdir="$2/upper",workdir="$2/work" "$2/root"
mount -t proc proc "$2/root/proc"
mount --rbind /dev "$2/root/dev"
touch "$2/root$3"
mount --bind "$3" "$2/root$3"
cat /etc/resolv.conf >"$2/root/etc/resolv.conf"
exec chroot "$2/root" /usr/bin/env --ignore-environment HOME=/root LC_ALL=C.UTF-8 \\
    DEBIAN_FRONTEND=noninteractive PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \\
    sh -ec "$4"
"""


class System:
    """A bare system; what one command writes, the next one finds, until the test ends."""

    def __init__(self, lower: Path, folder: Path) -> None:
        self._lower = lower
        self._folder = folder
        for name in ("upper", "work", "root"):
            (folder / name).mkdir(parents=True)

    def put(self, file: Path, at: str) -> None:
        """Copy a file to a path in there."""
        target = self._folder / "upper" / at.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)

    def run(self, command: str, status: int | None = 0) -> str:
        """Run a shell command; return what it printed. `status` None takes any."""
        done = subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _ENTER, "enter",
             str(self._lower), str(self._folder), CERTIFICATES, command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=_COMMAND_SECONDS, check=False,
        )  # fmt: skip
        if status is not None:
            assert done.returncode == status, f"{command}: {done.returncode}\n{done.stdout}"
        return done.stdout.strip()


def figure(text: str) -> None:
    """A line of build/release-test/figures, which `make test-release` prints."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "figures").open("a") as file:
        file.write(f"{text}\n")


def lower(suite: str) -> Path:
    """The folder of a distribution, made at the first call."""
    need(os.geteuid() == 0, "a bare system needs root")
    need(shutil.which("mmdebstrap") is not None, "install mmdebstrap")
    mirror = SYSTEMS[suite]
    options = []
    if mirror == UBUNTU:
        keys = "/usr/share/keyrings/ubuntu-archive-keyring.gpg"
        keys = os.environ.get("UBUNTU_KEYRING", keys)
        need(os.path.exists(keys), f"Ubuntu's keys are not at {keys}; UBUNTU_KEYRING names another file")
        options = [f"--keyring={keys}", "--components=main,universe"]
    key = hashlib.sha256(repr((suite, mirror, PACKAGES)).encode()).hexdigest()[:12]
    folder = BUILD / f"{suite}-{key}"
    BUILD.mkdir(parents=True, exist_ok=True)
    with _alone(BUILD / "lock"):
        if not folder.exists():
            unfinished = BUILD / f"{suite}.unfinished"
            if unfinished.exists():
                shutil.rmtree(unfinished)
            made = subprocess.run(
                ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", *options, suite,
                 str(unfinished), mirror],
                capture_output=True, text=True, timeout=_MAKE_SECONDS, check=False,
            )  # fmt: skip
            assert made.returncode == 0, made.stdout + made.stderr
            unfinished.rename(folder)
    return folder


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
