"""`positionAt`: the last position that was stored by a time."""

from pathlib import Path

import pytest

from perstack_stored.model.kinds import Kind
from tests.helpers.datadir import Base, event


@pytest.fixture
def base(tmp_path: Path) -> Base:
    return Base(tmp_path / "base")


def test_it_is_the_end_of_the_last_entry_of_that_time(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """For each time before, at and between the entries, over several segments."""
    now = [1_700_000_000_000]
    monkeypatch.setattr(base.journal.clock, "now_ms", lambda: now[0])
    ends: dict[int, int] = {}
    position = 0
    for i in range(120):
        now[0] += i % 3 * 10  # some have the same time
        count = 1 + i % 4
        base.store(*((Kind.EVENT, event(id=f"e{i}-{j}", pad="x" * 900)) for j in range(count)))
        position += count
        ends[now[0]] = position
    assert len(base.folder.segments()) > 2
    for time_ms, end in ends.items():
        for asked in (time_ms, time_ms + 1, time_ms + 9.5):
            assert base.ask("positionAt", timeMs=asked) == ({"position": end, "time": time_ms}, {})
    first = min(ends)
    assert base.ask("positionAt", timeMs=first - 1)[0] == {"position": 0, "time": None}
    assert base.ask("positionAt", timeMs=2**60)[0]["position"] == position


def test_an_empty_base_has_none(base: Base) -> None:
    """Nothing was stored by any time."""
    assert base.ask("positionAt", timeMs=2**53)[0] == {"position": 0, "time": None}
