"""Applies messages of the log: which stores count, from the log alone. All daemons come to the same.

A store is judged by its session as the journal knows it, and by deletions before it. The time is the log's.
Neither clocks nor settings of this daemon, nor what its clients asked, may be looked at here.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from perstack_storage.protocol import ErrorCode
from perstack_stored.errors import Refusal, StorageFullError
from perstack_stored.journal import log_place
from perstack_stored.journal.clock import LogClock
from perstack_stored.journal.entry_format import ATOMIC, RecordBlock
from perstack_stored.journal.log_place import DIGEST_BYTES, LogPlace, Numbers
from perstack_stored.journal.replicated_sessions import ReplicatedSessions
from perstack_stored.journal.session import Session
from perstack_stored.journal.writer import Append, JournalWriter
from perstack_stored.model import deletions
from perstack_stored.model.kinds import Kind
from perstack_stored.model.owners import Owner, owner_of
from perstack_stored.protocol.messages import Envelope, Reply
from perstack_stored.store.commit import Committer
from perstack_stored.store.cursor_requests import CursorChanges, CursorRequest
from perstack_stored.store.plan import Group, Plan
from perstack_stored.store.requests import StoreRequest

from .fences import LogFences
from .message import CURSOR, REFUSED, LoggedItems, LoggedRequest, Message
from .stream import LoggedMessage

_DELETION = int(Kind.DELETION)
_NO_OWNER: Owner = ("", "")
_NOBODY: Envelope = (0, False)
_new_tuple = tuple.__new__  # a named tuple in half of the time

Own = Mapping[int, StoreRequest | CursorRequest]
"""Requests of this daemon's clients that wait for an answer, by their index in a message."""


class Applied(NamedTuple):
    """What became of the requests of this daemon's clients.

    Attributes:
        replies: answers, to be sent once the journal is synced.
        gaps: indices of requests before whose numbers others are missing; with the answer to each.
    """

    replies: list[Reply]
    gaps: dict[int, Refusal]


