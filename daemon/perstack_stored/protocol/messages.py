"""Types of the messages between a transport and the serving loop. No I/O."""

from typing import Protocol

# ipc: a number that the daemon assigns; tcp: ZeroMQ's routing id. The types differ, so neither can be
# mistaken for the other.
RoutingId = int | bytes
Envelope = tuple[RoutingId, bool]  # with whether an empty delimiter came with it (REQ)
Message = tuple[Envelope, bytes | None]  # None: the message had more frames than a request may have
Reply = tuple[Envelope, bytes]


class ReplySink(Protocol):
    """Takes answers."""

    def send(self, envelope: Envelope, frame: bytes) -> None:
        """Send an answer, at the next `flush` at the latest, or as soon as the client reads."""

    def flush(self) -> None:
        """Send the answers that were collected."""
