"""Writes the man pages of both commands, from their help alone. For `make man`.

python deploy/man.py FOLDER     writes FOLDER/perstack-stored.1 and FOLDER/perstack-storectl.1

click-man makes pages of click commands only, and one for each subcommand; one of the two commands is no click
command. The pages are mdoc(7), which groff and mandoc read. They are the same bytes for the same
SOURCE_DATE_EPOCH, or else for the same commit.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from inspect import cleandoc
from pathlib import Path
from typing import NamedTuple

import click

from perstack_storage import __version__
from perstack_storage._storectl.arguments import make_parser
from perstack_storage._storectl.completion import commands_of
from perstack_stored.cli.main import main as stored

_SPECIAL = re.compile(r"^([.'])", re.MULTILINE)
_SENTENCE = re.compile(r"(?<=[A-Za-z0-9)\]])[.] (?=[A-Z])")


class Item(NamedTuple):
    """An option or argument as it is typed, and what it does."""

    term: str
    text: str


class Part(NamedTuple):
    """A command: how it is typed, what it does, its options."""

    usage: str
    paragraphs: list[str]
    items: list[Item]


class Page(NamedTuple):
    """A man page. `common`: options of each command; `notes`: text whose lines stay as they are."""

    name: str
    brief: str
    paragraphs: list[str]
    common: list[Item]
    parts: list[Part]
    notes: str
    also: str


# --- what the commands say of themselves -------------------------------------------------------------


def storectl_page() -> Page:
    """The page of `perstack-storectl`."""
    parser = make_parser()
    commands = commands_of(parser)
    common = [_item(action) for action in parser._actions if action.option_strings]
    shared = {item.term for item in common}
    parts = []
    for name, command in commands.items():
        items = [_item(action) for action in command._actions]
        own = [item for item in items if item.term not in shared]
        words = " ".join(
            f"[{action.metavar}]" if action.nargs == "?" else str(action.metavar)
            for action in command._actions
            if not action.option_strings
        )
        options = "[OPTIONS]" if any(item.term.startswith("-") for item in own) else ""
        usage = " ".join(filter(None, (name, options, words)))
        parts.append(Part(usage, [command.description or ""], own))
    description = parser.description or ""
    brief = "look at what perstack-stored has stored"
    return Page(parser.prog, brief, [description], common, parts, parser.epilog or "", "perstack-stored")


def _item(action: argparse.Action) -> Item:
    metavar = str(action.metavar or action.dest.upper())
    if not action.option_strings:
        return Item(metavar, action.help or "")
    value = f" {metavar}" if action.nargs != 0 else ""
    return Item(", ".join(f"{name}{value}" for name in action.option_strings), action.help or "")


def stored_page() -> Page:
    """The page of `perstack-stored`."""
    name = "perstack-stored"
    context = click.Context(stored, info_name=name, max_content_width=110)
    parts = []
    for command_name in stored.list_commands(context):
        command = stored.get_command(context, command_name)
        assert command is not None
        inner = click.Context(command, info_name=command_name, parent=context)
        usage = " ".join([command_name, *command.collect_usage_pieces(inner)])
        records = [parameter.get_help_record(inner) for parameter in command.get_params(inner)]
        parts.append(Part(usage, _paragraphs(command.help), [Item(*found) for found in records if found]))
    records = [parameter.get_help_record(context) for parameter in stored.get_params(context)]
    common = [Item(*found) for found in records if found]
    brief = "the storage daemon for Perstack agents"
    return Page(name, brief, _paragraphs(stored.help), common, parts, "", "perstack-storectl")


def _paragraphs(text: str | None) -> list[str]:
    return [" ".join(paragraph.split()) for paragraph in cleandoc(text or "").split("\n\n")]


# --- mdoc --------------------------------------------------------------------------------------------


def mdoc(page: Page, day: datetime) -> str:
    """The text of a page in the language mdoc."""
    return "\n".join(_lines(page, day)) + "\n"


def _lines(page: Page, day: datetime) -> Iterator[str]:
    yield f".Dd {day:%B} {day.day}, {day.year}"
    yield f".Dt {page.name.upper()} 1"
    yield f'.Os "perstack-stored {__version__}"'
    yield from (".Sh NAME", f".Nm {page.name}", f".Nd {page.brief}")
    yield from (".Sh SYNOPSIS", f".Nm {page.name}", ".Op Ar OPTIONS", ".Ar COMMAND", ".Op Ar ARGUMENTS")
    yield ".Sh DESCRIPTION"
    yield from _flowing(page.paragraphs)
    yield from (".Pp", "The options of the program:")
    yield from _listed(page.common)
    yield ".Sh COMMANDS"
    for part in page.parts:
        yield f".Ss {_text(part.usage)}"
        yield from _flowing(part.paragraphs)
        yield from _listed(part.items)
    if page.notes:
        yield from (".Sh NOTES", ".Bd -literal -compact", *map(_text, page.notes.strip().split("\n")), ".Ed")
    yield from (".Sh SEE ALSO", f".Xr {page.also} 1")


def _flowing(paragraphs: list[str]) -> Iterator[str]:
    for number, paragraph in enumerate(filter(None, paragraphs)):
        if number:
            yield ".Pp"
        # mdoc wants a sentence to begin a line.
        yield from _text(_SENTENCE.sub(".\n", paragraph)).split("\n")


def _listed(items: list[Item]) -> Iterator[str]:
    if not items:
        return
    yield ".Bl -tag -width 12n -compact"
    for term, text in items:
        yield f".It {_text(term)}"
        yield from _flowing([" ".join(text.split())])
    yield ".El"


def _text(text: str) -> str:
    """Text in which no character is a request, and a minus is one that can be pasted."""
    plain = text.replace("\\", "\\e").replace("-", "\\-").replace("%%", "%")
    return _SPECIAL.sub(r"\\&\1", plain)


def _day() -> datetime:
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if not epoch and shutil.which("git"):
        command = ["git", "-C", str(Path(__file__).parent), "log", "-1", "--format=%ct"]
        asked = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - asks git
        epoch = asked.stdout.strip()
    return datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)


def main(folder: Path) -> None:
    """Write both pages into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for page in (stored_page(), storectl_page()):
        path = folder / f"{page.name}.1"
        path.write_text(mdoc(page, _day()), encoding="utf-8")
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