class LogCommitter(Committer):
    """Writes what counts of each message to the journal."""

    def __init__(self, journal: JournalWriter, sessions: ReplicatedSessions) -> None:
        super().__init__(journal, sessions)
        assert isinstance(journal.clock, LogClock)
        self._clock = journal.clock
        self._replicated = sessions
        self._check_value = _is_checked
        self._plans_many = True
        self.fences = self._log_fences = LogFences(journal, sessions.writers)

    def watch(self, jobs: Iterable[str]) -> int:
        """Return the position of the last record so far; what comes later, the log judges."""
        del jobs
        return self.journal.written.position

    def is_quiet(self, job: str) -> bool:
        """Return True: what came meanwhile is judged when the deletion is applied."""
        del job
        return True

    @property
    def place(self) -> LogPlace:
        """What is applied."""
        return self._sessions.log

    def apply(self, logged: LoggedMessage, message: Message, own: Own) -> Applied:
        """Apply the next message of the log. It is not synced yet.

        Args:
            logged: where it stands in the log, and when it came.
            message: its contents.
            own: those of its requests that this daemon answers.

        Raises:
            StorageFullError: there is no room; nothing was written or changed; the caller applies it again.
            StreamFailedError: it can't be judged here; nothing was written or changed.
            JournalFailedError: the process must end.
        """
        self._clock.follow(logged.time_ms)
        now_ms = self._clock.now_ms()
        self.guards.expire(now_ms)
        appends: list[Append] = []
        cursors = CursorChanges(self._sessions.cursors, now_ms)
        self._planned = self.journal.written.position
        if any(request.expect is not None for request in message.requests):
            self._log_fences.begin_at(self._planned)
        plans, applied = self._plan_all(message, own, appends, cursors)
        refused = self._refused_numbers([plan for _, plan in plans], appends)
        place = self._place_after(logged.sequence, message.crc, self._position_after(appends))
        try:
            firsts = self.journal.write(appends, cursors.encoded(), log_place.encode(place, refused))
        except StorageFullError:
            self._take_back([plan for _, plan in plans])
            self._replicated.applied()
            raise
        cursors.written()
        self.guards.written()
        self._log_fences.written()
        for append, first in zip(appends, firsts, strict=True):
            self._replicated.stored_at(append.session, append.seq, first, len(append.records), now_ms)
            if isinstance(append.records, RecordBlock):
                self.stored.update(append.records.kinds)
            else:
                self.stored.update([kind for kind, _, _ in append.records])
        for session, through in refused:
            self._replicated.refused_upto(session, through, now_ms)
        self._sessions.log = place
        self._replicated.applied()
        for i, plan in plans:
            if i in own:
                answer = self.answers.to(self._as_written(plan), firsts)
                applied.replies.append((plan.request.envelope, answer))
        return applied

    def _as_written(self, plan: Plan) -> Plan:
        """A plan whose session has the positions of this message: a new one was judged apart."""
        key = plan.request.key
        assert key is not None
        written = self._sessions.find(key)
        return plan if written is None else plan._replace(session=written)

    def _plan_all(
        self, message: Message, own: Own, appends: list[Append], cursors: CursorChanges
    ) -> tuple[list[tuple[int, Plan]], Applied]:
        """Judge the requests of a message in their order."""
        plans: list[tuple[int, Plan]] = []
        replies: list[Reply] = []
        gaps: dict[int, Refusal] = {}
        now_ms = self._clock.now_ms()
        for i, request in enumerate(message.requests):
            mine = own.get(i)
            try:
                if not _is_plain(request.items) and request.items and request.items[0][0] == CURSOR:
                    answer = cursors.plan(_cursor(request, mine))
                    if mine is not None:
                        replies.append((mine.envelope, answer))
                        self.answers.counter.note(mine.op)
                else:
                    plans.append((i, self._plan(_request(request, mine), appends, now_ms, 0.0)))
            except Refusal as refusal:
                if mine is None:
                    continue
                if refusal.code is ErrorCode.SEQUENCE_GAP:
                    gaps[i] = refusal.alone()
                else:
                    replies.append((mine.envelope, self.answers.refuse(mine.id, refusal, mine.op)))
        return plans, Applied(replies, gaps)

    def _place_after(self, sequence: int, crc: int, position: int) -> LogPlace:
        before = self._sessions.log
        digest = hashlib.blake2b(before.digest, digest_size=DIGEST_BYTES)
        for number in (sequence, crc, position):
            digest.update(number.to_bytes(8, "little"))
        fenced = before.fenced
        if not fenced and self.fences.active:
            fenced = before.position + 1
        return LogPlace(before.stream, sequence, position, digest.digest(), fenced)

    @staticmethod
    def _refused_numbers(plans: list[Plan], appends: list[Append]) -> list[Numbers]:
        """Sessions whose last numbers, as of these plans, get no record: the journal has to say so."""
        written: dict[bytes, int] = {}
        for append in appends:
            written[append.session] = append.seq + len(append.records) - 1
        found: dict[bytes, int] = {}
        for plan in plans:
            session, key = plan.session, plan.request.key
            assert session is not None
            assert key is not None
            if session.last > max(session.written, written.get(key, 0)):
                found[key] = session.last
        return [Numbers(key, last) for key, last in found.items()]

    def _is_plain(self, request: StoreRequest) -> bool:
        """Whether each item is stored without another look at it."""
        return not request.refusals and not self.guards and not self._quiet and _is_plain(request.items)

    def _plan_whole(
        self, request: StoreRequest, appends: list[Append], session: Session | None, last_before: int
    ) -> Plan:
        """Plan a request of new records only: the daemon that published the values has checked them."""
        items: Any = request.items
        assert request.key is not None
        flags = ATOMIC if request.atomic else 0
        groups = [_new_tuple(Group, (len(appends), 0))]
        appends.append(_new_tuple(Append, (request.key, request.seq, items.block, flags, 0)))
        return _new_tuple(Plan, (request, session, last_before, 0, {}, groups))

    def _begun(self, request: StoreRequest, appends: Sequence[Append]) -> int:
        """As the journal tells it after a restart: by a record with the number 1."""
        is_refused = 0 in (request.refusals or {}) or (request.atomic and request.refusals)
        return 0 if is_refused else super()._begun(request, appends)

    def _check(self, request: StoreRequest, i: int, begun: int) -> Owner:
        kind, payload = request.items[i]
        if kind == REFUSED:
            known = request.refusals or {}
            raise known.get(i) or Refusal(ErrorCode.BAD_VALUE, "refused before it came into the log")
        if kind == _DELETION:
            deletion = deletions.decode(payload)
            owner = deletion.jobId, deletion.runId or ""
            if deletion.is_redaction and self.guards:
                self._check_owner(*owner, begun)
            return owner
        if not self.guards and not self.fences.active:
            return _NO_OWNER
        owner = owner_of(kind, payload)
        if self.guards:
            self._check_owner(*owner, begun)
        return owner


def _is_plain(items: Sequence[tuple[int, object]]) -> bool:
    return isinstance(items, LoggedItems) and items.is_plain


def _request(logged: LoggedRequest, mine: StoreRequest | CursorRequest | None) -> StoreRequest:
    """A request as the committer takes it."""
    # The payloads are views of the message, which lives until the batch is written.
    items: Any = logged.items
    refused = {}
    if not _is_plain(items):
        refused = {i: _REFUSED for i, (kind, _) in enumerate(items) if kind == REFUSED}
    if isinstance(mine, StoreRequest):
        return mine._replace(
            key=logged.session,
            seq=logged.seq,
            settled=logged.settled,
            items=items,
            expect=logged.expect,
            refusals={**refused, **(mine.refusals or {})},
        )
    return StoreRequest(
        _NOBODY,
        0,
        logged.session,
        logged.seq,
        logged.settled,
        items,
        is_batch=True,
        size=0,
        op="store",
        atomic=logged.atomic,
        refusals=refused,
        expect=logged.expect,
    )


def _cursor(logged: LoggedRequest, mine: StoreRequest | CursorRequest | None) -> CursorRequest:
    if isinstance(mine, CursorRequest):
        return mine
    facts = msgspec.json.decode(logged.items[0][1])
    return CursorRequest(_NOBODY, 0, "setCursor", facts["name"], facts["position"], facts["force"])


def _is_checked(_kind: int, _payload: object) -> None:
    """Check nothing: the daemon that published a value has."""


_REFUSED = Refusal(ErrorCode.BAD_VALUE, "refused before it came into the log")
