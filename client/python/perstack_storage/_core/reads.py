"""One request that stores nothing, until its answer is complete: parts of large answers, retries, deadline.

No sockets and no clocks: the time comes in as `now`, in seconds of a steady clock.
"""

import math
from typing import Any

from perstack_storage._core import frames
from perstack_storage._core.errors import AnswerTooLarge, ProtocolError, StorageError
from perstack_storage._core.jsonio import dumps
from perstack_storage._core.patience import Patience

ANSWER_BYTES_MAX = 1 << 30
"""More a client takes of no answer: a listing that has more is read in pages."""
_SINGLE = frozenset({"retrieveJob", "retrieveCheckpoint", "getEvent"})
_SMALL = frozenset({"hello", "ping", "stats"})
_SMALL_BYTES_MAX = 1 << 24
_WITHOUT_DEADLINE = frozenset({"hello", "ping", "stats"})
OF_THE_DAEMON = frozenset({"hello", "ping", "stats"})
"""These tell of the daemon, not of what is stored."""


class Read:
    """The state of a request that may be sent any number of times."""

    def __init__(
        self,
        op: str,
        arguments: bytes,
        deadline: float,
        session: str | None = None,
        wait_s: float = 0.0,
    ) -> None:
        """With `wait_s` the daemon may take so long longer than usual to answer."""
        self.op = op
        self.done = False
        self.error: dict[str, Any] | None = None  # of the last try
        self.failure: StorageError | None = None  # the answer can't be used
        self.position: int | None = None
        self.next: Any = None
        self.begun_after: Any = None  # of `readAll`, where the daemon chose the position
        self.as_of: int | None = None  # the position that the answer is as of
        self.epoch: str | None = None  # of `next`, and of all else where there are no `epochs`
        self.epochs: Any = None
        self._arguments = arguments
        self._session = session
        self.wait_s = wait_s
        self.deadline = deadline
        self._more: bytes | None = None
        self._part = 0
        self._pieces: list[bytes] = []
        self._size = 0
        self.value_bytes_max = frames.VALUE_BYTES_DEFAULT  # what the daemon says of a single value
        self.answer_bytes_max = ANSWER_BYTES_MAX  # what the caller takes
        self.asked_at = math.inf  # when it could have been sent first
        self.at_least: int | None = None  # what the daemon must have come to
        self.after = 0  # the number of stores that must be finished before it is sent
        self._id: int | None = None
        self._send_at: float | None = 0.0  # None: sent, the answer is waited for
        self._sent_at = 0.0
        self._patience = Patience()

    @property
    def sees_stores(self) -> bool:
        """Whether it must see what was stored before it; not one that waits for news, or asks for a state."""
        return not self.wait_s and self.op not in OF_THE_DAEMON

    @property
    def body(self) -> bytes:
        """The complete body of the answer."""
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    def ready(self, now: float) -> bool:
        """Whether it must be sent now."""
        return self._send_at is not None and now >= self._send_at

    def frame(self, request_id: int, now: float) -> bytes:
        """Returns the request for the answer, or for the next part of it."""
        timeout_ms = None if self.op in _WITHOUT_DEADLINE else max(1, int((self.deadline - now) * 1000))
        if self._more is not None:
            return frames.request("readPart", request_id, self._more, timeout_ms=timeout_ms)
        return frames.request(
            self.op,
            request_id,
            self._arguments,
            timeout_ms=timeout_ms,
            session=self._session,
            at_least=self.at_least,
        )

    def sent(self, request_id: int, now: float) -> None:
        """Notes that the socket took the request."""
        self._id = request_id
        self._sent_at = now
        self._send_at = None
        self.error = None

    def disconnected(self) -> None:
        """The request waits to be sent again, on a new connection."""
        self._id = None
        if self._send_at is None:
            self._send_at = 0.0

    def answered(self, request_id: int, answer: frames.Answer, now: float) -> bool:
        """Takes an answer; returns whether it was to this request."""
        if request_id != self._id:
            return False
        self._id = None
        self._patience.answered()
        self.error = answer.error
        if self.error is None:
            self._take(answer)
        elif self.error.get("retryable"):
            self._retry(self.error, now)
        else:
            self.done = True
        return True

    def _take(self, answer: frames.Answer) -> None:
        header, more = answer.header, answer.header.get("more")
        self._size += len(answer.body)
        if self._size > self._bytes_max:
            self._fail(AnswerTooLarge(self._too_large()))
            return
        if answer.body:
            self._pieces.append(answer.body)
        if self.position is None:
            self.position = header.get("position")
        self.next = header.get("next", self.next)
        self.begun_after = header.get("after", self.begun_after)
        if type(header.get("asOf")) is int:
            self.as_of = header["asOf"]
        epoch = header.get("epoch")
        if isinstance(epoch, str):
            self.epoch = epoch
        self.epochs = header.get("epochs", self.epochs)
        if more is None:
            self.done = True
        elif self._follows(more):
            self._more, self._part = dumps(more), more["part"]
            self._send_at = 0.0
        else:
            self._fail(ProtocolError(f"an answer with a part that does not follow: {frames.shortened(more)}"))
        if self.position is not None and type(self.position) is not int:
            self._fail(ProtocolError(f"a position that is none: {frames.shortened(self.position)}"))

    def _follows(self, more: object) -> bool:
        return type(more) is dict and type(more.get("part")) is int and more["part"] == self._part + 1

    @property
    def _bytes_max(self) -> int:
        if self.op in _SMALL:
            return _SMALL_BYTES_MAX
        most = min(self.answer_bytes_max, ANSWER_BYTES_MAX)
        return min(self.value_bytes_max, most) if self.op in _SINGLE else most

    def _too_large(self) -> str:
        what = f"the answer to {self.op} has more than {self._bytes_max:,} bytes"
        if self.op in _SINGLE or self.op in _SMALL:
            return f"{what}, which the daemon itself takes for too much"
        return f"{what}: read it in pages, with `limit`"

    def _fail(self, error: StorageError) -> None:
        self.failure, self.done = error, True
        self._pieces.clear()

    def _retry(self, error: dict[str, Any], now: float) -> None:
        if error.get("code") == "READ_GONE":
            self._more = None
            self._part = self._size = 0
            self._pieces.clear()
            self.position = self.next = self.begun_after = self.epochs = self.epoch = self.as_of = None
        self._send_at = now + self._patience.retry_s(error)

    def due(self) -> float:
        """Returns when something has to be done although nothing came in."""
        if self.done:
            return math.inf
        if self._send_at is not None:
            return self._send_at
        return self._sent_at + self._patience.answer_s + self.wait_s

    def silent(self, now: float) -> bool:
        """Whether an answer is overdue; if so, the next one is waited for twice as long."""
        if self.done or self._send_at is not None or now < self.due():
            return False
        self._patience.missed()
        return True
