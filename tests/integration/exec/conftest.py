"""A base that each test has to itself."""

from pathlib import Path

import pytest


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "perstack"
