"""Messages of this daemon on their way into the log, in order, until they have been applied. No I/O.

Several are in flight. If one is lost, or its fate is not known, all that are unanswered are sent again, in
order: what stands in the log twice is a repeat the second time, and has no effect.
"""

from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

from perstack_stored.errors import Refusal
from perstack_stored.store.cursor_requests import CursorRequest
from perstack_stored.store.group_commit import HeldRead
from perstack_stored.store.requests import StoreRequest

from .stream import Stream

MESSAGES_MAX = 8
"""Messages of one daemon in flight."""
BYTES_MAX = 8 << 20
"""Bytes of them. A single message always has room."""
_RESEND_SECONDS = 0.25  # after a failure, and between two attempts


class Waiting(NamedTuple):
    """A request whose store is on its way."""

    request: StoreRequest | CursorRequest
    session: bytes
    seq: int


class InFlight:
    """A message on its way.

    Attributes:
        waiting: requests without an answer, by their index in the message.
        arrivals: when its requests came in, and how many at each time.
        reads: reads that wait until it is applied.
    """

    __slots__ = ("arrivals", "body", "reads", "waiting")

    def __init__(
        self,
        body: bytes,
        waiting: dict[int, Waiting],
        arrivals: list[tuple[float, int]],
        reads: list[HeldRead],
    ) -> None:
        self.body = body
        self.waiting = waiting
        self.arrivals = arrivals
        self.reads = reads


class Pipeline:
    """The messages in flight."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._messages: OrderedDict[int, InFlight] = OrderedDict()
        self._bytes = 0
        self._resend_at: float | None = None
        self.resent = 0

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[InFlight]:
        return iter(self._messages.values())

    @property
    def has_room(self) -> bool:
        """Whether another message may be sent."""
        return self._resend_at is None and len(self._messages) < MESSAGES_MAX and self._bytes < BYTES_MAX

    def send(self, number: int, message: InFlight) -> None:
        """Send a message; numbers ascend."""
        self._messages[number] = message
        self._bytes += len(message.body)
        self._stream.publish(number, message.body)

    def find(self, number: int) -> InFlight | None:
        """A message in flight, by its number."""
        return self._messages.get(number)

    def settle(self, number: int, gaps: dict[int, Refusal], now: float) -> dict[int, Refusal]:
        """Note that a message was applied. Its requests are answered, but for some of those with gaps.

        Returns:
            the gaps that are the clients' own: no earlier store of the session is on its way here.
        """
        message = self._messages[number]
        own: dict[int, Refusal] = {}
        kept: dict[int, Waiting] = {}
        for index, refusal in gaps.items():
            waiting = message.waiting[index]
            if self._is_awaited(waiting, number):
                kept[index] = waiting
            else:
                own[index] = refusal
        message.waiting = kept
        if kept:
            self._fail(now)
        else:
            del self._messages[number]
            self._bytes -= len(message.body)
        return own

    def _is_awaited(self, waiting: Waiting, number: int) -> bool:
        """Whether an earlier store of the same session is in flight."""
        for other, message in self._messages.items():
            for candidate in message.waiting.values():
                if candidate.session == waiting.session and candidate.seq < waiting.seq:
                    return True
            if other == number:
                return False
        return False

    def on_tick(self, now: float) -> bool:
        """Collect what became of messages, and send again what must be. Returns whether it sent some."""
        for number, sequence in self._stream.take_outcomes():
            if sequence is None and number in self._messages:
                self._fail(now)
        if self._resend_at is None or now < self._resend_at or not self._stream.connected:
            return False
        self._resend_at = None
        for number, message in self._messages.items():
            self._stream.publish(number, message.body)
        self.resent += len(self._messages)
        return True

    def send_again(self, number: int, now: float) -> None:
        """Send all again if this one is in flight: it is in the log, but nothing came of it."""
        if number in self._messages:
            self._fail(now)

    def _fail(self, now: float) -> None:
        if self._resend_at is None:
            self._resend_at = now + _RESEND_SECONDS
