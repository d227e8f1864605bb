"""Outlines of sessions that gave way to others: their last numbers, without positions. No I/O."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from perstack_storage.protocol import ErrorCode
from perstack_stored.errors import Refusal
from perstack_stored.model.shares import NOBODY, Client, Owned

from .session import Session


class Outline(NamedTuple):
    """The last number of a session that gave way, and where it began."""

    written: int
    used_ms: int
    used: float
    client: Client
    begun: int


class Outlines:
    """All outlines, the one that gave way first in front."""

    def __init__(self, keep_seconds: int) -> None:
        """`keep_seconds`: after this time without a use an outline has expired."""
        self._outlines: OrderedDict[bytes, Outline] = OrderedDict()
        self._owned: Owned[bytes] = Owned()
        # Clients with an outline that was dropped early, and until when they get no new session.
        self._doubtful: dict[Client, float] = {}
        self._keep_seconds = keep_seconds

    def __len__(self) -> int:
        return len(self._outlines)

    def __contains__(self, key: bytes) -> bool:
        return key in self._outlines

    def get(self, key: bytes) -> Outline | None:
        """The outline of a session, if there is one."""
        return self._outlines.get(key)

    def items(self) -> Iterable[tuple[bytes, Outline]]:
        """All outlines by the name of their session."""
        return self._outlines.items()

    def add(self, key: bytes, session: Session) -> None:
        """Add the outline of a session that gives way."""
        facts = session.written, session.used_ms, session.used, session.client, session.begun
        self._outlines[key] = Outline(*facts)
        self._owned.add(key, session.client)

    def set_begun(self, key: bytes, begun: int) -> None:
        """Note where the session of an outline began."""
        self._outlines[key] = self._outlines[key]._replace(begun=begun)

    def forget(self, key: bytes) -> None:
        """Forget an outline."""
        self._owned.remove(key, self._outlines.pop(key).client)

    def forget_first(self) -> None:
        """Forget the outline that gave way first."""
        self.forget(next(iter(self._outlines)))

    def clear(self) -> None:
        """Forget all outlines, and which clients are in doubt."""
        self._outlines.clear()
        self._doubtful.clear()
        self._owned = Owned()

    def drop_one(self, newcomer: Client, now: float) -> bool:
        """Drop one outline of the client that has most of them; return whether it was dropped.

        Before it expires, a retry of its stores could not be distinguished from stores of a new session.
        So the client gets no new session until then, and its own new session drops none of its outlines.
        After a restart the owners of outlines are not known: those stay until they expire.
        """
        client, _ = self._owned.shares.most()
        key = self._owned.oldest(client)
        until = self._outlines[key].used + self._keep_seconds
        if until > now:
            if client in (NOBODY, newcomer):
                return False
            self._doubtful[client] = max(until, self._doubtful.get(client, 0.0))
        self.forget(key)
        return True

    def refuse_doubtful(self, client: Client, now: float) -> None:
        """Refuse a new session of a client whose retries could not be distinguished from new stores.

        Raises:
            Refusal: BUSY.
        """
        if not self._doubtful:
            return
        if self._doubtful.get(client, 0.0) > now:
            raise Refusal(ErrorCode.BUSY, "this client has begun more sessions than can be tracked")
        self._doubtful = {one: until for one, until in self._doubtful.items() if until > now}
