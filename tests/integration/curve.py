"""Keys for tests of tcp."""

import subprocess
import sys
from pathlib import Path


def keygen(path: Path, *arguments: str) -> str:
    """The line that is printed."""
    done = subprocess.run(
        [sys.executable, "-m", "perstack_stored", "keygen", *arguments, str(path)],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout
