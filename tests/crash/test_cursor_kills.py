"""A named cursor through kills of the daemon and of the subscriber."""

import random
from pathlib import Path

from tests.crash.cursor_kills import run


def test_a_named_subscriber_misses_nothing_whatever_is_killed(tmp_path: Path) -> None:
    """Each wanted record is handled at least once, in order; what was committed does not come again."""
    outcome = run(tmp_path, 6, random.Random(5))
    assert outcome.handled >= outcome.wanted > 10
