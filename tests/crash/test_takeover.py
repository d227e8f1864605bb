"""Two processes that resume one job. `make soak` plays ten thousand rounds."""

from pathlib import Path

import pytest

from tests.crash.takeover import take_over


@pytest.mark.timeout(300)
def test_exactly_one_of_two_processes_goes_on_over_kills(tmp_path: Path) -> None:
    """Of each round one event is there, once, whichever process is killed meanwhile."""
    figures = take_over(60, 3, tmp_path)
    assert figures["rounds"] == 60
    assert figures["killedDaemons"] > 0
    assert figures["killedAgents"] > 0
