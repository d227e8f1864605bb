"""Fixtures of the tests of values."""

from typing import Any

import pytest

from tests.helpers.values import SLOW


@pytest.fixture(params=["fast", "slow"])
def extra(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Nothing, or a field that only the second opinion takes: both must say the same."""
    return SLOW if request.param == "slow" else {}
