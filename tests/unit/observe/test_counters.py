"""What is counted on the way of a request, and what health checks make of it."""

import time

from perstack_stored.observe.counters import (
    ArrivalTimes,
    Histogram,
    LoopCounters,
    PositionHistory,
    RequestCounter,
)
from perstack_stored.observe.health import STUCK_SECONDS, Health


def test_a_histogram_counts_up_to_and_with_each_bound() -> None:
    histogram = Histogram((1, 2))
    for value in (0.5, 1, 1.5, 2, 3):
        histogram.add(value)
    histogram.add(9, 10)
    assert histogram.counts == [2, 2, 11]
    assert histogram.total == 98


def test_a_tally_counts_by_operation_and_outcome() -> None:
    tally = RequestCounter()
    tally.note("ping")
    tally.note("ping")
    tally.note("ping", "BUSY")
    assert tally.outcomes == {("ping", "ok"): 2, ("ping", "BUSY"): 1}


def test_arrivals_are_taken_in_order_and_in_pieces() -> None:
    arrivals = ArrivalTimes()
    arrivals.came(1.0, 3)
    arrivals.came(2.0, 2)
    assert arrivals.take(1) == [(1.0, 1)]
    assert arrivals.take(3) == [(1.0, 2), (2.0, 1)]
    assert arrivals.take(1) == [(2.0, 1)]
    assert arrivals.take(0) == []


def test_a_lag_is_the_age_of_the_oldest_record_that_is_missed() -> None:
    course = PositionHistory()
    course.note(10.0, 5, 0)
    course.note(11.0, 8, 0)
    course.note(11.05, 9, 0)  # too soon for a sample of its own
    course.note(12.0, 9, 0)
    assert course.lag_seconds(20.0, 0) == 10.0
    assert course.lag_seconds(20.0, 5) == 9.0
    assert course.lag_seconds(20.0, 8) == 8.0
    assert course.lag_seconds(20.0, 9) == 0.0


def test_what_nobody_misses_is_forgotten() -> None:
    """So a lag that ends leaves nothing behind, and the next one is counted from its own start."""
    course = PositionHistory()
    course.note(10.0, 5, 0)
    course.note(11.0, 5, 5)
    assert course.lag_seconds(50.0, 0) == 0.0
    course.note(60.0, 6, 5)
    assert course.lag_seconds(61.0, 5) == 1.0


def test_a_lag_of_days_is_still_reported_within_a_bound() -> None:
    course = PositionHistory()
    for second in range(100_000):
        course.note(float(second), second + 1, 0)
    assert course.lag_seconds(100_000.0, 0) > 99_990


def test_health_distinguishes_a_hanging_loop_from_a_starting_one() -> None:
    """Before it serves it is not ready, but must not be restarted either."""
    loop = LoopCounters(seen=time.monotonic())
    fault = [""]
    health = Health(loop, lambda: fault[0])
    assert (health.stuck(), health.unready()) == ("", "not serving")
    health.serving = True
    assert (health.stuck(), health.unready()) == ("", "")
    fault[0] = "the journal is damaged"
    assert (health.stuck(), health.unready()) == ("", "index: the journal is damaged")
    fault[0], loop.tree_is_whole = "", False
    assert (health.stuck(), health.unready()) == ("", "the tree is written again after an unclean stop")
    loop.seen -= STUCK_SECONDS + 1
    assert "not seen for" in health.stuck()
    assert "not seen for" in health.unready()
