"""The page of three nodes: each of its commands is typed, and shows what the page says."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.docs.pages import ROOT

PAGE = ROOT / "daemon/docs/three-nodes.md"
# Addresses of this machine that stand for the machines of the page: they need no names, and no root.
ADDRESSES = {"a": "127.77.0.1", "b": "127.77.0.2", "c": "127.77.0.3"}
_END = "-- end of the output --"


class Step(NamedTuple):
    """A command, the machine where it is typed, and the lines that it shows."""

    machine: str
    command: str
    shown: list[str]


def steps() -> Iterator[Step]:
    """The commands of the page."""
    for block in re.findall(r"```console\n(.*?)```", PAGE.read_text(), re.DOTALL):
        for text in re.split(r"^(?=[abc]\$ )", block, flags=re.MULTILINE)[1:]:
            command, *shown = text.rstrip("\n").split("\n")
            yield Step(command[0], command[3:], shown)


def on_this_machine(text: str) -> str:
    """A command with addresses in place of names."""
    text = re.sub(
        r"nats://([abc]),([abc]),([abc])/", lambda m: f"nats://{','.join(map(_address, m.groups()))}/", text
    )
    return re.sub(r"nats-route://([abc])", lambda m: f"nats-route://{ADDRESSES[m[1]]}", text)


def _address(name: str) -> str:
    return ADDRESSES[name]


class Shell:
    """A terminal of one machine."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        path = f"{ROOT / '.venv/bin'}:{os.environ['PATH']}"
        self._process = subprocess.Popen(
            ["bash", "-m"],
            cwd=folder,
            env={"PATH": path, "HOME": str(folder), "LANG": "C.UTF-8"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def type(self, command: str) -> list[str]:
        """Run a command; returns what it shows."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\necho '{_END}'\n")
        self._process.stdin.flush()
        shown: list[str] = []
        while (line := self._process.stdout.readline().rstrip("\n")) != _END:
            assert self._process.poll() is None, shown
            shown.append(line)
        return shown

    def end(self) -> None:
        """End it, and what runs in it."""
        assert self._process.stdin is not None
        self._process.stdin.write("kill -9 $(jobs -p) 2>/dev/null; wait; exit\n")
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextmanager
def shell(folder: Path) -> Iterator[Shell]:
    """A terminal for some time."""
    found = Shell(folder)
    try:
        yield found
    finally:
        found.end()


def is_as_shown(found: list[str], shown: list[str]) -> bool:
    """Whether the output has these lines; `...` stands for any, `{word}` for what differs."""
    pattern = "".join(
        "(?:.*\n)*?" if line == "..." else re.sub(r"\\\{\w+\\\}", ".+", re.escape(line)) + "\n"
        for line in shown
    )
    return re.fullmatch(pattern, "".join(line + "\n" for line in found)) is not None


@pytest.mark.timeout(300)
def test_the_page_of_three_nodes_is_as_it_says(tmp_path: Path) -> None:
    (config,) = re.findall(r"```conf\n(.*?)```", PAGE.read_text(), re.DOTALL)
    with ExitStack() as stack:
        shells = {name: stack.enter_context(shell(tmp_path / name)) for name in ADDRESSES}
        for name, address in ADDRESSES.items():
            own = on_this_machine(config).replace("server_name: NAME", f"server_name: {name}")
            (tmp_path / name / "nats.conf").write_text(own.replace("NAME", address))
        for step in steps():
            found = shells[step.machine].type(on_this_machine(step.command))
            if step.shown:
                assert is_as_shown(found, step.shown), (step, found)
