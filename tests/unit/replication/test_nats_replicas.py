"""What replicas answer: messages that follow each other. A hole is named once, wherever it is seen."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from perstack_stored.replication import nats_replicas
from perstack_stored.replication.nats_replicas import Replicas

TIME = "2026-11-30T18:00:00.123456789Z"


class Server:
    """Answers a question as a server whose stream holds some sequences does."""

    def __init__(self, *answers: list[int] | None) -> None:
        """`answers`: sequences; None for a server that does not answer."""
        self._answers: Iterator[list[int] | None] = iter(answers)

    def new_inbox(self) -> str:
        return "inbox"

    async def subscribe(self, _subject: str, *, cb: Callable[[Msg], Awaitable[None]]) -> None:
        self._on_answer = cb

    async def publish(self, _subject: str, question: bytes, *, reply: str) -> None:
        assert json.loads(question)["batch"] > 1
        sequences = next(self._answers)
        if sequences is None:
            return
        for sequence in sequences:
            headers = {"Nats-Sequence": str(sequence), "Nats-Time-Stamp": TIME}
            await self._answer(reply, headers, b"of another program")
        await self._answer(reply, {"Status": "204"}, b"")

    async def _answer(self, reply: str, headers: dict[str, str], data: bytes) -> None:
        await self._on_answer(cast(Any, SimpleNamespace(subject=reply, headers=headers, data=data)))


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
        replicas = Replicas(cast(Client, Server(*answers)), "stream")
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
        replicas = Replicas(cast(Client, Server(*silent, [5, 6], None)), "stream")
        await replicas.subscribe()
        for _ in silent:
            assert await replicas.ask(5) == ([], False)
        assert [message.sequence for message in (await replicas.ask(5))[0]] == [5, 6]
        await replicas.ask(7)

    asyncio.run(ask())
    assert waited == [0.25, 0.5, 1.0, 2.0, 2.0, 0.25]
