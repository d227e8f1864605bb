"""Which package may import which: `make check` runs this, and prints each import that breaks the rule.

    python -m tests.layers

The rule is read from the source, so a package that is not named here, and an import within a function, count
as well.
"""

import ast
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
SOURCES = {"perstack_stored": ROOT / "daemon", "perstack_storage": ROOT / "client" / "python"}

# A package imports from those in rows below its own only; those in one row don't know each other.
LAYERS: tuple[frozenset[str], ...] = tuple(
    frozenset(row.split())
    for row in (
        "__main__",
        "cli",
        "launcher server offline",
        "startup",
        "tree_import",
        "projection keeper mirror replication",
        "transport store read",
        "tree",
        "index",
        "journal",
        "access",
        "protocol",
        "observe datadir config process",
        "model",
        "errors progress",
    )
)
# The rooms of the client. What is in no room (`__init__`, `protocol`, ...) may import each of them.
CLIENT_LAYERS: tuple[frozenset[str], ...] = tuple(
    frozenset(row.split())
    for row in ("_storectl", "_inspect _otlp", "_views _functions", "_sync _async", "_wire", "_core")
)
CLIENT_PURE_FORBIDS = frozenset({"asyncio", "select", "socket", "subprocess", "threading", "zmq"})
# These compute only.
PURE = frozenset({"model", "protocol"})
IO_MODULES = frozenset({"asyncio", "os", "select", "socket", "sqlite3", "subprocess", "threading", "zmq"})
# Of the client the daemon uses what is public.
CLIENT_MODULES = frozenset({"perstack_storage", "perstack_storage.protocol", "perstack_storage._version"})


class Import(NamedTuple):
    """An import statement: where it stands, and the module, or the name in a module, that it asks for."""

    module: str
    line: int
    name: str


def imports_of(module: str, source: str, *, is_package: bool) -> Iterator[Import]:
    """Find the imports of a module, with relative ones made absolute."""
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                parents = parents[: len(parents) - node.level + 1]
                base = ".".join([*parents, *([node.module] if node.module else [])])
            for alias in node.names:
                yield Import(module, node.lineno, f"{base}.{alias.name}")


def violations(imports: Iterable[Import], modules: frozenset[str]) -> Iterator[str]:
    """Say what is wrong with imports.

    Args:
        imports: those of both packages.
        modules: every module there is; what is imported from one is a name in it.
    """
    rows, client_rows = (
        {package: row for row, packages in enumerate(layers) for package in packages}
        for layers in (LAYERS, CLIENT_LAYERS)
    )
    for found in imports:
        target = found.name if found.name in modules else found.name.rpartition(".")[0]
        if found.module.partition(".")[0] == "perstack_storage":
            wrong = _wrong_in_client(found.module, target, found.name, client_rows)
        else:
            wrong = _wrong(found.module, target, found.name, rows)
        if wrong:
            yield f"{found.module}:{found.line}: {wrong}"


def _wrong_in_client(module: str, target: str, name: str, rows: dict[str, int]) -> str:
    if target.startswith("perstack_stored"):
        return f"the client imports {target}"
    room = _package_of(module)
    if room == "_core" and name.partition(".")[0] in CLIENT_PURE_FORBIDS:
        return f"{room} does no I/O, and imports {name.partition('.')[0]}"
    other = _package_of(target) if target.startswith("perstack_storage") else ""
    if room not in rows or other not in rows or other == room:
        return ""
    return "" if rows[other] > rows[room] else f"{room} imports {other}, which is not below it"


def _wrong(module: str, target: str, name: str, rows: dict[str, int]) -> str:
    package = _package_of(module)
    if package and package not in rows:
        return f"the package {package} has no layer"
    if package in PURE and name.partition(".")[0] in IO_MODULES:
        return f"{package} does no I/O, and imports {name.partition('.')[0]}"
    if target.startswith("perstack_storage") and target not in CLIENT_MODULES:
        return f"imports {target}, which is private to the client"
    other = _package_of(target) if target.startswith("perstack_stored") else ""
    if not package or not other or other == package:
        return ""
    if other not in rows:
        return f"the package {other} has no layer"
    return "" if rows[other] > rows[package] else f"{package} imports {other}, which is not below it"


def _package_of(module: str) -> str:
    """The package, or the module, directly below the daemon's root."""
    return module.split(".")[1] if "." in module else ""


def main() -> int:
    """Check the source. Returns the exit status."""
    imports: list[Import] = []
    modules: set[str] = set()
    for name, folder in SOURCES.items():
        for path in sorted((folder / name).rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            module = ".".join(parts[:-1] if is_package else parts)
            modules.add(module)
            imports += imports_of(module, path.read_text(encoding="utf-8"), is_package=is_package)
    found = list(violations(imports, frozenset(modules)))
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
