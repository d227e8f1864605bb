"""How many stores of a pipeline travel in one frame."""

import pytest

from perstack_storage import Client
from tests.client.fake_daemon import FakeDaemon
from tests.helpers.values import anything


def _frames(endpoint: str, count: int) -> list[int]:
    """Store `count` events in a pipeline after a flush; return the count in each frame."""
    with FakeDaemon(endpoint) as daemon, Client(endpoint, timeout_s=60) as client:
        client.store_event(anything({"n": 0}))
        begun = len(daemon.requests)
        with client.pipeline(max_in_flight=64) as pipeline:
            for number in range(1, count + 1):
                pipeline.store_event(anything({"n": number}))
        return [len(request.get("items", [1])) for request in daemon.requests[begun:]]


def test_stores_of_a_pipeline_that_come_at_once_travel_together(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one does not go alone."""
    monkeypatch.setattr("perstack_storage._sync.connection.BURST_S", 60)
    monkeypatch.setattr("perstack_storage._sync.core.DRAIN_EVERY_S", 60)
    assert _frames(endpoint, 130) == [64, 64, 2]


@pytest.mark.parametrize("name", ["connection.BURST_S", "core.DRAIN_EVERY_S"])
def test_a_store_of_a_pipeline_does_not_wait_long_for_others(
    endpoint: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Neither where the one before was long ago, nor where they come on and on."""
    monkeypatch.setattr("perstack_storage._sync.connection.BURST_S", 60)
    monkeypatch.setattr("perstack_storage._sync.core.DRAIN_EVERY_S", 60)
    monkeypatch.setattr(f"perstack_storage._sync.{name}", 0)
    assert _frames(endpoint, 64)[0] == 1
