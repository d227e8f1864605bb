"""Bytes of a message of the log: what has changed on its way is not applied."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perstack_stored.errors import NewerFormatError
from perstack_stored.model.kinds import Kind
from perstack_stored.replication import message as log_message
from perstack_stored.replication.message import (
    CURSOR,
    HEAD_BYTES,
    REFUSED,
    REQUEST_BYTES,
    BadMessageError,
    LoggedItems,
    LoggedRequest,
    MessageType,
    sealed,
)

DAEMON = b"d" * 16
KINDS = st.sampled_from([REFUSED, CURSOR, *(int(kind) for kind in Kind if kind is not Kind.GAP)])
ITEMS = st.lists(st.tuples(KINDS, st.binary(max_size=20)), min_size=1, max_size=5)


def test_a_changed_byte_is_noticed_wherever_it_stands() -> None:
    """One at the beginning makes it somebody else's; any other a damaged message."""
    request = LoggedRequest(b"s" * 16, 1, 0, False, [(3, b"payload")])
    sound = log_message.encode(MessageType.STORES, DAEMON, 1, [request])
    assert log_message.decode(sound).requests == [request]
    assert not log_message.is_damaged(sound)
    for place in range(len(sound)):
        changed = bytearray(sound)
        changed[place] ^= 0x20
        with pytest.raises(BadMessageError):
            log_message.decode(bytes(changed))
        assert log_message.is_damaged(bytes(changed)) == (place >= len(log_message.MAGIC))


@given(st.lists(ITEMS, max_size=3))
def test_items_are_read_as_they_were_written(written: list[list[tuple[int, bytes]]]) -> None:
    requests = [LoggedRequest(b"s" * 16, n + 1, 0, False, items) for n, items in enumerate(written)]
    found = log_message.decode(log_message.encode(MessageType.STORES, DAEMON, 1, requests)).requests
    assert found == requests
    for request, items in zip(found, written, strict=True):
        assert isinstance(request.items, LoggedItems)
        assert [(kind, bytes(payload)) for kind, payload in request.items] == items
        assert [request.items[i] for i in range(len(request.items))] == items
        assert [(kind, bytes(payload)) for kind, _, payload in request.items.block] == items
        apart = {REFUSED, CURSOR, int(Kind.DELETION)}
        assert request.items.is_plain == apart.isdisjoint(kind for kind, _ in items)


@pytest.mark.parametrize(
    ("kinds", "missing", "error"),
    [
        ([3, 3], 1, BadMessageError),
        ([3, 3], 5, BadMessageError),
        ([3, 77], 0, NewerFormatError),
        ([77, 3], 8, NewerFormatError),
        ([3, 77], 8, BadMessageError),  # the first item decides
        ([int(Kind.GAP)], 0, NewerFormatError),
    ],
)
def test_the_first_item_that_cannot_be_read_decides(
    kinds: list[int], missing: int, error: type[Exception]
) -> None:
    request = LoggedRequest(b"s" * 16, 1, 0, False, [(kind, b"four") for kind in kinds])
    whole = log_message.encode(MessageType.STORES, DAEMON, 1, [request])
    cut = sealed(MessageType.STORES, DAEMON, 1, 1, [whole[HEAD_BYTES : len(whole) - missing]])
    with pytest.raises(error):
        log_message.decode(cut)


def test_a_table_of_items_that_is_cut_off_is_refused() -> None:
    request = LoggedRequest(b"s" * 16, 1, 0, False, [(3, b"")] * 3)
    whole = log_message.encode(MessageType.STORES, DAEMON, 1, [request])
    for end in range(HEAD_BYTES, len(whole)):
        cut = sealed(MessageType.STORES, DAEMON, 1, 1, [whole[HEAD_BYTES:end]])
        with pytest.raises(BadMessageError):
            log_message.decode(cut)
    assert len(whole) == HEAD_BYTES + REQUEST_BYTES + 3 * log_message.ITEM_BYTES
