"""Keys for tests of tcp, and a port."""

import socket
import subprocess
import sys
from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def keygen(path: Path, *arguments: str) -> str:
    """The line that is printed."""
    done = subprocess.run(
        [sys.executable, "-m", "perstack_stored", "keygen", *arguments, str(path)],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout
