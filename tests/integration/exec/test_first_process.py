"""As the first process of a container it waits for orphans."""

import contextlib
import subprocess
from pathlib import Path

from tests.helpers.daemon import eventually
from tests.integration.exec.commands import arguments, clean_environment, is_served, python

# Runs a command to which children come whose parent ends, as to process 1 (PR_SET_CHILD_SUBREAPER).
INHERITING = "import ctypes, os, sys; ctypes.CDLL(None).prctl(36, 1); os.execv(sys.argv[1], sys.argv[1:])"


def test_orphans_of_the_command_are_waited_for(base: Path) -> None:
    """As process 1 it inherits them; none stays as a zombie, and the status is still the command's."""
    orphans = "for i in 1 2 3 4 5; do (sh -c 'sleep 0.1; exit 9' &); done; echo on; read line; exit 4"
    started = subprocess.Popen(
        [*python(INHERITING), *arguments(base, "sh", "-c", orphans)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=clean_environment(),
    )
    assert started.stdout is not None
    assert started.stdout.readline() == b"on\n"

    def states() -> list[bytes]:
        """Of its children: the command and the daemon stay."""
        found = []
        for pid in Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split():
            with contextlib.suppress(OSError):
                found.append(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1])
        return found

    eventually(lambda: len(states()) == 2 and b"Z" not in states(), "all were waited for")
    started.communicate(b"\n", timeout=120)
    assert started.returncode == 4
    assert not is_served(base)
