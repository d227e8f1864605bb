"""The Node process that the suite shares: one storage after the other, and its end."""

import os

import pytest

from tests.client.behaviour import node
from tests.client.behaviour.values import event
from tests.helpers.daemon import RunningDaemon


@pytest.mark.parametrize("is_closed", [True, False])
def test_a_process_with_one_storage_ends_by_itself(
    shared_daemon: RunningDaemon, job_id: str, *, is_closed: bool
) -> None:
    """Nothing of the client keeps it: neither a storage that was closed, nor one that the end closes."""
    if (what := node.missing()) is not None:
        assert "CI" not in os.environ, f"{what} must be there"
        pytest.skip(f"needs {what}: see client/typescript/README.md")
    bridge = node.Bridge()
    bridge.open({"endpoint": shared_daemon.endpoint})
    bridge.start("storeEvent", event(job_id, 1)).result(node.ANSWER_SECONDS)
    if is_closed:
        bridge.start("close").result(node.ANSWER_SECONDS)
    assert bridge.end() == 0
