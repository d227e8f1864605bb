"""A read request with all that is needed to answer it."""

from typing import Any, NamedTuple

from perstack_stored.access.peers import Peer
from perstack_stored.protocol.messages import Envelope


class ReadRequest(NamedTuple):
    """A read whose arguments were checked."""

    envelope: Envelope
    id: int
    op: str
    arguments: dict[str, Any]
    position: int  # the index must have reached it
    deadline: float | None  # on time.monotonic
    arrived: float = 0.0  # on time.monotonic
    peer: Peer | None = None
    client: str = ""  # by which shares are counted: `Peers.client`
    has_waited: bool = False  # for new records
