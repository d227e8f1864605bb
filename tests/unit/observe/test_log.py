"""The log has a bound: a client that can cause a line can cause any number of them."""

import logging
import time
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from perstack_stored.observe import log


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def _passes(
    sparing: log.ThrottledLog, event: str, method: str = "warning", **fields: Any
) -> dict[str, Any] | None:
    try:
        return dict(sparing(None, method, {"event": event, **fields}))
    except structlog.DropEvent:
        return None


def test_lines_of_one_kind_are_bounded_and_those_left_out_are_counted(clock: list[float]) -> None:
    """A few at once, then one in a while; other kinds are not concerned."""
    sparing = log.ThrottledLog()
    passed = [line for _ in range(1000) if (line := _passes(sparing, "cut", "error"))]
    assert len(passed) == log.BURST_LINES
    assert _passes(sparing, "other") == {"event": "other"}
    clock[0] += log.LINE_SECONDS
    assert _passes(sparing, "cut", more=3) == {"event": "cut", "more": 1000 - log.BURST_LINES + 3}
    assert _passes(sparing, "cut") is None
    hour = 0
    for _ in range(36_000):
        clock[0] += 0.1
        hour += _passes(sparing, "cut") is not None
    assert 350 <= hour <= 361


@pytest.mark.parametrize("method", ["info", "critical", "debug"])
def test_what_no_client_causes_is_not_bounded(method: str, clock: list[float]) -> None:
    """What the daemon does, and why it ends; files that an import leaves out are named, each."""
    assert clock
    sparing = log.ThrottledLog()
    assert all(_passes(sparing, "ready", method) for _ in range(100))
    assert all(_passes(sparing, "import_file_skipped") for _ in range(100))


def test_a_line_has_a_bound() -> None:
    """Of each of its texts the beginning stays."""
    line = log.shorten(
        None, "warning", {"event": "e", "reason": "x" * 10**6, "exception": "y" * 10**6, "n": 1}
    )
    assert len(str(line["reason"])) < log.TEXT_CHARS_MAX + 50
    assert len(str(line["exception"])) < log.TRACE_CHARS_MAX + 50
    assert (line["event"], line["n"]) == ("e", 1)
    assert str(line["reason"]).endswith("(1000000 characters)")


def test_lines_go_through_the_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    """As the daemon and its processes set their log up."""
    before = structlog.get_config()
    try:
        log.configure(json=True, level="warning")
        logger = structlog.get_logger()
        for _ in range(100):
            logger.warning("again", text="z" * 5000)
    finally:
        structlog.configure(**before)
        log.set_level(logging.getLevelName(logging.INFO).lower())
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) <= log.BURST_LINES + 1
    assert max(map(len, lines)) < 2000


def test_a_throttle_lets_one_line_of_each_key_through_and_counts_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(log, "time", SimpleNamespace(monotonic=lambda: now[0]))
    throttle = log.LogThrottle(keys_max=2)
    assert [throttle.admit("a"), throttle.admit("a"), throttle.admit("a"), throttle.admit("b")] == [
        0,
        None,
        None,
        0,
    ]
    now[0] += log.LINE_SECONDS
    assert throttle.admit("a") == 2
    for n in range(10):
        assert throttle.admit(f"c{n}") == 0
        assert len(throttle._logged) <= 2
