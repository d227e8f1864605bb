"""The seam to the engine that keeps the replicated log: four calls, and what they carry.

An engine orders messages, and keeps each on a majority of its machines, synced, before it says so.
"""

from typing import NamedTuple, Protocol

ALL_SERVERS_LOST = 'see "All servers are lost" in daemon/docs/replication.md'
"""Where the way out is described, for errors."""


class LoggedMessage(NamedTuple):
    """A message as it stands in the log.

    Attributes:
        sequence: its place; there is none without a message.
        time_ms: the engine's time at which it came in, in milliseconds since 1970.
        body: its bytes.
    """

    sequence: int
    time_ms: int
    body: bytes


class Description(NamedTuple):
    """What an engine says of a log.

    Attributes:
        store: id of the store, 16 bytes.
        stream: id of the log, 16 bytes.
        replicas: machines that each keep all of it.
        first: sequence of the oldest message that is kept.
        last: sequence of the newest one; 0 if there is none.
        message_bytes_max: largest message, in pieces where the engine takes them.
        sessions_max: sessions that are remembered, of all daemons together.
        remembered_records: stores of a session whose positions are remembered.
        guard_seconds: time for which a deleted job takes no stores of sessions from before.
    """

    store: bytes
    stream: bytes
    replicas: int
    first: int
    last: int
    message_bytes_max: int
    sessions_max: int
    remembered_records: int
    guard_seconds: int


class Stream(Protocol):
    """A replicated log. `nats_stream.NatsStream` is one. All calls return at once."""

    def publish(self, number: int, body: bytes) -> None:
        """Send a message; `take_outcomes` tells what became of it. Sent twice, it may stand there twice."""

    def take_outcomes(self) -> list[tuple[int, int | None]]:
        """Return what became of messages: numbers, and sequences, or None if that is not known."""

    def take(self, bytes_max: int) -> list[LoggedMessage]:
        """Return the next messages of the log, in order, none twice and none left out.

        Raises:
            StreamFailedError: a message can't be had.
        """

    @property
    def connected(self) -> bool:
        """Whether the engine can be reached."""

    @property
    def fault(self) -> str:
        """Why the engine can't be reached now, or refuses messages; "" if all is well."""

    @property
    def last(self) -> int:
        """The highest sequence that was heard of."""

    def stop(self) -> None:
        """End it; what is not in the log yet may still get there."""
