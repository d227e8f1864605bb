"""Bases that tests copy and damage; made once, since a daemon is started for them."""

from pathlib import Path

import pytest

from tests.helpers.once import made_once
from tests.offline.bases import copy_base, make_base, make_base_of_segments, one_of_each
from tests.offline.inprocess import Items, Started


@pytest.fixture(scope="session")
def _stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = made_once(tmp_path_factory, "one", lambda folder: make_base(folder / "base", one_of_each()))
    return copy_base(made / "base", tmp_path_factory.mktemp("one") / "base")


@pytest.fixture(scope="session")
def _stored_in_segments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = made_once(tmp_path_factory, "four", lambda folder: make_base_of_segments(folder / "base"))
    return copy_base(made / "base", tmp_path_factory.mktemp("four") / "base")


@pytest.fixture
def base(_stored: Path, tmp_path: Path) -> Path:
    """A stopped base with something of each kind, in one segment."""
    return copy_base(_stored, tmp_path / "base")


@pytest.fixture
def base_of_segments(_stored_in_segments: Path, tmp_path: Path) -> Path:
    """The same in four segments."""
    return copy_base(_stored_in_segments, tmp_path / "base")


@pytest.fixture(scope="module")
def expected(_stored_in_segments: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Items]:
    """The answers of the base that was not damaged."""
    return Started(copy_base(_stored_in_segments, tmp_path_factory.mktemp("whole") / "base")).answers


@pytest.fixture(scope="session")
def original(_stored_in_segments: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four segments, 20 records of each kind, several jobs; never changed."""
    return copy_base(_stored_in_segments, tmp_path_factory.mktemp("original") / "base")
