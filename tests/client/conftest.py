"""What the tests of the client share."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from perstack_storage import Client
from tests.helpers.ports import free_port


@pytest.fixture(autouse=True)
def _leaves_no_exception() -> Iterator[None]:
    """An exception that stays handled for ever becomes the context of all that later tests raise."""
    before = sys.exc_info()[1]
    yield
    assert sys.exc_info()[1] is before


@pytest.fixture
def endpoint(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/d.sock"


@pytest.fixture
def free_endpoint() -> str:
    """A tcp endpoint of the loopback that nobody uses."""
    return f"tcp://127.0.0.1:{free_port()}"


@pytest.fixture
def client(endpoint: str) -> Iterator[Client]:
    with Client(endpoint, timeout_s=60) as client:
        yield client


@pytest.fixture
def _quick_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is noticed after 0.1 s instead of 1 s."""
    monkeypatch.setattr("perstack_storage._core.patience.PATIENCE_MIN_S", 0.1)


@pytest.fixture
def _long_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that is slow beside load is not asked twice."""
    monkeypatch.setattr("perstack_storage._core.patience.PATIENCE_MIN_S", 30.0)
