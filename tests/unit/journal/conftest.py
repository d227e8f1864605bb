"""An empty journal."""

from pathlib import Path

import pytest

from tests.helpers.datadir import JournalFolder


@pytest.fixture
def folder(tmp_path: Path) -> JournalFolder:
    return JournalFolder(tmp_path / "journal")
