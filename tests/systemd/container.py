"""A Debian booted under systemd-nspawn. Nothing of it is left when it is closed but the log."""

import contextlib
import ctypes
import os
import shlex
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType

from tests.helpers.daemon import eventually
from tests.systemd.debian import ROOT, Parts

_BOOT_SECONDS = 90.0
_STOP_SECONDS = 60.0
_COMMAND_SECONDS = 180.0
_PR_SET_PDEATHSIG = 1
# In a mount namespace of its own: the overlay is gone with the last process in there.
_BOOT = """
set -e
mount -t overlay overlay -o lowerdir="$1",upperdir="$2/upper",workdir="$2/work" "$2/root"
shift
folder=$1
shift
exec systemd-nspawn --quiet --boot --directory="$folder/root" --register=no --private-network \\
    --console=pipe "$@"
"""


class Container:
    """Runs from `with` to its end. `log` gets each command and what it printed."""

    def __init__(self, parts: Parts, folder: Path, log: Path) -> None:
        self._parts = parts
        self._folder = folder
        self._log = log
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0

    def __enter__(self) -> "Container":
        for name in ("upper", "work", "root"):
            (self._folder / name).mkdir(parents=True)
        self._log.write_text("")
        binds = [f"--bind-ro={ROOT}:/src", f"--bind-ro={self._parts.wheels}:/wheels"]
        if not Path("/run/systemd/system").exists():
            binds.append("--keep-unit")  # nobody here could give it one
        with (self._folder / "console").open("wb") as console:
            self._nspawn = subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", _BOOT, "boot",
                 str(self._parts.debian), str(self._folder), "--machine=perstack-stored-test", *binds],
                stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT,
                preexec_fn=_die_with_the_test,  # noqa: PLW1509 - no other thread is there
            )  # fmt: skip
        try:
            eventually(self._booted, f"it boots; see {self._folder}/console", _BOOT_SECONDS)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.run("journalctl --no-pager --lines=200 --unit='perstack-stored*'", status=None)
        self.close()

    def close(self) -> None:
        """Shut it down, as `poweroff` would."""
        assert self._nspawn is not None
        if self._nspawn.poll() is None:
            self._nspawn.send_signal(signal.SIGTERM)
            try:
                self._nspawn.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._nspawn.kill()
                self._nspawn.wait()

    def say(self, text: str) -> None:
        """A line of the log."""
        with self._log.open("a") as log:
            log.write(f"{time.strftime('%H:%M:%S')} {text}\n")

    def start(self, command: str, user: str = "root") -> subprocess.Popen[str]:
        """A shell command in the container, as after a login, that goes on."""
        inside = (
            ["runuser", "--user", user, "--", "sh", "-c", command]
            if user != "root"
            else ["sh", "-c", command]
        )
        environment = [
            "env",
            "--ignore-environment",
            "PATH=/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin",
        ]
        self.say(f"{user}$ {command}")
        return subprocess.Popen(
            ["nsenter", f"--target={self._leader}", "--all", *environment, *inside],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def run(self, command: str, user: str = "root", status: int | None = 0) -> str:
        """A shell command in the container; what it printed. `status` None takes any."""
        running = self.start(command, user)
        output, _ = running.communicate(timeout=_COMMAND_SECONDS)
        for line in output.splitlines():
            self.say(f"    {line}")
        if status is not None:
            assert running.returncode == status, f"{shlex.quote(command)}: {running.returncode}\n{output}"
        return output.strip()

    def _booted(self) -> bool:
        assert self._nspawn is not None
        assert self._nspawn.poll() is None, (self._folder / "console").read_text()
        self._leader = self._leader or _leader_of(self._nspawn.pid)
        if not self._leader:
            return False
        return self.run("systemctl is-system-running --wait", status=None) in {"running", "degraded"}


def _leader_of(pid: int) -> int:
    """Process 1 of the container that nspawn with this process id has made, 0 if it is not there yet."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        # It may have ended since it was listed.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            status = Path(f"/proc/{child}/status").read_text()
            ids = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()
            name = Path(f"/proc/{child}/comm").read_text().strip()
            if len(ids) > 2 and ids[-1] == "1" and name == "systemd":
                return int(child)
    return 0


def _die_with_the_test() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == 1:
        os._exit(1)
