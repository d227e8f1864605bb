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

from perstack_stored.replication.nats_replicas import Replicas

TIME = "2026-11-30T18:00:00.123456789Z"


class Server:
    """Answers a question as a server whose stream holds some sequences does."""

    def __init__(self, *answers: list[int]) -> None:
        self._answers: Iterator[list[int]] = iter(answers)

    def new_inbox(self) -> str:
        return "inbox"

    async def subscribe(self, _subject: str, *, cb: Callable[[Msg], Awaitable[None]]) -> None:
        self._on_answer = cb

    async def publish(self, _subject: str, question: bytes, *, reply: str) -> None:
        assert json.loads(question)["batch"] > 1
        for sequence in next(self._answers):
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
