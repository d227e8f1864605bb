"""What fits at the cursor of a shell: commands, options, choices, and ids, which the daemon is asked for."""

import argparse
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from perstack_storage import Client, StorageError
from perstack_storage._storectl import ids, runs
from perstack_storage._storectl.call import Missing
from perstack_storage._storectl.completion import commands_of, options_of

HIDDEN = "__complete"
"""The command that the scripts call: with the shell's name, and the words up to the cursor."""
_TIMEOUT_S = 1.0
_IDS_MAX = 500
_PLAIN = re.compile(r"[A-Za-z0-9@%+=:,./_-]+")
"""Ids that no shell takes for anything else. Others are not offered."""
_KIND_OF_DEST = {
    "job_id": "job",
    "job": "job",
    "run_id": "run",
    "run": "run",
    "checkpoint_id": "checkpoint",
    "old_checkpoint": "checkpoint",
    "new_checkpoint": "checkpoint",
}


def offered(parser: argparse.ArgumentParser, words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The words that may stand in the place of the last one, each with what it means."""
    *before, current = words or [""]
    line = _Line(parser, before)
    for word, text in line.fitting(current):
        if word.startswith(current):
            yield word, text


def print_offered(
    parser: argparse.ArgumentParser, arguments: Sequence[str], say: Callable[[str], object]
) -> None:
    """Print what fits, a word a line; for fish with its meaning. Without a daemon no ids are offered."""
    shell, *words = arguments or [""]
    for word, text in offered(parser, words):
        say(f"{word}\t{text}\n" if shell == "fish" and text else f"{word}\n")


class _Line:
    """The words before the cursor, taken apart as far as they are there."""

    def __init__(self, parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
        self._parser = parser
        self._commands = commands_of(parser)
        self._command: argparse.ArgumentParser | None = None
        self._values: dict[str, str] = {}
        self._count = 0  # of the command's words that are no options
        self._open: argparse.Action | None = None  # an option whose value comes next
        for word in words:
            self._take(word)

    def _take(self, word: str) -> None:
        if self._open is not None:
            self._values[self._open.dest] = word
            self._open = None
        elif word.startswith("-") and len(word) > 1:
            name, equals, value = word.partition("=")
            option = self._option(name)
            if option is not None and option.nargs != 0:
                if equals:
                    self._values[option.dest] = value
                else:
                    self._open = option
        elif self._command is None:
            self._command = self._commands.get(word)
            self._parser = self._command or self._parser
        else:
            action = self._positional()
            if action is not None:
                self._values[action.dest] = word
            self._count += 1

    def _option(self, name: str) -> argparse.Action | None:
        return next((a for a in self._parser._actions if name in a.option_strings), None)

    def _positional(self) -> argparse.Action | None:
        actions = [a for a in self._parser._actions if not a.option_strings]
        return actions[self._count] if self._command is not None and self._count < len(actions) else None

    def fitting(self, current: str) -> Iterator[tuple[str, str]]:
        """What may come next, not yet compared with what is there of it."""
        if self._open is not None:
            yield from self._of_action(self._open)
        elif current.startswith("-"):
            for action in self._parser._actions:
                for name in options_of(action):
                    yield name, _text(action)
        elif self._command is None:
            yield from self._command_names()
        else:
            expected = self._positional()
            if expected is not None:
                yield from self._of_action(expected)

    def _command_names(self) -> Iterator[tuple[str, str]]:
        for name, command in self._commands.items():
            yield name, (command.description or "").split(". ")[0].rstrip(".")

    def _of_action(self, action: argparse.Action) -> Iterator[tuple[str, str]]:
        if action.choices is not None:
            yield from ((str(choice), "") for choice in action.choices)
        elif action.dest in _KIND_OF_DEST:
            try:
                found = islice(self._ids(_KIND_OF_DEST[action.dest]), _IDS_MAX)
                yield from ((id, "") for id in found if _PLAIN.fullmatch(id))
            except (StorageError, Missing):
                return

    def _ids(self, kind: str) -> Iterable[str]:
        endpoint, base = self._values.get("endpoint"), self._values.get("base_path")
        with Client(endpoint, base_path=base, timeout_s=_TIMEOUT_S) as client:
            if kind == "job":
                yield from ids.job_ids(client)
                return
            job = ids.job_id(client, self._values.get("job_id", self._values.get("job")))
            yield from runs.run_ids(client, job) if kind == "run" else ids.checkpoint_ids(client, job)


def _text(action: argparse.Action) -> str:
    return action.help or ""
