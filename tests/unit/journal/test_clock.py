"""Ages are counted by time that passed: a clock that leaps makes nothing old at once."""

import pytest

from perstack_stored.journal import clock as journal_clock
from perstack_stored.journal.clock import JournalClock

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
START_MS = 1_800_000_000_000


class Time:
    """Stands in for the module `time`."""

    CLOCK_BOOTTIME = 7

    def __init__(self) -> None:
        self.ms = START_MS
        self.up_ms = 5000

    def time_ns(self) -> int:
        return self.ms * 1_000_000

    def clock_gettime(self, clock: int) -> float:
        assert clock == self.CLOCK_BOOTTIME
        return self.up_ms / 1000

    def pass_by(self, ms: int) -> None:
        """Let time pass."""
        self.ms += ms
        self.up_ms += ms


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(journal_clock, "time", time)
    return time


def aged(clock: JournalClock) -> int:
    return clock.aged_ms(clock.now_ms())


@pytest.mark.parametrize("is_there_at_the_start", [False, True])
def test_a_leap_forth_makes_nothing_old_for_a_day(time: Time, is_there_at_the_start: bool) -> None:
    """At the start the last record tells what time it was."""
    clock = JournalClock(START_MS)
    if not is_there_at_the_start:
        time.pass_by(HOUR_MS)
        assert aged(clock) == START_MS + HOUR_MS
    begun = time.ms
    time.ms += 3650 * DAY_MS
    assert aged(clock) == begun
    time.pass_by(23 * HOUR_MS)
    assert aged(clock) == begun + 23 * HOUR_MS
    time.pass_by(HOUR_MS)
    assert aged(clock) == begun + 3651 * DAY_MS


def test_a_leap_that_is_put_right_leaves_no_trace(time: Time) -> None:
    clock = JournalClock(START_MS)
    time.ms += 3650 * DAY_MS
    assert aged(clock) == START_MS
    time.pass_by(HOUR_MS)
    time.ms -= 3650 * DAY_MS
    assert aged(clock) == START_MS + HOUR_MS
    time.ms -= 40 * DAY_MS  # a step back counts at once: it makes nothing old
    assert aged(clock) == START_MS + HOUR_MS - 40 * DAY_MS


def test_time_that_passed_counts(time: Time) -> None:
    """However long nobody looked, and while the machine slept; so does a day that the daemon did not run."""
    clock = JournalClock(START_MS)
    time.pass_by(400 * DAY_MS)
    assert aged(clock) == START_MS + 400 * DAY_MS
    time.ms += DAY_MS
    assert aged(clock) == START_MS + 401 * DAY_MS
    assert aged(JournalClock(0)) == time.ms  # an empty journal
