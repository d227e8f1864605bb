"""How the log's thread takes messages in: as they are parsed, and with one question for what has come."""

import asyncio
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest
from nats.protocol.parser import Parser

from perstack_stored.errors import StreamFailedError
from perstack_stored.replication.nats_admin import NatsAddress
from perstack_stored.replication.nats_connection import Connection
from perstack_stored.replication.nats_replicas import Replicas
from perstack_stored.replication.nats_stream import NatsStream
from perstack_stored.replication.stream import LoggedMessage

HEADERS = b"NATS/1.0\r\nNats-Sequence: 7\r\n\r\n"


def test_messages_are_received_as_they_are_parsed_and_a_fault_of_one_does_not_stop_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connection = Connection()
    received: list[tuple[bytes, bytes, bytes]] = []
    faults: list[Exception] = []

    async def subscribe(_subject: str, **_more: object) -> Any:
        return SimpleNamespace(_id=3)

    async def note(fault: Exception) -> None:
        faults.append(fault)

    def receive(subject: bytes, headers: bytes, data: bytes) -> None:
        received.append((subject, headers, data))
        if data == b"bad":
            raise ValueError

    async def parse() -> None:
        await connection.listen("a.*", receive)
        first = b"HMSG a.1 3 %d %d\r\n%shello\r\n" % (len(HEADERS), len(HEADERS) + 5, HEADERS)
        await Parser(connection).parse(
            first + b"MSG a.2 3 3\r\nbad\r\nMSG a.3 4 1\r\nx\r\nMSG a.4 3 0\r\n\r\n"
        )

    monkeypatch.setattr(connection, "subscribe", subscribe)
    monkeypatch.setattr(connection, "_error_cb", note)
    asyncio.run(parse())
    assert received == [(b"a.1", HEADERS, b"hello"), (b"a.2", b"", b"bad"), (b"a.4", b"", b"")]
    assert [type(fault) for fault in faults] == [ValueError]


class Following:
    """A stream whose thread does not run, and replicas whose answers are given."""

    is_closed, is_connected = False, True

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answers: list[tuple[list[int], bool]]) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", lambda _thread: None)
            self.stream = NatsStream(NatsAddress(("nats://h:1",), "s"), 0, lambda: None)
        self.asked: list[int] = []
        self.paused: list[float] = []
        self.leader_asked = 0
        self.stream_last: int | None = None  # what the leader says; None: the first question ends it
        self.is_at_end = False
        self._answers = iter(answers)

    async def ask(self, sequence: int) -> tuple[list[LoggedMessage], bool]:
        self.asked.append(sequence)
        found, self.is_at_end = next(self._answers)
        return [LoggedMessage(one, 0, b"") for one in found], False

    async def pause(self, seconds: float) -> None:
        self.paused.append(seconds)

    async def ask_leader(self, sequence: int, *, is_last: bool) -> LoggedMessage | None:
        self.leader_asked = sequence
        if self.stream_last is None:
            self.stream._stopping = True
        elif is_last:
            raise StreamFailedError("no replica has it")
        return None

    async def end_before(self, sequence: int) -> bool:
        assert self.stream_last is not None
        return self.stream_last < sequence

    async def follow(self) -> None:
        await self.stream._follow(cast(Connection, self), cast(Replicas, self))

    def tell(self, sequence: int) -> None:
        self.stream._on_tick(b"", b"", sequence.to_bytes(8, "little"))


def test_a_server_without_more_is_asked_again_only_when_the_log_has_grown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("perstack_stored.replication.nats_stream._POLL_SECONDS", 3600.0)
    answers = [([1, 2], False), ([3], True), ([4], True), ([5], True)]
    following = Following(monkeypatch, answers)

    async def check() -> None:
        task = asyncio.ensure_future(following.follow())
        for sequence, asked in ((3, [1, 3]), (4, [1, 3, 4]), (5, [1, 3, 4, 5])):
            following.tell(sequence - 1)  # it is known already
            following.tell(sequence)
            for _ in range(20):
                await asyncio.sleep(0)
            assert following.asked == asked
        task.cancel()

    asyncio.run(check())
    assert [message.sequence for message in following.stream.take(1 << 20)] == [1, 2, 3, 4, 5]


def test_a_server_that_lags_is_asked_again_soon_then_seldom_then_the_leader(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Most lag by a millisecond; one that lacks a message has a quarter of a second to get it."""
    following = Following(monkeypatch, [([], True)] * 99)
    following.tell(1)
    asyncio.run(following.follow())
    assert following.leader_asked == 1
    *soon, _last, _after_leader = following.paused
    assert soon[0] <= 0.001
    assert soon == sorted(soon)
    assert soon[-1] == 0.02
    assert sum(soon) > 0.22
    assert len(following.asked) < 25


@pytest.mark.parametrize("lost", ["acknowledged to us", "given to somebody", ""])
def test_a_tick_that_names_what_was_never_stored_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """What the stream has given out, and nobody has, is lost: that stops the daemon."""
    following = Following(monkeypatch, [([], True)] * 99)
    following.stream_last = 1 if lost == "given to somebody" else 0
    if lost == "acknowledged to us":
        following.stream._on_ack(b"inbox.a.1", b"", b'{"seq":1}')
    following.tell(1 << 60)

    async def check() -> None:
        task = asyncio.ensure_future(following.follow())
        for _ in range(2000):
            await asyncio.sleep(0)
        assert task.done() == bool(lost)
        task.cancel()
        if lost:
            task.result()

    if lost:
        with pytest.raises(StreamFailedError):
            asyncio.run(check())
    else:
        asyncio.run(check())
        asked = len(following.asked)
        assert 30 < asked < 99
        assert following.stream._last == 0
