"""Hostile frames: each is answered, what was acknowledged is there, and the daemon never notices."""

from pathlib import Path

import pytest

from tests.hostile.frames import Frames
from tests.hostile.fuzz import campaign

FRAMES = 700


@pytest.mark.parametrize("seed", [1, 2])
def test_hostile_frames_are_refused_and_harm_nobody(tmp_path: Path, seed: int) -> None:
    """Beside a client that behaves; the larger campaign is `python -m tests.hostile.fuzz`."""
    try:
        figures = campaign(tmp_path / "base", seed, FRAMES)
    except AssertionError as error:
        raise AssertionError(
            f"python -m tests.hostile.fuzz --frames {FRAMES} --seed {seed}: {error}"
        ) from error
    assert figures.answers["ok"] > FRAMES / 10
    assert len(figures.answers) > 8, figures


def test_the_same_seed_gives_the_same_frames() -> None:
    """Or a failure could not be looked at again."""
    first, second = Frames(5), Frames(5)
    assert [first.message() for _ in range(300)] == [second.message() for _ in range(300)]
