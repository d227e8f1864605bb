"""The operators' table of pools names every bound that is a setting."""

from pathlib import Path

import pytest

from perstack_stored.config.settings import ITEMS, key_of

README = Path(__file__).parents[2] / "daemon" / "README.md"
BOUNDS = sorted(key_of(item) for name, item in ITEMS.items() if name.endswith("_max"))


@pytest.mark.parametrize("key", BOUNDS)
def test_every_bound_is_in_the_table_of_pools(key: str) -> None:
    """Whoever adds a pool says how much of it one client may have, and what happens beyond that."""
    table = README.read_text().partition("### Pools")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and f"`{key}`" in line]
    assert rows, f"no pool of the table has the bound {key}"
    assert all(row.count("|") == 6 for row in rows), "five cells each"
