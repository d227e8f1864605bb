"""Commands under `perstack-stored exec`, and what is left of them. Real processes throughout."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAM = """
import sys
from perstack_storage import create_initial_job, default_store_event, get_jobs_dir, store_job
name = sys.argv[1]
store_job(create_initial_job(name, "@me/expert@1.0.0"))
for n in range(300):
    default_store_event({
        "type": "startRun", "id": f"{name}-{n}", "expertKey": "me", "timestamp": 1700000000000 + n,
        "jobId": name, "runId": "r", "stepNumber": 0,
    })
print(get_jobs_dir())
"""
# Stores, waits for a line, and stores again.
WAITING = """
import sys
from perstack_storage import create_initial_job, store_job
store_job(create_initial_job(sys.argv[1], "me"))
print("stored", flush=True)
sys.stdin.readline()
store_job(create_initial_job(sys.argv[1] + " again", "me"))
print("stored again", flush=True)
"""


def arguments(base: Path | None, *command: str) -> list[str]:
    where = [] if base is None else ["--base-path", str(base)]
    return [sys.executable, "-m", "perstack_stored", "exec", *where, "--", *command]


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PERSTACK_STORED_")}


def run(base: Path | None, *command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end. Nothing of it is left that would keep its output open."""
    return subprocess.run(
        arguments(base, *command),
        cwd=cwd,
        env=clean_environment(),
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )


def python(code: str, *given: str) -> tuple[str, ...]:
    return sys.executable, "-c", code, *given


class Running:
    """An `exec` that is under way."""

    def __init__(self, base: Path, *command: str) -> None:
        self.process = subprocess.Popen(
            arguments(base, *command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=clean_environment(),
            encoding="utf-8",
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip()

    def end(self) -> int:
        """Let the command go on, to its end."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.process.wait(120)


@contextmanager
def running(base: Path, *command: str) -> Iterator[Running]:
    started = Running(base, *command)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.process.terminate()
        started.process.communicate(timeout=120)


def daemon_pid(base: Path) -> int | None:
    """Process id of the daemon that serves a base."""
    try:
        return int(json.loads((base / ".stored/lock").read_bytes())["pid"])
    except (OSError, ValueError):
        return None


def is_served(base: Path) -> bool:
    pid = daemon_pid(base)
    return pid is not None and Path(f"/proc/{pid}").exists()


def has_open(pid: int, path: Path) -> bool:
    """Whether a process has a file open."""
    with contextlib.suppress(OSError):  # some may be closed meanwhile
        return any(os.readlink(link) == str(path) for link in Path(f"/proc/{pid}/fd").iterdir())
    return False


def jobs(base: Path) -> list[str]:
    """Ids of the jobs in the tree."""
    return sorted(path.parent.name for path in base.glob("jobs/*/job.json"))
