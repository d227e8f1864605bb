"""The map in ARCHITECTURE.md shows the packages in their layers, and files that exist."""

import re

from tests.docs.pages import ROOT, cells
from tests.layers import LAYERS

PAGE = ROOT / "daemon/ARCHITECTURE.md"
SOURCE = ROOT / "daemon/perstack_stored"
FILE = re.compile(r"`([\w/]+\.py)`")


def _rows() -> list[list[str]]:
    section = PAGE.read_text().partition("## Packages")[2].partition("\n## ")[0]
    return [row for line in section.splitlines() if (row := cells(line)) and len(row) == 4][2:]


def test_the_map_has_the_layers_that_are_enforced() -> None:
    """Each package stands in the row that `tests/layers.py` gives it."""
    drawn = {row[1].strip("`").removesuffix(".py"): int(row[0]) for row in _rows() if row[0]}
    enforced = {package: row for row, layer in enumerate(LAYERS) for package in layer}
    assert drawn == {package: row for package, row in enforced.items() if package != "__main__"}


def test_the_map_names_files_that_exist() -> None:
    """Each by its whole path, and in the row of its package."""
    package = ""
    for row in _rows():
        package = row[1].strip("`") or package
        for name in FILE.findall(row[3]):
            assert name.startswith(f"{package}/"), f"{name} in the row of {package}"
    for name in FILE.findall(PAGE.read_text()):
        assert (SOURCE / name).exists() or (ROOT / name).exists(), name
