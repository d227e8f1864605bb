"""Reads for those who look at runs, through both Python clients."""

import pytest

from perstack_storage import Client, Refused
from tests.client.behaviour.values import event


def test_a_record_is_read_by_its_position(python_client: Client, job_id: str) -> None:
    position = python_client.store_event(event(job_id, 1))
    record = python_client.get_event(position)
    assert (record["position"], record["op"], record["value"]) == (position, "storeEvent", event(job_id, 1))
    assert record["time"] > 0
    with pytest.raises(Refused) as caught:
        python_client.get_event(2**53 - 1)
    assert caught.value.code == "NOT_FOUND"
