"""A daemon's stores on an empty journal."""

from pathlib import Path

import pytest

from tests.helpers.datadir import JournalFolder
from tests.unit.store.committing import Daemon


@pytest.fixture
def daemon(tmp_path: Path) -> Daemon:
    return Daemon(JournalFolder(tmp_path / "journal"))
