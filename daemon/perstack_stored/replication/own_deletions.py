"""Deletions that this daemon publishes for retention, in a session of their own.

Each expects that nobody has stored for its job since it was looked at: the log judges, at all daemons alike.
So several daemons may have retention; what two of them delete is deleted once.
"""

import secrets
from typing import NamedTuple

import msgspec

from perstack_stored.journal.last_writers import Expectation
from perstack_stored.model.kinds import Kind
from perstack_stored.protocol.messages import Envelope, Reply
from perstack_stored.store.group_commit import DeletionStored
from perstack_stored.store.requests import Payload, StoreRequest

_DELETION = int(Kind.DELETION)
_NOBODY: Envelope = (-1, False)  # no connection has this id


class _Answer(msgspec.Struct):
    ok: bool
    id: int
    position: int | None = None


class _Waiting(NamedTuple):
    request: StoreRequest
    stored: DeletionStored


class OwnDeletions:
    """Deletions without an answer."""

    def __init__(self) -> None:
        self._session = secrets.token_bytes(16)
        self._last = 0
        self._waiting: dict[int, _Waiting] = {}
        self._unsent: list[StoreRequest] = []

    def __len__(self) -> int:
        return len(self._unsent)

    def add(self, payload: Payload, unchanged: Expectation, stored: DeletionStored) -> None:
        """Add one to the next message; see `GroupCommit.store_deletion`."""
        self._last += 1
        settled = min(self._waiting, default=self._last) - 1
        request = StoreRequest(
            _NOBODY,
            self._last,
            self._session,
            self._last,
            settled,
            [(_DELETION, payload)],
            is_batch=False,
            size=len(payload),
            op="deleteJob",
            expect=unchanged,
        )
        self._waiting[self._last] = _Waiting(request, stored)
        self._unsent.append(request)

    def take(self) -> list[StoreRequest]:
        """Take out those that wait for a message."""
        taken, self._unsent = self._unsent, []
        return taken

    def settle(self, replies: list[Reply]) -> list[Reply]:
        """Note the answers to these deletions; returns those to clients."""
        others = []
        for envelope, frame in replies:
            if envelope is not _NOBODY:
                others.append((envelope, frame))
                continue
            answer = msgspec.json.decode(frame.partition(b"\n")[0], type=_Answer)
            self._waiting.pop(answer.id).stored(answer.position if answer.ok else None)
        return others
