"""A base or a setting that can not be used is named, and nothing starts."""

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers import commands
from tests.helpers.daemon import RunningDaemon
from tests.integration.filled import refusal


def _as_file(base: Path) -> None:
    base.write_text("a file")


def _below_a_file(base: Path) -> None:
    base.parent.joinpath("file").write_text("a file")
    base.symlink_to(base.parent / "file" / "below")


def _stored_is_a_file(base: Path) -> None:
    base.mkdir()
    (base / ".stored").write_text("a file")


def _stored_is_a_link(base: Path) -> None:
    base.mkdir()
    (base.parent / "elsewhere").mkdir()
    (base / ".stored").symlink_to(base.parent / "elsewhere")


def _journal_is_a_file(base: Path) -> None:
    (base / ".stored").mkdir(parents=True)
    (base / ".stored" / "journal").write_text("a file")


def _lock_is_a_folder(base: Path) -> None:
    (base / ".stored" / "lock").mkdir(parents=True)


@pytest.mark.parametrize(
    "prepare",
    [_as_file, _below_a_file, _stored_is_a_file, _stored_is_a_link, _journal_is_a_file, _lock_is_a_folder],
)
def test_a_base_that_can_not_be_used_is_named(tmp_path: Path, prepare: Callable[[Path], None]) -> None:
    """Status 1 and a sentence with the path, and nothing is written elsewhere."""
    base = tmp_path / "base"
    prepare(base)
    reason = refusal(base)
    assert os.path.realpath(base) in reason
    elsewhere = tmp_path / "elsewhere"
    assert not elsewhere.exists() or not any(elsewhere.iterdir())


def _without_override() -> None:
    """Let permissions bind root as well."""
    prctl_capbset_drop, cap_dac_override, cap_dac_read_search = 24, 1, 2
    for capability in (cap_dac_override, cap_dac_read_search):
        ctypes.CDLL(None).prctl(prctl_capbset_drop, capability, 0, 0, 0)


@pytest.mark.parametrize("there", [False, True], ids=["new base", "used base"])
def test_a_base_without_permission_is_named(tmp_path: Path, *, there: bool) -> None:
    """A folder that may be read only."""
    base = tmp_path / "folder" / "base"
    base.mkdir(parents=True)
    if there:
        RunningDaemon(base).start().stop()
    else:
        base.rmdir()
    folders = [base.parent, *(path for path in base.parent.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    done = subprocess.run(
        [sys.executable, "-m", "perstack_stored", "serve", "--base-path", str(base)],
        preexec_fn=_without_override, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    for folder in folders:
        folder.chmod(0o755)
    assert done.returncode == 78
    assert "Traceback" not in done.stderr
    failed = json.loads(done.stderr.splitlines()[-1])
    assert str(base) in failed["reason"]
    assert "Permission denied" in failed["reason"]


@pytest.mark.parametrize(
    ("flag", "value", "says"),
    [
        ("--frame-bytes-max", "5", "frame-bytes-max must be between"),
        ("--answer-bytes", str(2**40), "answer-bytes must be between"),
        ("--read-seconds", "0", "read-seconds must be between"),
        ("--read-seconds", "-1", "read-seconds must be between"),
        ("--read-seconds", "soon", "read-seconds"),
        ("--file-mode", "888", "file-mode"),
        ("--file-mode", "0", "file-mode must be between"),
        ("--log-level", "loud", "--log-level"),
        ("--bind", "udp://127.0.0.1:1", "udp://127.0.0.1:1"),
        ("--bind", "nonsense", "nonsense"),
        ("--bind", "ipc:///nowhere/at/all.sock", "ipc:///nowhere/at/all.sock"),
        ("--bind", "tcp://a:7171,tcp://b:7171", "give --bind once for each"),
    ],
)
def test_a_setting_that_is_wrong_is_named(tmp_path: Path, flag: str, value: str, says: str) -> None:
    """As a flag, and some of them as an environment variable too."""
    variable = "PERSTACK_STORED_" + flag.removeprefix("--").replace("-", "_").upper()
    if flag == "--bind":
        variable = "PERSTACK_STORED_ENDPOINT"
    ways: list[tuple[tuple[str, ...], dict[str, str]]] = [((flag, value), {})]
    if value in {"5", "soon", "888", "nonsense"}:
        ways.append(((), {variable: value}))
    for arguments, environment in ways:
        done = commands.run(
            "serve", "--base-path", str(tmp_path / "base"), *arguments, environment=environment
        )
        assert done.returncode in {78, 2}
        assert says in done.stderr
        assert "Traceback" not in done.stderr
