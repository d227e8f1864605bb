"""An empty base."""

from pathlib import Path

import pytest

from tests.helpers.datadir import Base


@pytest.fixture
def base(tmp_path: Path) -> Base:
    return Base(tmp_path / "base")
