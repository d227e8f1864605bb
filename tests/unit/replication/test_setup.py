"""What a daemon refuses to join, and what it waits for."""

import re
import sys
import tomllib
from pathlib import Path

import pytest

import perstack_stored.replication as replication_package
from perstack_stored.errors import ConfigError, StartFailedError
from perstack_stored.journal.log_place import LogPlace
from perstack_stored.replication import setup
from perstack_stored.replication.setup import Replication
from perstack_stored.replication.stream import Description, Stream
from tests.docs.pages import ROOT

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


def names_a_section(error: str) -> None:
    """It leads to a section that is there."""
    named = re.search(r'"([^"]+)" in (\S+\.md)', error)
    assert named
    assert f"\n## {named[1]}\n" in (ROOT / named[2]).read_text()


def test_a_server_that_lags_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was cut off answered for the stream with what it had."""
    monkeypatch.setattr(setup, "_PAUSE_SECONDS", 0.0)
    found = replication(STREAM, StartFailedError("no leader"), STREAM._replace(last=12))
    found.refuse_lost(applied(12), lambda: None)


def test_a_stream_that_ends_before_what_is_applied_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "_BEHIND_SECONDS", 0.0)
    with pytest.raises(ConfigError, match="the stream ends at 10") as caught:
        replication().refuse_lost(applied(12), lambda: None)
    names_a_section(str(caught.value))


def test_a_stream_that_no_longer_has_what_comes_next_is_refused() -> None:
    found = replication()._replace(description=STREAM._replace(first=5))
    found.refuse_lost(applied(4), lambda: None)
    with pytest.raises(ConfigError, match="the stream begins at 5"):
        found.refuse_lost(applied(3), lambda: None)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to type; it asks for the version that the extra asks for."""
    ours = f"{setup.__package__}.nats_"
    for name in [name for name in sys.modules if name.startswith(("nats.", ours)) or name == "nats"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(replication_package, "nats_admin", raising=False)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if not (Path(path) / "nats").is_dir()])
    with pytest.raises(ConfigError, match=r"pip.* install 'nats-py") as caught:
        setup.load_nats_admin()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras["nats"][0] in str(caught.value)
