"""A store is taken out of its frames, or its header is refused."""

from typing import Any

import pytest

from perstack_stored.errors import Refusal
from perstack_stored.model.kinds import Kind
from perstack_stored.protocol.frames import decode_header
from perstack_stored.store.requests import StoreRequest, open_request
from tests.helpers.datadir import dumps
from tests.unit.store.committing import PEER


def opened(head: dict[str, Any], body: bytes = b"{}") -> StoreRequest:
    header = decode_header(dumps({"v": 1, "op": "storeEvent", "id": 1} | head))
    return open_request(PEER, header, body, items_max=3)


def test_a_batch_is_cut_by_the_lengths_of_its_items() -> None:
    """Each item gets exactly its bytes, empty ones too."""
    items = [["storeEvent", 3], ["storeJob", 0], ["storeRunSetting", 2]]
    found = opened({"op": "store", "items": items}, b"abcde")
    assert found.items == [(Kind.EVENT, b"abc"), (Kind.JOB, b""), (Kind.RUN_SETTING, b"de")]
    assert found.is_batch
    assert found.size == 5
    assert found.key is None


@pytest.mark.parametrize(
    ("head", "code", "field"),
    [
        ({"op": "store"}, "BAD_REQUEST", "items"),
        ({"op": "store", "items": []}, "BAD_REQUEST", "items"),
        ({"op": "store", "items": [["storeEvent", 1]]}, "BAD_REQUEST", "items"),
        ({"op": "store", "items": [["storeEvent", 3]]}, "BAD_REQUEST", "items"),
        ({"op": "store", "items": [["storeEvent", 3], ["storeEvent", -1]]}, "BAD_REQUEST", "items"),
        ({"op": "store", "items": [["store", 2]]}, "BAD_REQUEST", "items"),
        ({"op": "store", "items": [["retrieveJob", 2]]}, "BAD_REQUEST", "items"),
        ({"op": "store", "items": [["storeEvent", 10**30]]}, "BAD_REQUEST", "items"),
        ({"op": "store", "items": [["storeEvent", 0]] * 4}, "TOO_LARGE", "items"),
        ({"seq": 1}, "BAD_REQUEST", "session"),
        ({"session": "8f" * 16}, "BAD_REQUEST", "seq"),
        ({"session": "8f" * 16, "seq": 0}, "BAD_REQUEST", "seq"),
        ({"session": "8f" * 16, "seq": -1}, "BAD_REQUEST", "seq"),
        ({"session": "8f" * 16, "seq": 2**53}, "BAD_REQUEST", "seq"),
        ({"session": "8f" * 16, "seq": 1, "settled": -1}, "BAD_REQUEST", "settled"),
        ({"session": "8f" * 16, "seq": 1, "settled": 2**53}, "BAD_REQUEST", "settled"),
        ({"session": "00" * 16, "seq": 1}, "BAD_REQUEST", "session"),
        ({"session": "8F" * 16, "seq": 1}, "BAD_REQUEST", "session"),
        ({"session": "8f" * 15, "seq": 1}, "BAD_REQUEST", "session"),
        ({"session": "8f " * 10 + "8f", "seq": 1}, "BAD_REQUEST", "session"),
        ({"session": "zz" * 16, "seq": 1}, "BAD_REQUEST", "session"),
    ],
)
def test_a_store_with_a_wrong_header_is_refused(head: dict[str, Any], code: str, field: str) -> None:
    """Each wrong field of the header of a store is named, and nothing of the frame is taken."""
    with pytest.raises(Refusal) as caught:
        opened(head)
    assert (caught.value.code, caught.value.field) == (code, field)
