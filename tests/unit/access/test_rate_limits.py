"""Token buckets: what a client may store in a second, and how long it must wait."""

import pytest

from perstack_storage._core.errors import ErrorCode
from perstack_stored.access import rate_limits as rates
from perstack_stored.access.rate_limits import RateLimiter
from perstack_stored.errors import Refusal


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(rates, "time", made)
    return made


def wait_ms(limits: RateLimiter, client: str, records: int, size: int = 0) -> int:
    """0 if the store may go."""
    refusal = None
    try:
        limits.charge(client, records, size)
    except Refusal as caught:
        refusal = caught
    if refusal is None:
        return 0
    assert refusal.code is ErrorCode.BUSY
    error = refusal.as_dict()
    assert error["retryable"] is True
    wait = error["retryAfterMs"]
    assert isinstance(wait, int)
    return wait


def test_a_second_s_worth_goes_at_once_and_then_the_rate(clock: Clock) -> None:
    """A client that waits as long as the answer says finds room."""
    limits = RateLimiter(10, 0)
    assert [wait_ms(limits, "a", 1) for _ in range(10)] == [0] * 10
    wait = wait_ms(limits, "a", 1)
    assert wait == 100
    clock.now += wait / 1000
    assert wait_ms(limits, "a", 1) == 0
    assert wait_ms(limits, "a", 5) == 500


def test_clients_don_t_share_a_bucket(clock: Clock) -> None:
    limits = RateLimiter(10, 0)
    assert wait_ms(limits, "a", 10) == 0
    assert wait_ms(limits, "a", 1) > 0
    assert wait_ms(limits, "b", 10) == 0


def test_bytes_and_records_are_both_bounds(clock: Clock) -> None:
    """The longer wait counts."""
    limits = RateLimiter(10, 1000)
    assert wait_ms(limits, "a", 1, 1000) == 0
    assert wait_ms(limits, "a", 1, 500) == 500
    clock.now += 0.5
    assert wait_ms(limits, "a", 1, 500) == 0


def test_a_store_of_more_than_a_second_s_worth_goes_and_is_paid_for(clock: Clock) -> None:
    """Otherwise it never would."""
    limits = RateLimiter(0, 1000)
    assert wait_ms(limits, "a", 1, 5000) == 0
    assert wait_ms(limits, "a", 1, 1) == pytest.approx(4001, abs=1)
    clock.now += 4.9
    assert wait_ms(limits, "a", 1, 5000) == pytest.approx(100, abs=1)
    clock.now += 0.2
    assert wait_ms(limits, "a", 1, 5000) == 0


def test_a_refused_store_costs_nothing(clock: Clock) -> None:
    limits = RateLimiter(10, 0)
    wait_ms(limits, "a", 10)
    for _ in range(100):
        assert wait_ms(limits, "a", 1) == 100


def test_new_rates_start_afresh_and_none_is_no_limit(clock: Clock) -> None:
    limits = RateLimiter(1, 0)
    assert bool(limits.active)
    wait_ms(limits, "a", 1)
    limits.apply_settings(2, 0)
    assert wait_ms(limits, "a", 2) == 0
    limits.apply_settings(0, 0)
    assert limits.active is False
    assert [wait_ms(limits, "a", 1000, 10**9) for _ in range(3)] == [0, 0, 0]


def test_buckets_that_are_full_again_are_forgotten(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many clients there have been, and nobody gets more by it."""
    monkeypatch.setattr(rates, "_BUCKETS_MAX", 10)
    limits = RateLimiter(10, 0)
    wait_ms(limits, "busy", 10)
    for n in range(30):
        clock.now += 0.01
        assert wait_ms(limits, f"c{n}", 1) == 0
    clock.now += 0.1
    assert wait_ms(limits, "new", 1) == 0
    assert len(limits._buckets) <= 32
    clock.now += 5
    for n in range(11):
        wait_ms(limits, f"d{n}", 10)
    assert len(limits._buckets) <= 12
