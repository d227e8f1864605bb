"""After each test the daemon answers, and has stored nothing."""

from collections.abc import Iterator

import pytest

from tests.helpers.daemon import RunningDaemon, files_of, running_daemon
from tests.helpers.raw_client import Raw
from tests.integration.bad_input.refusals import FRAME_BYTES_MAX, VALUE_BYTES_MAX


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """A daemon that is given nothing but what it must refuse."""
    base = tmp_path_factory.mktemp("bad") / "base"
    limits = ("--frame-bytes-max", str(FRAME_BYTES_MAX), "--value-bytes-max", str(VALUE_BYTES_MAX))
    with running_daemon(base, *limits) as running:
        yield running


@pytest.fixture(scope="module")
def raw(daemon: RunningDaemon) -> Iterator[Raw]:
    with Raw(daemon.endpoint) as connected:
        yield connected


@pytest.fixture(autouse=True)
def _nothing_is_stored(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test: the daemon answers, its position is 0, it has no record and no file."""
    yield
    if "raw" in request.fixturenames:
        daemon, raw = request.getfixturevalue("daemon"), request.getfixturevalue("raw")
        pong = raw.ask("ping")
        assert pong.value == {}
        assert pong.header["position"] == 0
        assert raw.read_all() == []
        assert files_of(daemon.base) == {}
