"""The completion files that are installed: each shell finds them by itself, and they work at each Tab."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.systemd.debian import need

TYPED = (("perstack-storectl put run-se", "tting"), ("perstack-stored rest", "ore"))
SECONDS = 60.0


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As PREFIX/share."""
    folder = tmp_path_factory.mktemp("share")
    command = [sys.executable, str(ROOT / "deploy/completions.py"), str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


class Line:
    """A shell's command line: what is typed, and what the shell adds to it."""

    def __init__(self, master: int) -> None:
        self._master = master
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def wait(self, text: str) -> None:
        deadline = time.monotonic() + SECONDS
        while text not in self.shown:
            assert time.monotonic() < deadline, f"{text!r} is not in {self.shown!r}"
            if select.select([self._master], [], [], 1.0)[0]:
                self.shown += os.read(self._master, 65536).decode(errors="replace")
        self.shown = self.shown.split(text, 1)[1]


@contextmanager
def shell(folder: Path, *words: str) -> Iterator[Line]:
    need(shutil.which(words[0]) is not None, f"install {words[0]}")
    master, slave = pty.openpty()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    process = subprocess.Popen(
        ["setsid", "--ctty", *words], stdin=slave, stdout=slave, stderr=slave, cwd=folder,
        env={"PATH": path, "HOME": str(folder), "TERM": "dumb", "LANG": "C.UTF-8"},
    )  # fmt: skip
    os.close(slave)
    try:
        yield Line(master)
    finally:
        process.kill()
        process.wait()
        os.close(master)


def completes(line: Line) -> None:
    """Twice each: a file that only registers something completes nothing at the first Tab, or the second."""
    for start, end in (*TYPED, *TYPED):
        line.type(f"\x15: begins;{start}\t")  # ^U removes what is on the line
        line.wait(f": begins;{start}")
        line.wait(end)


@pytest.mark.parametrize("folder", ["vendor-completions", "site-functions"])
def test_zsh_loads_them(share: Path, tmp_path: Path, folder: str) -> None:
    with shell(tmp_path, "zsh", "-f", "-i") as line:
        line.type(
            f"PS1=; fpath=({share}/zsh/{folder} $fpath); autoload -U compinit; compinit -u; print rea''dy\n"
        )
        line.wait("ready")
        completes(line)


def test_bash_takes_them(share: Path, tmp_path: Path) -> None:
    folder = share / "bash-completion/completions"
    with shell(tmp_path, "bash", "--norc", "--noprofile", "-i") as line:
        line.type(f"PS1=; for each in {folder}/*; do source $each; done; echo rea''dy\n")
        line.wait("ready")
        completes(line)


def test_fish_takes_them(share: Path, tmp_path: Path) -> None:
    need(shutil.which("fish") is not None, "install fish")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for start, end in TYPED:
        program, last = start.split()[0], start.split()[-1]
        text = f"source {share}/fish/vendor_completions.d/{program}.fish; complete -C '{start}'"
        environment = {"PATH": path, "HOME": str(tmp_path)}
        words = ["fish", "-c", text]
        ran = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=120, check=False)
        assert ran.stdout.split()[0] == last + end, ran.stdout + ran.stderr
