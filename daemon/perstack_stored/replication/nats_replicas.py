"""Asking the servers of a NATS stream for its messages: any replica, by DIRECT.GET in batches, or the leader.

Any replica answers, and no consumer keeps state. A replica may lack messages without saying so (NATS drops
the rest of a damaged block in silence), so sequences must follow each other: a hole is reported, never
skipped.
"""

import asyncio
import base64
import calendar
import time
from functools import lru_cache
from typing import Any

import msgspec
import nats.errors
import structlog

from perstack_stored.errors import StreamFailedError

from .message import is_damaged
from .nats_connection import Connection
from .stream import LoggedMessage

_ANSWER_SECONDS = 2.0
_SILENCE_SECONDS = 0.25
"""Without a message of an answer, until another replica is asked: the one that was asked may be dead. Slow
ones get more, up to `_ANSWER_SECONDS`: twice what the last answer took, and twice as much after a silence."""
_BATCH_MESSAGES = 256
_BATCH_BYTES = 4 << 20

_log = structlog.get_logger()


class Replicas:
    """What the servers hold of a stream. One question at a time, over one connection.

    Attributes:
        is_at_end: the replica that answered last had no more than it sent.
    """

    def __init__(self, client: Connection, name: str) -> None:
        self._client = client
        self._name = name
        self._inbox = client.new_inbox()
        self._question = 0
        self._subject = b""  # of its answer
        self._answer: list[LoggedMessage] = []
        self.is_at_end = False
        self._answered = asyncio.Event()
        self._is_complete = False
        self._patience = _SILENCE_SECONDS
        self._hole = 0  # the last one that was logged

    async def subscribe(self) -> None:
        """Receive answers; called once, before the first question."""
        await self._client.listen(f"{self._inbox}.*", self._on_answer)

    def wake(self) -> None:
        """End a wait."""
        self._is_complete = True
        self._answered.set()

    async def pause(self, seconds: float) -> None:
        """Wait before the next question; the rest of an answer ends the wait."""
        await wait(self._answered, seconds)

    async def ask(self, sequence: int) -> tuple[list[LoggedMessage], bool]:
        """Ask any replica for the messages from a sequence on.

        Returns:
            those that follow each other, and whether it left one out.
        """
        self._question += 1
        reply = f"{self._inbox}.{self._question}"
        self._subject = reply.encode()
        self._answer = []
        self.is_at_end = False
        self._is_complete = False
        self._answered.clear()
        wanted = {"seq": sequence, "batch": _BATCH_MESSAGES, "max_bytes": _BATCH_BYTES}
        try:
            await self._client.publish(
                f"$JS.API.DIRECT.GET.{self._name}", msgspec.json.encode(wanted), reply=reply
            )
        except (OSError, nats.errors.Error):
            return [], False
        await self._await_answer()
        found, is_hole = _following(self._answer, sequence)
        if is_hole:
            self._note_hole(sequence + len(found))
        return found, is_hole

    async def _await_answer(self) -> None:
        """Wait until the answer is complete, or no more of it comes."""
        asked = time.monotonic()
        while True:
            before = len(self._answer)
            await wait(self._answered, self._patience)
            if self._is_complete or len(self._answer) == before:
                break
        took = time.monotonic() - asked if self._is_complete or self._answer else self._patience
        self._patience = min(max(_SILENCE_SECONDS, 2 * took), _ANSWER_SECONDS)

    def _note_hole(self, sequence: int) -> None:
        """Log a message that a replica left out, once: the next answer may come from another replica."""
        if sequence != self._hole:
            self._hole = sequence
            _log.warning("stream_hole", sequence=sequence, reason="a replica lacks or damaged it")

    def _on_answer(self, subject: bytes, headers: bytes, data: bytes) -> None:
        if subject != self._subject:
            return  # of an earlier question
        sequence = _header(headers, b"Nats-Sequence")
        if sequence:
            time_ms = _milliseconds(_header(headers, b"Nats-Time-Stamp").decode())
            self._answer.append(LoggedMessage(int(sequence), time_ms, data))
            self.is_at_end = _header(headers, b"Nats-Num-Pending") == b"0"
        if not sequence or self.is_at_end:
            self._is_complete = True
            self._answered.set()

    async def end_before(self, sequence: int) -> bool:
        """Whether the stream's leader says that no message was given this sequence yet."""
        try:
            answer = await self._client.request(
                f"$JS.API.STREAM.INFO.{self._name}", b"", timeout=_ANSWER_SECONDS
            )
        except (OSError, nats.errors.Error):
            return False
        state: dict[str, int] = msgspec.json.decode(answer.data).get("state", {})
        return state.get("last_seq", sequence) < sequence

    async def ask_leader(self, sequence: int, *, is_last: bool) -> LoggedMessage | None:
        """Ask the stream's leader for one message.

        Args:
            sequence: of the message.
            is_last: the leader was asked often enough: if it does not have the message, nobody has.

        Raises:
            StreamFailedError: it does not have it either.
        """
        api = f"$JS.API.STREAM.MSG.GET.{self._name}"
        try:
            answer = await self._client.request(
                api, msgspec.json.encode({"seq": sequence}), timeout=_ANSWER_SECONDS
            )
        except (OSError, nats.errors.Error):
            return None
        body: dict[str, Any] = msgspec.json.decode(answer.data)
        found = body.get("message")
        if found:
            data = base64.b64decode(found.get("data", ""))
            if is_damaged(data):
                raise StreamFailedError(f"message {sequence} of the stream is damaged on its leader, too")
            return LoggedMessage(int(found["seq"]), _milliseconds(found["time"]), data)
        if is_last:
            raise StreamFailedError(
                f"no replica of the stream {self._name} has message {sequence}, which was stored:"
                " it was lost, or discarded by age. Restore a newer backup into an empty base"
            )
        return None


def _header(headers: bytes, name: bytes) -> bytes:
    """A header of a message; empty if it has none. Those of the server follow those of who published it."""
    start = headers.rfind(b"\r\n" + name + b":")
    return headers[start + len(name) + 3 : headers.find(b"\r\n", start + 2)].strip() if start >= 0 else b""


def _following(answer: list[LoggedMessage], expected: int) -> tuple[list[LoggedMessage], bool]:
    """The messages of an answer that follow each other, and whether one is left out."""
    found: list[LoggedMessage] = []
    for message in answer:
        sequence = message.sequence
        if sequence < expected:
            continue
        if sequence > expected or is_damaged(message.body):
            return found, True
        found.append(message)
        expected += 1
    return found, False


async def wait(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, at most so long, and clear it."""
    if not event.is_set():
        timer = asyncio.get_running_loop().call_later(seconds, event.set)
        await event.wait()
        timer.cancel()
    event.clear()


def _milliseconds(text: str) -> int:
    """Milliseconds since 1970 of a time as the server writes it: RFC 3339, up to nanoseconds, in UTC."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    return _seconds(whole) * 1000 + int((fraction + "000")[:3])


@lru_cache(maxsize=2)  # messages in a row mostly share their second
def _seconds(text: str) -> int:
    return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
