"""All clients, on real daemons: both Python ones, and the TypeScript one in a Node process."""

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from perstack_storage import Client
from tests.client.behaviour import node
from tests.client.behaviour.adapter import BlockingClient
from tests.client.behaviour.node import NodeClient
from tests.helpers.daemon import RunningDaemon, running_daemon

OpenClient = Callable[..., Client]
PYTHON: dict[str, Any] = {"sync": Client, "asyncio": BlockingClient}
ALL: dict[str, Any] = {**PYTHON, "typescript": NodeClient}


def _open(kind: str) -> Iterator[OpenClient]:
    if kind == "typescript" and (what := node.missing()) is not None:
        assert "CI" not in os.environ, f"{what} must be there"
        pytest.skip(f"needs {what}: see client/typescript/README.md")
    with ExitStack() as opened:

        def open_one(daemon: RunningDaemon, **arguments: Any) -> Client:
            client: Client = opened.enter_context(ALL[kind](daemon.endpoint, **arguments))
            return client

        yield open_one


@pytest.fixture(params=ALL)
def open_client(request: pytest.FixtureRequest) -> Iterator[OpenClient]:
    """Makes clients of one kind; they are left at the end."""
    yield from _open(request.param)


@pytest.fixture(params=PYTHON)
def open_python_client(request: pytest.FixtureRequest) -> Iterator[OpenClient]:
    """The same, where only the Python clients have what is tested."""
    yield from _open(request.param)


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
    """A client of each kind, on the shared daemon."""
    return open_client(shared_daemon)


@pytest.fixture
def python_client(shared_daemon: RunningDaemon, open_python_client: OpenClient) -> Client:
    """The same, where only the Python clients have what is tested."""
    return open_python_client(shared_daemon)


@pytest.fixture
def other_client(shared_daemon: RunningDaemon) -> Iterator[Client]:
    """Another program's client."""
    with Client(shared_daemon.endpoint) as client:
        yield client


@pytest.fixture
def job_id() -> str:
    """A job that no other test has."""
    return f"job-{uuid.uuid4().hex}"
