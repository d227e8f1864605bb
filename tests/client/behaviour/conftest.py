"""Both clients, on real daemons."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from perstack_storage import Client
from tests.client.behaviour.adapter import BlockingClient
from tests.support import RunningDaemon, running_daemon

OpenClient = Callable[..., Client]
KINDS: dict[str, Any] = {"sync": Client, "asyncio": BlockingClient}


@pytest.fixture(params=KINDS)
def open_client(request: pytest.FixtureRequest) -> Iterator[OpenClient]:
    """Makes clients of one kind; they are left at the end."""
    with ExitStack() as opened:

        def open_one(daemon: RunningDaemon, **arguments: Any) -> Client:
            client: Client = opened.enter_context(KINDS[request.param](daemon.endpoint, **arguments))
            return client

        yield open_one


@pytest.fixture(scope="module")
def shared_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """One daemon for the tests that neither stop it nor mind what others store."""
    with running_daemon(tmp_path_factory.mktemp("shared") / "perstack") as daemon:
        yield daemon


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    """A daemon of the test's own."""
    with running_daemon(tmp_path / "perstack") as daemon:
        yield daemon


@pytest.fixture
def client(shared_daemon: RunningDaemon, open_client: OpenClient) -> Client:
    """A client of either kind, on the shared daemon."""
    return open_client(shared_daemon)


@pytest.fixture
def job_id() -> str:
    """A job that no other test has."""
    return f"job-{uuid.uuid4().hex}"
