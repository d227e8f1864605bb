"""Checks stores before they are published: what is wrong with a value never gets into the log. No I/O.

What is refused here goes into the log without its bytes, since it takes its number: the stores of the
session after it would seem to have a gap otherwise.
"""

from typing import NamedTuple

from perstack_stored.errors import Refusal
from perstack_stored.journal.entry_format import NO_SESSION
from perstack_stored.model import deletions, value_check
from perstack_stored.model.kinds import Kind
from perstack_stored.protocol import frames
from perstack_stored.store.cursor_requests import CursorRequest
from perstack_stored.store.requests import StoreRequest

from .message import CURSOR, REFUSED, LoggedRequest, Payload

_DELETION = int(Kind.DELETION)


class Entered(NamedTuple):
    """A request of a client, and its form in the log.

    Attributes:
        logged: what others see of it.
        own: what this daemon needs for the answer, without the values.
    """

    logged: LoggedRequest
    own: StoreRequest | CursorRequest


class OwnSession(NamedTuple):
    """Numbers of this daemon's session for a store without one."""

    key: bytes
    seq: int
    settled: int


def enter(request: StoreRequest, given: OwnSession | None) -> Entered:
    """Check the values of a store.

    Args:
        request: the store.
        given: numbers for a store without a session.
    """
    items: list[tuple[int, Payload]] = list(request.items)
    refusals = _refusals(request) if request.refusals is None else dict(request.refusals)
    for i in refusals:
        items[i] = (REFUSED, b"")
    key, seq, settled = request.key, request.seq, request.settled
    if given is not None:
        key, seq, settled = given
    assert key is not None
    logged = LoggedRequest(key, seq, settled, request.atomic, items, request.expect)
    return Entered(logged, request._replace(items=[], refusals=refusals))


def enter_cursor(request: CursorRequest) -> Entered:
    """The form of a cursor in the log."""
    facts = {"name": request.name, "position": request.position, "force": request.force}
    logged = LoggedRequest(NO_SESSION, 0, 0, False, [(CURSOR, frames.encode(facts))])
    return Entered(logged, request)


def _refusals(request: StoreRequest) -> dict[int, Refusal]:
    """Check all values of a store; returns what is wrong with those that are refused."""
    found: dict[int, Refusal] = {}
    check = value_check.check
    for i, (kind, payload) in enumerate(request.items):
        try:
            if kind == _DELETION:
                deletions.check_operation(request.op, deletions.check(payload))
            else:
                check(kind, payload)
        except Refusal as refusal:
            found[i] = refusal.alone()
    return found
