"""The operators' list of pools names every bound that is a setting."""

from pathlib import Path

import pytest

from perstack_stored.config.settings import ITEMS, key_of

PAGE = Path(__file__).parents[2] / "daemon/docs/pools.md"
BOUNDS = sorted(key_of(item) for name, item in ITEMS.items() if name.endswith("_max"))
POOLS = {pool.partition("\n")[0]: pool.partition("\n## ")[0] for pool in PAGE.read_text().split("\n### ")[1:]}


@pytest.mark.parametrize("key", BOUNDS)
def test_every_bound_is_in_the_list_of_pools(key: str) -> None:
    """A new pool says how much of it one client may have, and what happens beyond that."""
    assert any(f"`{key}`" in pool for pool in POOLS.values()), f"no pool has the bound {key}"


@pytest.mark.parametrize("name", POOLS)
def test_a_pool_says_all_that_an_operator_asks(name: str) -> None:
    """Bound, share of a client, what happens beyond it, and when it is freed."""
    labels = [line.split("**")[1] for line in POOLS[name].splitlines() if line.startswith("- **")]
    assert labels == ["Bound:", "Share:", "When full:", "Freed:"]
