"""Requests that set or delete a named cursor: they wait for the next batch, and are synced with it."""

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from perstack_storage.protocol import ErrorCode
from perstack_stored.errors import Refusal
from perstack_stored.journal.cursors import CURSORS_MAX, Cursor, Cursors, encode
from perstack_stored.model.portions import ByteShares
from perstack_stored.model.shares import NOBODY, Client
from perstack_stored.protocol import frames
from perstack_stored.protocol.messages import Envelope

REQUESTS_MAX = 4096


class CursorRequest(NamedTuple):
    """A cursor to set, or to delete if `position` is None. Its history was checked."""

    envelope: Envelope
    id: int
    op: str
    name: str
    position: int | None
    force: bool = False
    client: Client = NOBODY


def cursor_request(
    envelope: Envelope, id: int, op: str, arguments: dict[str, Any], client: Client
) -> CursorRequest:
    """The request of checked arguments."""
    position = arguments.get("position")
    return CursorRequest(envelope, id, op, arguments["name"], position, arguments.get("force", False), client)


class CursorQueue:
    """Requests that wait, in order."""

    def __init__(self) -> None:
        self._waiting: deque[CursorRequest] = deque()
        self._shares = ByteShares()

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[CursorRequest]:
        return iter(self._waiting)

    def admit(self, request: CursorRequest) -> None:
        """Let a request wait.

        Raises:
            Refusal: BUSY.
        """
        self._shares.take_place(request.client, REQUESTS_MAX, "too many cursors wait to be set")
        self._waiting.append(request)

    def take(self) -> list[CursorRequest]:
        """Take all that wait."""
        taken = list(self._waiting)
        self._waiting.clear()
        for request in taken:
            self._shares.add(request.client, -1)
        return taken


class CursorOwners:
    """The client that made each cursor since the start: the journal keeps names only. For the shares."""

    def __init__(self) -> None:
        self._of: dict[str, Client] = {}
        self._shares = ByteShares()

    def has_room(self, client: Client, made: int, count: int) -> bool:
        """Whether a client may make one more cursor.

        Args:
            client: who asks; one that is not known has no share.
            made: how many it makes in this batch already.
            count: of all cursors.
        """
        others = max(0, count - self._shares.total - made)  # of nobody that is known
        return client == NOBODY or self._shares.has_room(client, 1 + made, CURSORS_MAX - others)

    def apply(self, made: Mapping[str, Client | None]) -> None:
        """Note who has made cursors, by name; None for one that was deleted."""
        for name, client in made.items():
            before = self._of.pop(name, None)
            if before is not None:
                self._shares.add(before, -1)
            if client is not None:
                self._of[name] = client
                self._shares.add(client, 1)


class CursorChanges:
    """What the requests of a batch change; it counts when it is written."""

    def __init__(self, cursors: Cursors, time_ms: int, owners: CursorOwners | None = None) -> None:
        """Without `owners` no client has a share: daemons that share a journal must judge alike."""
        self._cursors = cursors
        self._owners = owners
        self._time_ms = time_ms
        self.changes: dict[str, Cursor | None] = {}
        self._made: dict[str, Client | None] = {}

    def _get(self, name: str) -> Cursor | None:
        return self.changes[name] if name in self.changes else self._cursors.get(name)

    def plan(self, request: CursorRequest) -> bytes:
        """Plan a change; returns the answer, to be sent when it is on disk.

        Raises:
            Refusal: CURSOR_BACK or TOO_LARGE.
        """
        name, position = request.name, request.position
        before = self._get(name)
        if position is None:
            if before is not None:
                self.changes[name] = self._made[name] = None
            return frames.read_answer(request.id, b"{}")
        if before is not None and position < before.position and not request.force:
            raise Refusal(
                ErrorCode.CURSOR_BACK, f"the cursor stands at {before.position} already", "position"
            )
        if before is None:
            self._make(name, request.client)
        self.changes[name] = Cursor(position, self._time_ms)
        return frames.read_answer(request.id, b'{"position":%d}' % position)

    def _make(self, name: str, client: Client) -> None:
        count = self._count()
        if count >= CURSORS_MAX:
            raise Refusal(
                ErrorCode.TOO_LARGE, f"there are {CURSORS_MAX} cursors: delete one that nobody needs", "name"
            )
        made = sum(maker == client for maker in self._made.values())
        if self._owners is not None and not self._owners.has_room(client, made, count):
            raise Refusal(ErrorCode.TOO_LARGE, "this client has made its share of the cursors", "name")
        self._made[name] = client

    def _count(self) -> int:
        new = sum(
            (cursor is not None) - (self._cursors.get(name) is not None)
            for name, cursor in self.changes.items()
        )
        return len(self._cursors) + new

    def encoded(self) -> bytes:
        """The payload of the entry; nothing without changes."""
        return encode(self.changes)

    def written(self) -> None:
        """Let the changes count: they are in the journal."""
        self._cursors.apply(self.changes)
        if self._owners is not None:
            self._owners.apply(self._made)
