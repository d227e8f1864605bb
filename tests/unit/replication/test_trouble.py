"""Failures that come again and again: each reason is logged at once, then ever more seldom, with a count."""

from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from perstack_stored.replication.trouble import LAST_PAUSE_SECONDS, SHOWN_SECONDS, Trouble


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def logged() -> Iterator[list[EventDict]]:
    with capture_logs() as found:
        yield found


def test_an_hour_of_four_failures_a_second_is_some_dozens_of_lines(
    clock: Clock, logged: list[EventDict]
) -> None:
    trouble = Trouble(clock)
    count = 3600 * 4
    for _ in range(count):
        trouble.note("stream_error", "Connection refused")
        clock.now += 0.25
    assert len(logged) < 3600 / LAST_PAUSE_SECONDS + 10
    assert [line["times"] for line in logged[:4]] == [1, 4, 8, 16]
    assert {line["reason"] for line in logged} == {"Connection refused"}
    assert count - 4 * LAST_PAUSE_SECONDS <= sum(line["times"] for line in logged) <= count


def test_another_reason_is_logged_at_once_and_all_are_shown(clock: Clock, logged: list[EventDict]) -> None:
    trouble = Trouble(clock)
    for reason in ("refused", "refused", "certificate", "refused", "certificate"):
        trouble.note("stream_error", reason)
    assert [line["reason"] for line in logged] == ["refused", "certificate"]
    assert trouble.text == "refused; certificate"
    clock.now += SHOWN_SECONDS - 1
    trouble.note("stream_error", "certificate")
    clock.now += 2
    trouble.note("stream_error", "certificate")
    assert trouble.text == "certificate"
    clock.now += SHOWN_SECONDS
    assert trouble.text == ""


def test_after_a_success_the_next_failure_is_logged_at_once(clock: Clock, logged: list[EventDict]) -> None:
    trouble = Trouble(clock)
    assert not trouble.end()
    trouble.note("stream_error", "refused")
    trouble.note("stream_error", "refused")
    assert trouble.end()
    assert trouble.text == ""
    trouble.note("stream_error", "refused")
    assert [line["times"] for line in logged] == [1, 1]


def test_words_of_servers_fill_no_memory(clock: Clock, logged: list[EventDict]) -> None:
    trouble = Trouble(clock)
    for number in range(1000):
        trouble.note("stream_error", f"reason {number}")
    assert len(logged) == 1000
    assert trouble.text.count(";") < 20
    assert trouble.text.endswith("reason 999")
