"""A base and a tree to import; a base in which clients have stored the same values."""

from pathlib import Path

import pytest

from tests.helpers.datadir import event
from tests.helpers.once import made_once
from tests.import_tree.imported import OURS, put_stored
from tests.offline.bases import copy_base


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "base"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "source"


@pytest.fixture(scope="session")
def _ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    stored = (*OURS, ("storeEvent", event()))
    made = made_once(tmp_path_factory, "ours", lambda folder: put_stored(folder / "base", *stored))
    return made / "base"


@pytest.fixture
def ours(_ours: Path, base: Path) -> Path:
    """A base in which clients stored `OURS`."""
    return copy_base(_ours, base)
