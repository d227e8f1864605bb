"""A backup of a base that is mounted read-only for it, as in a container, while a daemon serves it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.daemon import running_daemon
from tests.helpers.raw_client import Raw, event

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
MOUNTED = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" "$0" && exec "$@"'


def back_up_read_only(base: Path, target: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "perstack_stored",
        "backup",
        "--base-path",
        str(base),
        *options,
        str(target),
    ]
    return read_only(base, command)


def read_only(base: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command for which the base is mounted read-only."""
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", MOUNTED, str(base), *command],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_the_daemon_is_asked_although_the_lock_can_not_be_taken(tmp_path: Path) -> None:
    """What it has not synced yet must not be in a backup. An endpoint of another base shows that it asks."""
    base, other = tmp_path / "base", tmp_path / "other"
    with running_daemon(base) as daemon, running_daemon(other) as elsewhere:
        with Raw(daemon.endpoint) as raw:
            raw.store("storeEvent", event())
        asked = back_up_read_only(base, tmp_path / "refused", "--endpoint", elsewhere.endpoint)
        assert (asked.returncode, asked.stdout) == (2, "")
        assert f"serves {other}, not {base}" in asked.stderr
        taken = back_up_read_only(base, tmp_path / "backup")
        assert (taken.returncode, taken.stderr) == (0, "")
        assert "up to position 1:" in taken.stdout


def test_a_check_of_a_served_base_is_refused_through_a_read_only_mount(tmp_path: Path) -> None:
    """What a daemon writes meanwhile would look like damage."""
    base = tmp_path / "base"
    command = [sys.executable, "-m", "perstack_stored", "check", "--base-path", str(base)]
    with running_daemon(base) as daemon:
        refused = read_only(base, command)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "the base is held by the daemon with process id" in refused.stderr
        assert daemon.stop() == 0
    assert read_only(base, command).returncode == 0


def test_a_base_that_nobody_serves_can_be_backed_up_from_a_read_only_mount(tmp_path: Path) -> None:
    """As from a snapshot, also without a lock in it."""
    base = tmp_path / "base"
    with running_daemon(base) as daemon, Raw(daemon.endpoint) as raw:
        raw.store("storeEvent", event())
        assert daemon.stop() == 0
    assert back_up_read_only(base, tmp_path / "backup").returncode == 0
    (base / ".stored/lock").unlink()
    taken = back_up_read_only(base, tmp_path / "backup")
    assert (taken.returncode, taken.stderr) == (0, "")
    shutil.rmtree(tmp_path / "backup")
