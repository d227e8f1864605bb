"""What the tests of the documentation share: the pages, and the parts of their Markdown."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FORMATS = "proto"  # the protocol and the formats on disk follow a style of their own
RESULTS = "tests/bench/results"  # figures as the benchmark prints them
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_SEPARATOR = re.compile(r"(?<!\\)\|")


def pages() -> list[str]:
    """Every Markdown file that is written by hand, relative to the top."""
    left_out = {".git", ".venv", "node_modules", ".pytest_cache", "build", "dist"}
    found = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in left_out]
        found += [os.path.relpath(os.path.join(folder, name), ROOT) for name in names if name.endswith(".md")]
    return sorted(found)


def text_lines(text: str) -> Iterator[tuple[int, str]]:
    """Number and text of each line outside of code blocks."""
    fenced, before = False, ""
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and not (
            line.startswith("    ") and (not before.strip() or before.startswith("    "))
        ):
            yield number, line
        before = line


def cells(line: str) -> list[str]:
    """Cells of a table's row; none of any other line."""
    if not line.startswith("|"):
        return []
    return [cell.strip() for cell in _SEPARATOR.split(line.strip())[1:-1]]


def links(text: str) -> list[str]:
    """Targets of the links outside of code blocks."""
    return _LINK.findall("\n".join(line for _, line in text_lines(text)))


def shown(text: str) -> str:
    """Text as it is read: a link is its words."""
    return re.sub(r"\[([^\]]*)\]\([^)\s]+\)", r"\1", text)
