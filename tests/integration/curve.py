"""Keys for tests of tcp."""

from pathlib import Path

from tests.helpers import commands


def keygen(path: Path, *arguments: str) -> str:
    """The line that is printed."""
    done = commands.run("keygen", *arguments, str(path))
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout
