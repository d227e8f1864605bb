"""A daemon for each module; tests that store use jobs of their own."""

from collections.abc import Iterator

import pytest

from perstack_storage import Client
from tests.client.storectl.given import setting
from tests.helpers.daemon import RunningDaemon, captured_run, running_daemon
from tests.helpers.replay import METHODS
from tests.helpers.storectl import Run, runner


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """One that holds captured run a and a setting full of secrets. Tests that store use other jobs."""
    with running_daemon(tmp_path_factory.mktemp("storectl") / "perstack") as running:
        with Client(running.endpoint) as client:
            with client.pipeline() as pipeline:
                for op, value in captured_run("a"):
                    getattr(pipeline, METHODS[op])(value)
            client.redact_run_setting(setting())  # of other secrets: these are left
            client.store_run_setting(setting())
        yield running


@pytest.fixture
def client(daemon: RunningDaemon) -> Iterator[Client]:
    with Client(daemon.endpoint) as client:
        yield client


@pytest.fixture
def run(daemon: RunningDaemon, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return runner(daemon.base, capsys, monkeypatch)
