"""A daemon for each test, which may restart it, and its client."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from perstack_storage import Client
from tests.helpers.daemon import RunningDaemon, running_daemon


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    with running_daemon(tmp_path / "perstack") as running:
        yield running


@pytest.fixture
def client(daemon: RunningDaemon) -> Iterator[Client]:
    with Client(daemon.endpoint, timeout_s=60) as client:
        yield client


@pytest.fixture
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that was killed is missed after 1.3 s instead of 3 s."""
    monkeypatch.setattr("perstack_storage._core.follow.WAIT_MAX_S", 0.3)
