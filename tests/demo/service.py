"""The daemon that the demo starts, on a new folder, and the offline check of that folder."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.demo import screen

COMMAND = Path(sys.executable).with_name("perstack-stored")
START_SECONDS = 20.0
STOP_SECONDS = 60.0
_POLL_SECONDS = 0.01
_LOG_BYTES_SHOWN = 2000


class DemoFailed(Exception):  # noqa: N818 - what happened
    """The demo can't go on; the message is for its user."""


def make_empty(base: Path) -> None:
    """Make the folder empty, and wait until the disk has written all of the last demo."""
    if base.exists():
        if any(base.iterdir()) and not (base / ".stored").is_dir():
            raise DemoFailed(f"{base.name}/ is not a demo's: move it away")
        lock = base / ".stored" / "lock"
        if lock.exists():
            with lock.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise DemoFailed(f"a daemon still serves {base.name}/: stop it first") from None
        screen.passing(f"removing the last {base.name}/")
        if (base / "jobs").exists():
            shutil.rmtree(base / "jobs")  # first: as long as .stored/ is there, it is known for a demo's
        shutil.rmtree(base)
        os.sync()
    base.mkdir()


class Service:
    """The daemon's process. Ctrl-C does not reach it: the demo stops it when it no longer needs it."""

    def __init__(self, base: Path) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        self._process = subprocess.Popen(
            [COMMAND, "serve", "--base-path", base, "--log-format", "json"],
            stdin=subprocess.DEVNULL,
            stderr=self._log,
            start_new_session=True,
        )

    def wait_ready(self) -> None:
        """Wait until it says that it is ready."""
        deadline = time.monotonic() + START_SECONDS
        while b'"event": "ready"' not in self._said():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise DemoFailed(f"the daemon did not start:\n{self._last_words()}")
            time.sleep(_POLL_SECONDS)

    def stop(self) -> str | None:
        """Send SIGTERM; returns what was wrong with its end, or nothing."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return f"the daemon did not stop within {STOP_SECONDS:.0f} s:\n{self._last_words()}"
        return f"the daemon ended with status {status}:\n{self._last_words()}" if status else None

    def _said(self) -> bytes:
        self._log.seek(0)
        return self._log.read()

    def _last_words(self) -> str:
        return self._said()[-_LOG_BYTES_SHOWN:].decode(errors="replace")


def check(base: Path) -> tuple[str, list[str]]:
    """The last line and the findings of `perstack-stored check` on a base that no daemon serves."""
    done = subprocess.run(
        [COMMAND, "check", "--base-path", base],
        capture_output=True,
        check=False,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    lines = (done.stdout + done.stderr).splitlines() or [f"status {done.returncode}"]
    findings = [line for line in lines if line.startswith("finding ")] or lines
    return lines[-1], findings if done.returncode else []
