"""Readers of a simulated history: they ask by `readAll`, with and without `waitMs`, while the index lags.

The daemon's own read threads answer, as tasks of the machine; each answer is judged by `shown.py`.
"""

import json
from random import Random
from typing import TYPE_CHECKING, Any

from perstack_stored.protocol.messages import RoutingId
from perstack_stored.read.executor import ReadExecutor, ReadLimits
from perstack_stored.read.source import Source
from tests.simulation.clients import Violation
from tests.simulation.expected import DELETION
from tests.simulation.shown import Asked, check_answer
from tests.simulation.workload import KINDS

if TYPE_CHECKING:
    from tests.simulation.world import World

READ_IDS = 1 << 51
"""Reads have this id and more; stores and cursors have smaller ids."""
_OPS = (["storeRunSetting", "redactRunSetting"], ["storeEvent", "deleteJob"], ["storeJob", "storeCheckpoint"])
_LIMITS = ReadLimits(
    answer_bytes=1 << 20, open_max=4, open_bytes_max=1 << 20, keep_seconds=30, waits_max=64, listings_bytes=0
)
_MAY_FAIL = frozenset({"BUSY", "STOPPING"})


def _is_here(_peer: RoutingId) -> bool:
    return True


class SimulatedReads(ReadExecutor):
    """The daemon's reads."""

    def __init__(self, world: "World") -> None:
        self._sources: list[Source] = []
        super().__init__(world.datadir, world.journal.epochs, _LIMITS, lambda: None, _is_here)

    def open_source(self) -> Source:
        """Open index and journal for the calling task."""
        source = super().open_source()
        self._sources.append(source)
        return source

    def abandon(self) -> None:
        """Close what the end of a real process would close: the database is the one thing that is real."""
        for source in self._sources:
            source.database.close()


class Readers:
    """Asks, and judges the answers.

    Attributes:
        to_ask: reads that they will still ask for.
        answers: how many answers were judged.
        lagging: of these, reads that came while the index did not know of a deletion yet.
    """

    def __init__(self, world: "World", random: Random, to_ask: int) -> None:
        self.reads = SimulatedReads(world)
        self.to_ask = to_ask
        self.answers = self.lagging = 0
        self._world = world
        self._random = random
        self._asked: dict[int, Asked] = {}
        self._number = READ_IDS
        self._deleted = 0  # the last deletion that was acknowledged before the last read

    def __len__(self) -> int:
        return len(self._asked)

    @property
    def is_due(self) -> bool:
        """Whether something was deleted since the last read."""
        return self._last_deletion() > self._deleted

    def _last_deletion(self) -> int:
        known = self._world.ledger.acknowledged
        return max((position for position, value in known.items() if KINDS[value.op] == DELETION), default=0)

    def ask(self) -> None:
        """Send a read."""
        world = self._world
        arguments = self._arguments(world.journal.mark.position)
        if self.is_due and self._random.random() < 0.6:
            # Close before a deletion that the index, most likely, does not know of.
            arguments["after"] = max(0, self._last_deletion() - self._random.randint(2, 15))
        known = world.ledger.acknowledged
        deleted = self._deleted = self._last_deletion()
        # A read that waits for new records shows no deleted ones, but not always the newest ones.
        least = deleted if "waitMs" in arguments else max(known, default=0)
        place = world.index.place
        self.lagging += place is None or place.position < deleted
        self.to_ask -= 1
        self._number += 1
        self._asked[self._number] = Asked(arguments, least)
        head = json.dumps({"v": 1, "op": "readAll", "id": self._number})
        frame = f"{head}\n{json.dumps(arguments)}".encode()
        world.endpoints.messages.append(((0, False), frame))
        world.server.drain()

    def _arguments(self, end: int) -> dict[str, Any]:
        random = self._random
        after = random.choice([0, 0, random.randint(0, end), max(0, end - random.randint(0, 3))])
        arguments: dict[str, Any] = {"after": after}
        if random.random() < 0.75:
            arguments["waitMs"] = random.choice([1, 300, 3000])
        if random.random() < 0.2:
            arguments["limit"] = random.randint(1, 5)
        if random.random() < 0.15:
            arguments["omit"] = ["pad"]
        which = random.random()
        if which < 0.4:
            arguments["jobId"] = f"j{random.randrange(2)}"
            if which < 0.15:
                arguments["runId"] = f"r{random.randrange(2)}"
        elif which < 0.55:
            arguments["ops"] = random.choice(_OPS)
        elif which < 0.65:
            arguments["types"] = ["a"]
        return arguments

    def answer(self, frame: bytes) -> None:
        """Judge an answer."""
        head, _, body = frame.partition(b"\n")
        header = json.loads(head)
        asked = self._asked.pop(header["id"])
        if header["ok"]:
            self.answers += 1
            seen = self._world.ledger.seen
            check_answer(asked, header["next"], json.loads(body), [seen[p] for p in sorted(seen)])
        elif not (header["error"]["code"] in _MAY_FAIL or self._world.kernel.faults):
            raise Violation(f"readAll {dict(asked.arguments)} is answered by {header['error']}")
