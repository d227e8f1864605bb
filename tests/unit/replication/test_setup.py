"""What a daemon refuses to join, and what it waits for."""

import pytest

from perstack_stored.errors import ConfigError, StartFailedError
from perstack_stored.journal.log_place import LogPlace
from perstack_stored.replication import setup
from perstack_stored.replication.setup import Replication
from perstack_stored.replication.stream import Description, Stream

STREAM = Description(b"s" * 16, b"l" * 16, 3, 1, 10, 1 << 20, 10, 10, 60)


def replication(*later: Description | Exception) -> Replication:
    """A stream that ends at message 10, and what it is described as later, in turn."""
    answers = iter(later)

    def describe() -> Description:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def never(_after: int, _notify: object) -> Stream:
        raise AssertionError

    return Replication(STREAM, describe, never)


def applied(sequence: int) -> LogPlace:
    """The place of a daemon that has applied the messages up to this one."""
    return LogPlace(b"l" * 16, sequence)


def test_a_server_that_lags_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was cut off answered for the stream with what it had."""
    monkeypatch.setattr(setup, "_PAUSE_SECONDS", 0.0)
    found = replication(STREAM, StartFailedError("no leader"), STREAM._replace(last=12))
    found.refuse_lost(applied(12), lambda: None)


def test_a_stream_that_ends_before_what_is_applied_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "_BEHIND_SECONDS", 0.0)
    with pytest.raises(ConfigError, match="the stream ends at 10"):
        replication().refuse_lost(applied(12), lambda: None)


def test_a_stream_that_no_longer_has_what_comes_next_is_refused() -> None:
    found = replication()._replace(description=STREAM._replace(first=5))
    found.refuse_lost(applied(4), lambda: None)
    with pytest.raises(ConfigError, match="the stream begins at 5"):
        found.refuse_lost(applied(3), lambda: None)
