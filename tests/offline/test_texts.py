"""What the offline tools print of names and values that others chose is harmless on a terminal."""

import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import commands
from tests.hostile.texts import HOSTILE, acted_on
from tests.offline.bases import event, make_base

NAMES = [os.fsencode(text.replace("\ud83d", "").replace("/", "")) for text in HOSTILE.values()]


def printed(*arguments: str) -> str:
    """All that a command prints, on both streams; a byte that is no UTF-8 is half a character."""
    done = commands.run(*arguments)
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree in which others put files and folders with such names everywhere."""
    base = tmp_path / "base"
    make_base(base, [event("e1")])
    for folder in ("jobs", "jobs/j1", "jobs/j1/runs", "jobs/j1/runs/r1", ".stored/journal"):
        (base / folder).mkdir(parents=True, exist_ok=True)
        for name in NAMES:
            path = os.path.join(os.fsencode(base / folder), name)
            with open(path + b".json", "wb"):
                pass
            os.mkdir(path)
    return base


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_names_of_foreign_files_are_printed_harmlessly(
    tree: Path, tmp_path: Path, form: tuple[str, ...]
) -> None:
    """By check, audit, import, rebuild, backup and restore; as one line each."""
    base, odd = str(tree), os.fsdecode(os.path.join(os.fsencode(tmp_path), NAMES[0] + b"\nfake"))
    os.mkdir(odd)
    shutil.copytree(tree / ".stored", os.path.join(odd, ".stored"), ignore=shutil.ignore_patterns("*.sock"))
    for arguments in (
        ("check", "--base-path", base, *form),
        ("audit", base, *form),
        ("import", "--base-path", str(tmp_path / "taken"), base, *form),
        ("repair", "--dry-run", "--base-path", base, *form),
        ("check", "--base-path", odd, *form),
        ("backup", "--base-path", odd, odd + "-kept", *form),
        ("restore", "--base-path", odd + "-again", odd + "-kept", *form),
        ("restore", "--base-path", odd, odd + "-kept", *form),
        ("dump", "--base-path", odd + "-none"),
    ):
        text = printed(*arguments)
        assert text, arguments
        assert acted_on(text) == [], arguments
        assert "\nfake" not in text, arguments


def test_a_settings_file_can_t_add_lines_to_what_is_printed(tmp_path: Path) -> None:
    """Neither by its name nor by a value."""
    path = tmp_path / "a\nfake = 1\x1b[2J.toml"
    path.write_text('base-path = "/srv/\\u001b[2J\\nfake"\n')
    for arguments in (("config", "--config", str(path)), ("config", "--config", str(path), "--json")):
        text = printed(*arguments)
        assert acted_on(text) == []
        assert "\nfake" not in text


def test_a_dump_to_a_terminal_is_escaped_and_elsewhere_as_stored(tmp_path: Path) -> None:
    """The same values either way."""
    base = tmp_path / "base"
    texts = [text for text in HOSTILE.values() if "\ud83d" not in text]
    make_base(base, [event(f"e{number}", text=text) for number, text in enumerate(texts)])
    command = [sys.executable, "-m", "perstack_stored", "dump", "--base-path", str(base)]
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdout=theirs) as process:
        os.close(theirs)
        sent = b""
        try:
            while piece := os.read(ours, 65536):
                sent += piece
        except OSError:  # the other end is closed
            pass
        assert process.wait(timeout=120) == 0
    os.close(ours)
    assert acted_on(sent.decode().replace("\r\n", "\n")) == []
    assert sent.count(b"\n") == len(texts)
    stored = subprocess.run(command, capture_output=True, check=True).stdout.decode()
    assert "\u202e" in stored
