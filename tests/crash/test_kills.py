"""SIGKILL under load. `make soak` does the same a thousand times."""

import random
from pathlib import Path

import pytest

from tests.crash.kills import kill_rounds
from tests.crash.rounds import Rounds


@pytest.mark.timeout(300)
@pytest.mark.long
def test_kills_in_the_middle_of_a_load_lose_and_double_nothing(tmp_path: Path) -> None:
    """Of the daemon or a worker, at random moments; raw clients and ours go on through all of them."""
    verdict = kill_rounds(tmp_path, Rounds(8, random.Random(20)))
    assert not verdict.kinds, str(verdict)
    assert verdict.acknowledged > 300
