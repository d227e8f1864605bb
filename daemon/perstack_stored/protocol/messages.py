"""What travels between a transport and the serving loop. No I/O."""

from typing import Protocol

# Of ipc a number that the daemon gave, of tcp what ZeroMQ calls it: none can be taken for one of the others.
RoutingId = int | bytes
Envelope = tuple[RoutingId, bool]  # and whether an empty delimiter came with it (REQ)
Message = tuple[Envelope, bytes | None]  # None: it had more frames than a request may have
Reply = tuple[Envelope, bytes]


class ReplySink(Protocol):
    """Takes answers."""

    def send(self, envelope: Envelope, frame: bytes) -> None:
        """Send an answer, at the next `flush` at the latest, or as soon as the client reads."""

    def flush(self) -> None:
        """Send what was put together meanwhile."""
