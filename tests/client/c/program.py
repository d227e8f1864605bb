"""The example program of the C client: run once, or with its standard input open."""

import json
import os
import shutil
import subprocess
from pathlib import Path

from perstack_storage import Client
from tests.helpers.daemon import RunningDaemon

SOURCES = Path(__file__).parents[3] / "client" / "c"
SANITIZERS = "-O1 -g -fsanitize=address,undefined -fno-omit-frame-pointer -fno-sanitize-recover=all"
JOB, RUN = "job", "r"


def needs() -> str | None:
    if not all(map(shutil.which, ("make", "cc"))):
        return "gcc and make"
    found = subprocess.run(
        ["cc", "-E", "-include", "zmq.h", "-"], input=b"", capture_output=True, check=False
    )
    return "libzmq3-dev" if found.returncode else None


def run_program(
    program: str, endpoint: str, *words: str, given: str = "", timeout_ms: int = 30_000
) -> tuple[int, str, str]:
    """Exit status, output and complaints."""
    done = subprocess.run(
        [program, endpoint, *words],
        input=given.encode(),
        capture_output=True,
        check=False,
        timeout=120,
        env={**os.environ, "TIMEOUT_MS": str(timeout_ms)},
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def lines(*values: object) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


def numbers(daemon: RunningDaemon) -> list[int]:
    with Client(daemon.endpoint) as client:
        return [found["n"] for found in client.get_event_contents(JOB, RUN)]  # type: ignore[typeddict-item]


class Interactive:
    """The program with its standard input open: a store at a time."""

    def __init__(self, program: str, endpoint: str, timeout_ms: int = 30_000) -> None:
        self.process = subprocess.Popen(
            [program, endpoint, "store"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "TIMEOUT_MS": str(timeout_ms)},
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._input, self._output = self.process.stdin, self.process.stdout

    def send(self, value: object) -> None:
        self._input.write(lines(value).encode())
        self._input.flush()

    def position(self) -> int:
        return int(self._output.readline())

    def end(self) -> str:
        """Its complaints."""
        return self.process.communicate(timeout=120)[1].decode()
