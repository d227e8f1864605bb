"""`make man`: the pages name every command and option, and both readers of man pages take them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from perstack_storage._storectl.arguments import make_parser
from perstack_storage._storectl.completion import commands_of
from perstack_stored.cli.main import main as stored
from tests.docs.pages import ROOT
from tests.systemd.debian import need

PAGES = ("perstack-stored.1", "perstack-storectl.1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with both pages."""
    made = tmp_path_factory.mktemp("pages") / "man"
    _make(made)
    return made


def _make(folder: Path) -> None:
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1795406152"}
    command = [sys.executable, str(ROOT / "deploy/man.py"), str(folder)]
    subprocess.run(command, check=True, capture_output=True, env=environment)


def shown(page: Path) -> str:
    """A page as a reader sees it, on wide paper."""
    need(shutil.which("mandoc") is not None, "install mandoc")
    command = ["mandoc", "-Tutf8", "-Owidth=400", str(page)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    while "\b" in text:  # bold and underlined characters are printed over each other
        at = text.index("\b")
        text = text[: at - 1] + text[at + 1 :] if at else text[1:]
    return text


def test_every_command_and_option_is_there(folder: Path) -> None:
    text = shown(folder / PAGES[1])
    for name, command in commands_of(make_parser()).items():
        assert f"   {name}" in text
        for action in command._actions:
            assert all(option in text for option in action.option_strings)
    assert "3  no daemon answered" in text
    text = shown(folder / PAGES[0])
    for name in stored.list_commands(click.Context(stored)):
        found = stored.get_command(click.Context(stored), name)
        assert found is not None
        assert f"   {name}" in text
        assert all(option in text for parameter in found.params for option in parameter.opts if "-" in option)


@pytest.mark.parametrize("page", PAGES)
def test_no_reader_warns(folder: Path, page: str) -> None:
    need(shutil.which("mandoc") is not None, "install mandoc")
    command = ["mandoc", "-Tlint", "-Wwarning", page]
    ran = subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder)
    assert (ran.stdout, ran.stderr) == ("", "")


def test_the_same_commit_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    _make(tmp_path)
    for page in PAGES:
        assert (tmp_path / page).read_bytes() == (folder / page).read_bytes()
