"""Bytes of a message of the log: what has changed on its way is not applied."""

import pytest

from perstack_stored.replication import message as log_message
from perstack_stored.replication.message import BadMessageError, LoggedRequest, MessageType


def test_a_changed_byte_is_noticed_wherever_it_stands() -> None:
    """One at the beginning makes it somebody else's; any other a damaged message."""
    request = LoggedRequest(b"s" * 16, 1, 0, False, [(3, b"payload")])
    sound = log_message.encode(MessageType.STORES, b"d" * 16, 1, [request])
    assert log_message.decode(sound).requests == [request]
    assert not log_message.is_damaged(sound)
    for place in range(len(sound)):
        changed = bytearray(sound)
        changed[place] ^= 0x20
        with pytest.raises(BadMessageError):
            log_message.decode(bytes(changed))
        assert log_message.is_damaged(bytes(changed)) == (place >= len(log_message.MAGIC))
