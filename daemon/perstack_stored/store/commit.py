"""Commits stores: admission by session (deduplication), check, append with the batch, answer."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter

from perstack_storage.protocol import ErrorCode
from perstack_stored.errors import Refusal, StorageFullError
from perstack_stored.journal.deletion_guards import BEGINS_NOW, Guard
from perstack_stored.journal.entry_format import ATOMIC, NO_SESSION, Record
from perstack_stored.journal.session import NEW, Session
from perstack_stored.journal.sessions import Sessions
from perstack_stored.journal.writer import Append, JournalWriter
from perstack_stored.model import deletions, value_check, values
from perstack_stored.model.kinds import Kind
from perstack_stored.model.owners import Owner
from perstack_stored.protocol.messages import Reply

from .answers import Answers
from .cursor_requests import CursorChanges, CursorOwners, CursorRequest
from .fences import Fences
from .plan import Group, Plan
from .requests import Payload, StoreRequest

_DELETION = int(Kind.DELETION)
_KIND_OF = itemgetter(0)
_new_tuple = tuple.__new__  # a named tuple in half of the time


class Committer:
    """Commits batches of requests to the journal in their order.

    Attributes:
        deleted_to: position of the newest deletion or redaction, set before it is written; at the start,
            the journal's end.
    """

    def __init__(self, journal: JournalWriter, sessions: Sessions) -> None:
        self.journal = journal
        self._sessions = sessions
        self.guards = sessions.guards
        self.deleted_to = journal.mark.position
        self._quiet: set[str] = set()  # jobs that are watched, and of which nothing came since
        self.stored: Counter[int] = Counter()  # records by kind
        self.fences = Fences(journal)
        self.answers = Answers(journal, self.fences, self._check)
        self._check_value: Callable[[int, Payload], object] = value_check.check
        self._plans_many = False  # whether `_plan_whole` takes any number of items
        self._cursor_owners = CursorOwners()
        self._planned = 0  # while the fences are active: the position of the last record planned

    def commit(
        self, requests: Sequence[StoreRequest], cursor_requests: Sequence[CursorRequest] = ()
    ) -> list[Reply]:
        """Write stores and cursors; send the answers once the journal has synced what is written now.

        Raises:
            JournalFailedError: no store may be answered; the process must end.
        """
        replies: list[Reply] = []
        plans: list[Plan] = []
        appends: list[Append] = []
        now_ms, now = self.journal.clock.now_ms(), time.monotonic()
        if self.guards:
            self.guards.expire(self.journal.clock.aged_ms(now_ms))
        if self.fences.active:
            self._planned = self.journal.written.position
        for request in requests:
            try:
                plans.append(self._plan(request, appends, now_ms, now))
            except Refusal as refusal:
                replies.append((request.envelope, self.answers.refuse(request.id, refusal, request.op)))
        cursors = CursorChanges(self._sessions.cursors, now_ms, self._cursor_owners)
        done = self._plan_cursors(cursor_requests, cursors, replies)
        try:
            changes = cursors.encoded() if cursors.changes else b""
            firsts = self.journal.write(appends, changes) if appends or changes else []
        except StorageFullError as error:
            full = Refusal(ErrorCode.STORAGE_FULL, str(error))
            replies += [(one.envelope, self.answers.refuse(one.id, full, one.op)) for one, _ in done]
            return replies + self._undo(plans, str(error))
        if changes:
            cursors.written()
        self.guards.written()
        for one, answer in done:
            self.answers.counter.note(one.op)
            replies.append((one.envelope, answer))
        for (key, seq, records, _, _), first in zip(appends, firsts, strict=True):
            if seq:
                self._sessions.stored(key, seq, first, len(records))
            if len(records) == 1:
                self.stored[records[0].kind] += 1
            else:
                self.stored.update(map(_KIND_OF, records))
        replies.extend([(plan.request.envelope, self.answers.to(plan, firsts)) for plan in plans])
        return replies

    def _plan_cursors(
        self, requests: Sequence[CursorRequest], cursors: CursorChanges, replies: list[Reply]
    ) -> list[tuple[CursorRequest, bytes]]:
        """Plan the cursors of a batch; returns those that go, with their answers."""
        done = []
        for request in requests:
            try:
                done.append((request, cursors.plan(request)))
            except Refusal as refusal:
                replies.append((request.envelope, self.answers.refuse(request.id, refusal, request.op)))
        return done

    def _plan(self, request: StoreRequest, appends: list[Append], now_ms: int, now: float) -> Plan:
        if request.expect is not None:
            self.fences.prepare()
        session, last_before, repeats = self._admit(request, now_ms, now)
        items = request.items
        key = request.key or NO_SESSION
        begun = BEGINS_NOW
        if session is not None:
            if session.begun == NEW:
                session.begun = self._begun(request, appends)
            begun = session.begun
        noting = self.fences.active
        is_plain = self._is_plain(request) and not noting
        is_whole = not repeats and (self._plans_many or (len(items) == 1 and items[0][0] != _DELETION))
        if is_plain and is_whole:  # as most are
            return self._plan_whole(request, appends, session, last_before)
        refusals: dict[int, Refusal] = {}
        groups: list[Group] = []
        records: list[Record] = []
        owners: dict[int, Owner] = {}
        check = self._check_value
        for i in range(repeats, len(items)):
            kind, payload = items[i]
            try:
                if is_plain and kind != _DELETION:
                    check(kind, payload)
                else:
                    owners[i] = self._check(request, i, begun)
            except Refusal as refusal:
                refusals[i] = refusal.alone()
                if request.atomic:
                    del appends[len(appends) - len(groups) :], groups[:]
                    break
                records = []  # the numbers of an entry have no gap
                continue
            if not records:
                groups.append(Group(len(appends), i))
                flags = ATOMIC if request.atomic else 0
                appends.append(Append(key, request.seq + i if request.key else 0, records, flags))
            records.append(_new_tuple(Record, (kind, 0, payload)))
        plan = Plan(request, session, last_before, repeats, refusals, groups)
        if noting:
            self._fence(plan, appends, owners)
        if groups and items[0][0] == _DELETION:
            self._guard(items[0][1], self._position_after(appends), now_ms)
        return plan

    def _plan_whole(
        self, request: StoreRequest, appends: list[Append], session: Session | None, last_before: int
    ) -> Plan:
        """Plan a request with one new item, of which only the value needs a check."""
        kind, payload = request.items[0]
        refusals: dict[int, Refusal] = {}
        groups: list[Group] = []
        try:
            self._check_value(kind, payload)
        except Refusal as refusal:
            refusals[0] = refusal.alone()
        else:
            groups.append(_new_tuple(Group, (len(appends), 0)))
            key = request.key
            flags = ATOMIC if request.atomic else 0
            records = [_new_tuple(Record, (kind, 0, payload))]
            appends.append(
                _new_tuple(Append, (key or NO_SESSION, request.seq if key else 0, records, flags, 0))
            )
        return _new_tuple(Plan, (request, session, last_before, 0, refusals, groups))

    def _begun(self, request: StoreRequest, appends: Sequence[Append]) -> int:
        """The position after which a session begins whose first store this is.

        One that is not known, and does not begin with its first number, is an old one: 0.
        """
        return self._position_after(appends) if request.seq == 1 else 0

    def _is_plain(self, request: StoreRequest) -> bool:
        """Whether the check of a value says all, so that nobody needs to know its job."""
        return request.refusals is None and not self.guards and not self._quiet

    def _admit(self, request: StoreRequest, now_ms: int, now: float) -> tuple[Session | None, int, int]:
        """Take the numbers of a store; returns its session, the last number before, and its repeats."""
        if request.key is None:
            return None, 0, 0
        session = self._sessions.open(request.key, now_ms, request.client, now)
        last_before, count = session.last, len(request.items)
        try:
            repeats = session.admit(request.seq, count, request.settled)
            if request.atomic and 0 < repeats < count:
                session.last = last_before
                raise Refusal(
                    ErrorCode.BAD_REQUEST, "an atomic batch begins with numbers that were used", "seq"
                )
        except Refusal:
            self._sessions.forget_empty(request.key)
            raise
        return session, last_before, repeats

    def _fence(self, plan: Plan, appends: list[Append], owners: dict[int, Owner]) -> None:
        """Refuse what does not find what it expects; note who stores the rest."""
        request, groups = plan.request, plan.groups
        key = request.key or NO_SESSION
        if request.expect is not None and groups:
            conflict = self.fences.conflict(request.expect, key, self._planned)
            if conflict is not None:
                del appends[groups[0].append :], groups[:]
                new = range(plan.repeats, len(request.items))
                plan.refusals.update({i: conflict for i in new if i not in plan.refusals})
        for group in groups:
            end = group.first + len(appends[group.append].records)
            for i in range(group.first, end):
                self._planned += 1
                # Of stores of one run in a row, as most are, the last one tells all.
                if i + 1 == end or owners[i] != owners[i + 1]:
                    self.fences.note(owners[i], key, self._planned)

    def _check(self, request: StoreRequest, i: int, begun: int) -> Owner:
        """Check an item of a request whose session began after the position `begun`.

        Returns:
            its job and run.

        Raises:
            Refusal: BAD_JSON, BAD_VALUE or DELETED.
        """
        kind, payload = request.items[i]
        if kind == _DELETION:
            deletion = deletions.check(payload)
            deletions.check_operation(request.op, deletion)
            owner = deletion.jobId, deletion.runId or ""
            if deletion.is_redaction and (self.guards or self._quiet):
                self._check_owner(*owner, begun)
            return owner
        if request.refusals is None:
            value = value_check.check(kind, payload)
            owner = values.owner_of(value)
        elif i in request.refusals:
            raise request.refusals[i]
        else:
            owner = request.owners[i]
        if self.guards or self._quiet:
            self._check_owner(*owner, begun)
        return owner

    def _check_owner(self, job: str, run: str, begun: int) -> None:
        self._quiet.discard(job)
        self.guards.check(job, run, begun)

    def watch(self, jobs: Iterable[str]) -> int:
        """Watch these jobs from now on, and no others; returns the position of the last record so far."""
        self._quiet = set(jobs)
        return self.journal.written.position

    def is_quiet(self, job: str) -> bool:
        """Whether a job is watched, and no store to it has come since."""
        return job in self._quiet

    def delete(self, payload: Payload) -> int:
        """Write a deletion of the daemon's own; returns its position, which is not synced yet.

        Raises:
            StorageFullError: there is no room; nothing was written.
            JournalFailedError: the process must end.
        """
        now_ms = self.journal.clock.now_ms()
        (position,) = self.journal.write([Append(NO_SESSION, 0, [Record(_DELETION, 0, payload)])])
        self.deleted_to = position
        deletion = deletions.decode(payload)
        owner = deletion.jobId, deletion.runId or ""
        self.guards.put(owner, Guard(position, now_ms))
        if self.fences.active:
            self.fences.note(owner, NO_SESSION, position)
        self.stored[_DELETION] += 1
        return position

    def note_copied(self, appends: Sequence[Append], firsts: Sequence[int]) -> None:
        """Note the deletions among what was copied of another journal, with the positions of its entries."""
        for append, first in zip(appends, firsts, strict=True):
            for position, record in enumerate(append.records, first):
                if record.kind == _DELETION:
                    self.deleted_to = position

    def _position_after(self, appends: Sequence[Append]) -> int:
        """The position of the last record once these are written."""
        return self.journal.written.position + sum([len(append.records) for append in appends])

    def _guard(self, payload: Payload, position: int, now_ms: int) -> None:
        """Guard a deletion that gets this position."""
        self.deleted_to = position
        deletion = deletions.decode(payload)
        if deletion.is_redaction:
            return  # the run goes on
        key = (deletion.jobId, deletion.runId or "")
        self.guards.plan(key, Guard(position, now_ms))

    def _undo(self, plans: list[Plan], reason: str) -> list[Reply]:
        """Undo the admission of a batch that was not written."""
        self._take_back(plans)
        refusal = Refusal(ErrorCode.STORAGE_FULL, reason)
        return [
            (plan.request.envelope, self.answers.refuse(plan.request.id, refusal, plan.request.op))
            for plan in plans
        ]

    def _take_back(self, plans: list[Plan]) -> None:
        """Take back what was planned."""
        self.fences.forget()
        for plan in reversed(plans):
            if plan.session is not None:
                plan.session.last = plan.last_before
        self.guards.take_back()
