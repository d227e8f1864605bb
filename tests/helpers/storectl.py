"""Runs of `perstack-storectl`: in this process, or as a process of its own on a terminal."""

import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from perstack_storage._storectl import cli

COMMAND = [sys.executable, "-m", "perstack_storage"]


class Ran(NamedTuple):
    """What a command came to."""

    status: int
    out: str
    error: str

    @property
    def lines(self) -> list[str]:
        """Lines of standard output."""
        return self.out.splitlines()

    @property
    def values(self) -> list[Any]:
        """The same as JSON."""
        return [json.loads(line) for line in self.lines]


Run = Callable[..., Ran]


def runner(base: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """A function that runs the command on a base, in this process."""

    def call(*arguments: str, given: bytes = b"") -> Ran:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given)))
        try:
            status = cli.main(["--base-path", str(base), *arguments])
        except SystemExit as left:
            status = int(left.code or 0)
        return Ran(status, *capsys.readouterr())

    return call


def on_terminal(arguments: list[str], columns: int = 60, **environment: str) -> tuple[int, str]:
    """Run the command on a terminal, by default without colours; its exit status and what was sent."""
    ours, theirs = pty.openpty()
    variables = {**os.environ, "TERM": "xterm", "COLUMNS": str(columns), "NO_COLOR": "1", **environment}
    with subprocess.Popen([*COMMAND, *arguments], stdout=theirs, stdin=theirs, env=variables) as process:
        os.close(theirs)
        sent = b""
        try:
            while piece := os.read(ours, 65536):
                sent += piece
        except OSError:  # the other end is closed
            pass
        status = process.wait(timeout=120)
    os.close(ours)
    return status, sent.decode()
