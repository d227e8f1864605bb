"""What the simulated server has in the place of sockets, reads and users."""

import json
from collections import deque
from typing import TYPE_CHECKING, Any

from perstack_stored.access.curve_keys import Access
from perstack_stored.access.peers import Peers
from perstack_stored.config.settings import Settings
from perstack_stored.observe.counters import RequestCounter
from perstack_stored.protocol.messages import Envelope, Message, Reply, RoutingId
from perstack_stored.read.requests import ReadRequest
from tests.simulation.readers import READ_IDS

if TYPE_CHECKING:
    from tests.simulation.world import World

CURSOR_IDS = 1 << 50
"""Requests to set the cursor have this id and its position; others have smaller ids."""


class NoLongPolls:
    """Reads that wait for new records: there are none."""

    def __len__(self) -> int:
        return 0

    def add(self, request: ReadRequest) -> ReadRequest | None:
        raise NotImplementedError

    def on_indexed(self, position: int) -> None:
        """Nobody waits for it."""

    def release(self) -> list[ReadRequest]:
        """Nobody waits."""
        return []


class NoReads:
    """Reads of a history in which nobody reads."""

    index_is_readable = True
    pending = failed = 0
    answered = False

    def __init__(self) -> None:
        self.long_polls = NoLongPolls()
        self.faults = self
        self.counters: list[RequestCounter] = []

    def submit(self, request: ReadRequest) -> None:
        raise NotImplementedError

    def dismiss(self, client: str) -> None:
        raise NotImplementedError

    def admit(self, client: str, reads_max: int) -> None:
        raise NotImplementedError

    def take_replies(self) -> list[Reply]:
        return []

    def refused(self) -> dict[str, int]:
        return {}

    def left(self, peer: RoutingId) -> None:
        """Nothing is kept for it."""

    def index_started(self) -> None:
        """Nobody reads it."""

    def index_stopped(self) -> None:
        """Nobody reads it."""

    def index_damage(self) -> str:
        return ""


class OwnersOnly(Peers):
    """Everybody may delete: the clients of a simulated history have no user."""

    def authorize(self, routing_id: RoutingId, access: Access, op: str, id: int | None) -> None:
        """Let the request pass."""


class NoWakeup:
    """The loop does not sleep."""

    fd = -1

    def wake(self) -> None:
        """It is awake."""

    def clear(self) -> None:
        """Nothing came."""


class SimulatedEndpoints:
    """Gives the server what has arrived, and takes its answers to the clients at once."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.messages: deque[Message] = deque()

    def take(self, limit: int, bytes_max: int) -> list[Message]:
        return [self.messages.popleft() for _ in range(min(limit, len(self.messages)))]

    def wait(self, seconds: float) -> set[int] | None:
        return None

    def watch(self, fd: int) -> None:
        pass

    def unwatch(self, fd: int) -> None:
        pass

    def retry(self) -> bool:
        return False

    def on_tick(self, now: float) -> None:
        pass

    def apply_settings(self, settings: Settings) -> None:
        pass

    def answers(self) -> dict[str, int]:
        return {}

    def connections(self) -> dict[str, Any]:
        return {}

    def send(self, envelope: Envelope, frame: bytes) -> None:
        world = self._world
        world.answers += 1
        number = envelope[0]
        assert isinstance(number, int)
        header = json.loads(frame.split(b"\n")[0])
        if header["id"] is not None and CURSOR_IDS <= header["id"] < READ_IDS:
            if header["ok"]:
                world.ledger.cursor = max(world.ledger.cursor, header["id"] - CURSOR_IDS)
            return
        if world.readers is not None and (header["id"] or 0) >= READ_IDS:
            world.readers.answer(frame)
            return
        world.clients[number].answer(frame, world.ledger)

    def flush(self) -> None:
        pass
