"""Runs `perstack-stored` in a fork of a process that has imported it, see `forks.py`."""

import os
import subprocess
import tempfile

from tests.helpers import forks

_SECONDS = 120.0


def run(*arguments: str, environment: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    """Run `perstack-stored` in this process's folder and environment, to which `environment` adds.

    Bytes that are no UTF-8 come as `surrogateescape` has them.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = forks.start(
            list(arguments), {**os.environ, **(environment or {})}, out.fileno(), err.fileno()
        )
        try:
            status = process.wait(_SECONDS)
        finally:
            process.kill()
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(file.read().decode(errors="surrogateescape"))
    return subprocess.CompletedProcess(["perstack-stored", *arguments], status, *said)
