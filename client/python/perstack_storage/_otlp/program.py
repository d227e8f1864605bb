"""The program: follows the store, and sends the spans of what has ended."""

import time
from collections.abc import Callable
from typing import NamedTuple

from perstack_storage import Client, PositionGone
from perstack_storage._otlp.delivery import SPANS_MAX, Delivery, Receiver
from perstack_storage._otlp.spans import TYPES, Span, SpanMaker
from perstack_storage._otlp.state import Reached, State

REPLAY_MAX = 500_000
"""Records that a restart reads again at most, for the sake of runs that have begun and not ended."""
_WAIT_S = 1.0
"""Spans wait so long for more, and the state is kept so often."""


class Options(NamedTuple):
    """What is exported, and how.

    Attributes:
        content: whether prompts, texts, arguments and results go along.
        once: whether it ends where the store ends now.
        only_new: whether it begins with what is stored from now on, where no state is kept.
    """

    content: bool = False
    once: bool = False
    only_new: bool = False


class Exported(NamedTuple):
    """What was done."""

    spans: int
    refused: int
    position: int


def export(
    client: Client, receiver: Receiver, state: State, options: Options, say: Callable[[str], None]
) -> Exported:
    """Export until the end for now, or without end.

    Raises:
        NotDelivered: the receiver takes nothing.
        StorageError: as the client's calls.
    """
    store = str(client.hello()["store"])
    kept = state.read()
    if kept is not None and kept.store is not None and kept.store != store:
        say("the store is another one than before: exporting it from its beginning")
        kept = None
    if kept is None:
        kept = Reached(int(client.stats()["position"]) if options.only_new else 0)
    exporter = _Exporter(
        SpanMaker(store, content=options.content), Delivery(receiver, store, say), state, store
    )
    try:
        exporter.run(client, kept, once=options.once)
    except PositionGone:
        say("the history is not the one that was exported: exporting it from its beginning")
        exporter.run(client, Reached(0), once=options.once)
    return Exported(exporter.delivery.sent, exporter.delivery.refused, exporter.reached.position)


class _Exporter:
    def __init__(self, maker: SpanMaker, delivery: Delivery, state: State, store: str) -> None:
        self._maker = maker
        self.delivery = delivery
        self._state = state
        self._store = store
        self._waiting: list[Span] = []
        self._sent_at = 0.0
        self.reached = Reached(0)

    def run(self, client: Client, kept: Reached, *, once: bool) -> None:
        self.reached = kept
        while True:
            records = client.follow(
                self.reached.position, store=self._store, epoch=self.reached.epoch, types=TYPES,
                ops=["storeEvent", "storeRunSetting"], idle_s=0 if once else _WAIT_S,
            )  # fmt: skip
            for record in records:
                self._waiting += self._maker.take(record)
                self.reached = Reached(record["position"], self._store, record.get("epoch"))
                if len(self._waiting) >= SPANS_MAX or time.monotonic() > self._sent_at + _WAIT_S:
                    self._send()
            self._send()
            if once:
                return

    def _send(self) -> None:
        """Send what waits, then keep how far it is: a span sent twice does no harm, a lost one does."""
        self.delivery.send(self._waiting)
        self._waiting = []
        self._sent_at = time.monotonic()
        needed = self._maker.needed_from()
        position = self.reached.position
        if needed is not None and needed - 1 < position and position - needed < REPLAY_MAX:
            self._state.write(Reached(needed - 1, self._store))
        else:
            self._state.write(self.reached)
