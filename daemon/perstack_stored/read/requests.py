"""A read that was asked for, with what it needs to be answered."""

from typing import Any, NamedTuple

from perstack_stored.access.peers import Peer
from perstack_stored.protocol.messages import Envelope


class ReadRequest(NamedTuple):
    """A read whose arguments were checked."""

    envelope: Envelope
    id: int
    op: str
    arguments: dict[str, Any]
    position: int  # what it must see
    deadline: float | None  # on time.monotonic
    arrived: float = 0.0  # on time.monotonic
    peer: Peer | None = None
    client: str = ""  # where shares are counted: `Peers.client`
    has_waited: bool = False  # for new records
