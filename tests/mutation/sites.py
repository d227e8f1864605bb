"""Every place in the daemon that syncs, renames, links, locks or tests a checksum, found in its source.

Each of them is taken out in turn: a promise, or a test, must notice.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parents[2] / "daemon" / "perstack_stored"
SYNCS = frozenset({"sync_data", "sync", "sync_all", "sync_soon", "fdatasync", "fsync", "syncfs"})
NAMES = frozenset({"rename", "give_name", "exchange", "link", "renameat2", "atomic_replace"})
LOCKS = frozenset({"flock"})
CHECKSUMS = frozenset({"crc32c", "entry_matches"})


class Mutant(NamedTuple):
    """A daemon with one bug: a file by its path in the package, and the text that the file has then."""

    name: str
    file: str
    source: str


def sites() -> Iterator[Mutant]:
    """The daemon without one of its calls, for each of them."""
    for path in sorted(PACKAGE.rglob("*.py")):
        file = path.relative_to(PACKAGE).as_posix()
        source = path.read_text()
        counts: dict[str, int] = {}
        for node, function, kind, left in _found(ast.parse(source)):
            place = f"{file}: {function}: {kind}"
            counts[place] = counts.get(place, 0) + 1
            number = f" ({counts[place]})" if counts[place] > 1 else ""
            yield Mutant(f"{place}{number}", file, _without(source, node, left))


def _found(tree: ast.Module) -> Iterator[tuple[ast.expr, str, str, str]]:
    """A node, the function that holds it, what it is, and what is left in its place."""
    for outer in ast.walk(tree):
        if not isinstance(outer, ast.FunctionDef):
            continue
        for node in ast.walk(outer):
            name = _called(node)
            if isinstance(node, ast.Compare) and any(_called(part) == "crc32c" for part in ast.walk(node)):
                yield node, outer.name, "checksum", str(isinstance(node.ops[0], ast.Eq))
            elif not isinstance(node, ast.Call):
                continue
            elif name == "entry_matches":
                yield node, outer.name, "entry_matches", "True"
            elif name in SYNCS | NAMES | LOCKS:
                yield node, outer.name, name, "None"


def _called(node: ast.AST) -> str:
    """Name of the function that a node calls."""
    if not isinstance(node, ast.Call):
        return ""
    function = node.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _without(source: str, node: ast.expr, left: str) -> str:
    lines = source.splitlines(keepends=True)
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    start = sum(map(len, lines[: node.lineno - 1])) + _chars(lines[node.lineno - 1], node.col_offset)
    end = sum(map(len, lines[: node.end_lineno - 1])) + _chars(
        lines[node.end_lineno - 1], node.end_col_offset
    )
    return source[:start] + left + source[end:]


def _chars(line: str, column: int) -> int:
    """A column in characters: the tree counts bytes."""
    return len(line.encode()[:column].decode())
