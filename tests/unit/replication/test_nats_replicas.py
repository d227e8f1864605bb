"""What replicas answer: messages that follow each other. A hole is named once, wherever it is seen."""

import asyncio
import json
from collections.abc import Iterator
from typing import cast

import pytest
import structlog

from perstack_stored.replication import nats_replicas
from perstack_stored.replication.nats_connection import Connection, Receive
from perstack_stored.replication.nats_replicas import Replicas

TIME = "2026-11-30T18:00:00.123456789Z"
TIME_MS = 1_796_061_600_123


class Server:
    """Answers a question as a server whose stream holds some sequences does."""

    def __init__(self, *answers: list[int] | None) -> None:
        """`answers`: sequences; None for a server that does not answer."""
        self._answers: Iterator[list[int] | None] = iter(answers)
        self.pending: Iterator[int] = iter(())

    def new_inbox(self) -> str:
        return "inbox"

    async def listen(self, _subject: str, receive: Receive) -> None:
        self._receive = receive

    async def publish(self, _subject: str, question: bytes, *, reply: str) -> None:
        assert json.loads(question)["batch"] > 1
        sequences = next(self._answers)
        if sequences is None:
            return
        for sequence in sequences:
            # A publisher may add headers; those of the server follow them.
            headers = f"NATS/1.0\r\nNats-Sequence: 1\r\nNats-Sequence: {sequence}\r\nNats-Time-Stamp: {TIME}"
            headers += f"\r\nNats-Num-Pending: {next(self.pending, 1)}"
            self._receive(reply.encode(), f"{headers}\r\n\r\n".encode(), b"of another program")
        self._receive(reply.encode(), b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 0\r\n\r\n", b"")


@pytest.mark.parametrize(
    ("answers", "found", "named"),
    [
        ([[5, 6, 7]], [5, 6, 7], []),
        ([[]], [], []),  # the end, or a replica that is not there yet
        ([[5, 6, 9], [7, 8]], [5, 6, 7, 8], [7]),  # the next answer comes from another replica
        ([[9], [9], [5]], [5], [5]),
        ([[5, 8], [9], [6, 7, 9], [8]], [5, 6, 7, 8], [6, 8]),
    ],
)
def test_each_hole_is_named_once(answers: list[list[int]], found: list[int], named: list[int]) -> None:
    async def ask() -> list[int]:
        replicas = Replicas(cast(Connection, Server(*answers)), "stream")
        await replicas.subscribe()
        sequences: list[int] = []
        for answer in answers:
            messages, is_hole = await replicas.ask(5 + len(sequences))
            assert is_hole == (len(messages) < len(answer))
            sequences += [message.sequence for message in messages]
        return sequences

    with structlog.testing.capture_logs() as logged:
        assert asyncio.run(ask()) == found
    assert [(line["event"], line["sequence"]) for line in logged] == [("stream_hole", n) for n in named]


def test_a_silent_replica_is_given_up_soon_and_slow_ones_get_more_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited: list[float] = []

    async def wait(event: asyncio.Event, seconds: float) -> None:
        if not event.is_set():
            waited.append(seconds)

    monkeypatch.setattr(nats_replicas, "wait", wait)

    async def ask() -> None:
        silent: list[None] = [None] * 5
        replicas = Replicas(cast(Connection, Server(*silent, [5, 6], None)), "stream")
        await replicas.subscribe()
        for _ in silent:
            assert await replicas.ask(5) == ([], False)
        assert [message.sequence for message in (await replicas.ask(5))[0]] == [5, 6]
        await replicas.ask(7)

    asyncio.run(ask())
    assert waited == [0.25, 0.5, 1.0, 2.0, 2.0, 0.25]


def test_an_answer_says_when_the_server_has_no_more() -> None:
    async def ask() -> None:
        server = Server([5, 6], [7])
        replicas = Replicas(cast(Connection, server), "stream")
        await replicas.subscribe()
        for sequences, pending in (([5, 6], [3, 2]), ([7], [0])):
            server.pending = iter(pending)
            messages, _ = await replicas.ask(sequences[0])
            assert [(one.sequence, one.time_ms) for one in messages] == [(n, TIME_MS) for n in sequences]
            assert replicas.is_at_end == (pending[-1] == 0)

    asyncio.run(ask())
