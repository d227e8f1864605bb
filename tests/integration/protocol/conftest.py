"""The protocol of wire.md, spoken to a real daemon through bare sockets."""

from collections.abc import Iterator

import pytest

from tests.helpers.daemon import RunningDaemon, running_daemon
from tests.helpers.raw_client import Raw


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """A daemon that soon loses patience; each test uses jobs and sessions of its own."""
    base = tmp_path_factory.mktemp("protocol") / "base"
    with running_daemon(base, "--parts-seconds", "1", "--read-seconds", "1") as running:
        yield running


@pytest.fixture
def raw(daemon: RunningDaemon) -> Iterator[Raw]:
    with Raw(daemon.endpoint) as connected:
        yield connected
