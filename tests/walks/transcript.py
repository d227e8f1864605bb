"""A walk: what a newcomer types into terminals, and what they see, as a Markdown page.

- A block ```` ```console [TERMINAL] ```` is typed into the terminal of that name (default: "main"). `$ `
  begins a command, `> ` goes on with it, `^C` interrupts the one that runs. The lines after it are shown.
- A command whose terminal is given `^C` next is not waited for: it goes on once its output is there.
- `[status N]` as the last line: the command ends with that status, not with 0.
- `{name}` stands for any text within a line. `{NAME}` is kept: where it comes again, it is the same text.
  A line `...` stands for any lines. `{CHECKOUT}` is the folder of the repository, `{HOME}` the newcomer's.
- A block ```` ```LANGUAGE FILE ```` is a file that they save in the current folder of the main terminal.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

MAIN = "main"
INTERRUPT = "^C"
_FENCE = re.compile(r"^```(\S+)(?: (\S+))?$")
_STATUS = re.compile(r"^\[status (\d+)\]$")
_PLACEHOLDER = re.compile(r"\{([a-z]+|[A-Z]+)\}")


@dataclass
class Typed:
    """A command, or `^C`, in a terminal. `stays`: it runs until it is interrupted."""

    terminal: str
    command: str
    output: list[str] = field(default_factory=list)
    status: int = 0
    stays: bool = False


@dataclass
class Saved:
    """A file that the newcomer writes."""

    name: str
    text: str


def read_walk(path: Path) -> list[Typed | Saved]:
    """The steps of a walk, in order."""
    steps: list[Typed | Saved] = []
    block: list[str] | None = None
    language = word = ""
    for line in path.read_text().splitlines():
        if block is None:
            match = _FENCE.match(line)
            if match:
                language, word, block = match[1], match[2] or "", []
            assert match or not line.startswith("```"), f"{path}: {line}"
        elif line == "```":
            if language == "console":
                steps += _typed(block, word or MAIN)
            else:
                assert word, f"{path}: a block of {language} needs a file's name"
                steps.append(Saved(word, "\n".join(block) + "\n"))
            block = None
        else:
            block.append(line)
    _mark_those_that_stay(steps)
    return steps


def _typed(block: list[str], terminal: str) -> list[Typed | Saved]:
    steps: list[Typed] = []
    for line in block:
        match = _STATUS.match(line)
        if line.startswith("$ ") or line == INTERRUPT:
            steps.append(Typed(terminal, line.removeprefix("$ ")))
        elif line.startswith("> ") and not steps[-1].output:
            steps[-1].command += f"\n{line[2:]}"
        elif match:
            steps[-1].status = int(match[1])
        else:
            steps[-1].output.append(line)
    return list(steps)


def _mark_those_that_stay(steps: list[Typed | Saved]) -> None:
    latest: dict[str, Typed] = {}
    for step in steps:
        if isinstance(step, Typed):
            if step.command == INTERRUPT:
                latest[step.terminal].stays = True
            latest[step.terminal] = step


def commands(steps: list[Typed | Saved]) -> list[str]:
    """All that is typed."""
    return [step.command for step in steps if isinstance(step, Typed) and step.command != INTERRUPT]


def filled(text: str, kept: dict[str, str]) -> str:
    """Text in which each `{NAME}` is what was kept of it."""
    return _PLACEHOLDER.sub(lambda match: kept.get(match[1], match[0]), text)


def is_shown(expected: list[str], shown: list[str], kept: dict[str, str]) -> bool:
    """Whether these are the lines expected; what `{NAME}` stands for comes into `kept`."""
    pattern, new = "", set()
    for line in expected:
        if line == "...":
            pattern += r"(?:.*\n)*?"
            continue
        last = 0
        for match in _PLACEHOLDER.finditer(line):
            pattern += re.escape(line[last : match.start()])
            name, last = match[1], match.end()
            if name in kept:
                pattern += re.escape(kept[name])
            elif name in new:
                pattern += f"(?P={name})"
            elif name.isupper():
                pattern += rf"(?P<{name}>\S+?)"
                new.add(name)
            else:
                pattern += ".+?"
        pattern += re.escape(line[last:]) + r"\n"
    found = re.fullmatch(pattern, "".join(f"{line.rstrip()}\n" for line in shown))
    if found:
        kept.update(found.groupdict())
    return found is not None
