"""The time of the journal and of the sweep, by hand."""

import pytest

from perstack_stored.tree import sweep
from tests.helpers.datadir import Base
from tests.unit.tree.old_jobs.sweeping import Clock


@pytest.fixture(autouse=True)
def clock(base: Base, monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(base.journal, "clock", clock)
    monkeypatch.setattr(sweep, "time", clock)
    return clock
