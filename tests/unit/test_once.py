"""What all processes of a run share is made once, and whole."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.helpers.once import made_once


def test_it_is_made_once_and_whole(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Those who come meanwhile wait; where it failed, the next one makes it."""
    name = tmp_path_factory.mktemp("once").name
    made = []

    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise ValueError

    def make(folder: Path) -> None:
        assert not list(folder.iterdir())
        (folder / "whole").touch()
        made.append(folder)

    with pytest.raises(ValueError):  # noqa: PT011 - the one above
        made_once(tmp_path_factory, name, fail)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: made_once(tmp_path_factory, name, make), range(8)))
    assert len(set(found)) == len(made) == 1
    assert [path.name for path in found[0].iterdir()] == ["whole"]
