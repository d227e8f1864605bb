"""Commits stores: admission by session (deduplication), check, append with the batch, answer."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

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
from perstack_stored.observe.counters import RequestCounter
from perstack_stored.protocol import frames
from perstack_stored.protocol.messages import Reply

from .cursor_requests import CursorChanges, CursorOwners, CursorRequest
from .fences import Fences
from .requests import Payload, StoreRequest

_DELETION = int(Kind.DELETION)

# Errors that say nothing of a value. What is wrong with a value is named first: a retry has the same answer.
_OF_THE_STATE = {ErrorCode.CONFLICT: 1, ErrorCode.SEQUENCE_OLD: 2}


class _Group(NamedTuple):
    """Items of a request that became one entry: `first` and the following ones, in append number `append`."""

    append: int
    first: int


class Plan(NamedTuple):
    """A request that was admitted, and what becomes of its items."""

    request: StoreRequest
    session: Session | None
    last_before: int
    repeats: int  # items at the front that were seen before (deduplication)
    refusals: dict[int, Refusal]
    groups: list[_Group]


class Committer:
    """Commits batches of requests to the journal in their order."""

    def __init__(self, journal: JournalWriter, sessions: Sessions) -> None:
        self.journal = journal
        self._sessions = sessions
        self.guards = sessions.guards
        self._quiet: set[str] = set()  # jobs that are watched, and of which nothing came since
        self.stored: Counter[int] = Counter()  # records by kind
        self.repeated = 0
        self.refused: Counter[str] = Counter()  # by code
        self.counter = RequestCounter()
        self.fences = Fences(journal)
        self._check_value: Callable[[int, Payload], object] = value_check.check
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
        self.guards.expire(now_ms)
        self._planned = self.journal.written.position
        for request in requests:
            try:
                plans.append(self._plan(request, appends, now_ms, now))
            except Refusal as refusal:
                replies.append((request.envelope, self.refuse(request.id, refusal, request.op)))
        cursors = CursorChanges(self._sessions.cursors, now_ms, self._cursor_owners)
        done = self._plan_cursors(cursor_requests, cursors, replies)
        try:
            firsts = self.journal.write(appends, cursors.encoded()) if appends or cursors.changes else []
        except StorageFullError as error:
            full = Refusal(ErrorCode.STORAGE_FULL, str(error))
            replies += [(one.envelope, self.refuse(one.id, full, one.op)) for one, _ in done]
            return replies + self._undo(plans, str(error))
        cursors.written()
        self.guards.written()
        for one, answer in done:
            self.counter.note(one.op)
            replies.append((one.envelope, answer))
        for (key, seq, records, _, _), first in zip(appends, firsts, strict=True):
            if seq:
                self._sessions.stored(key, seq, first, len(records))
            for kind, _, _ in records:
                self.stored[kind] += 1
        replies.extend([(plan.request.envelope, self._answer(plan, firsts)) for plan in plans])
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
                replies.append((request.envelope, self.refuse(request.id, refusal, request.op)))
        return done

    def refuse(self, id: int | None, refusal: Refusal, op: str) -> bytes:
        """Return the answer to a request that is refused as a whole, and count it."""
        self.refused[refusal.code] += 1
        self.counter.note(op, refusal.code.value)
        return frames.error_answer(id, refusal)

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
        refusals: dict[int, Refusal] = {}
        groups: list[_Group] = []
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
                groups.append(_Group(len(appends), i))
                flags = ATOMIC if request.atomic else 0
                appends.append(Append(key, request.seq + i if request.key else 0, records, flags))
            records.append(Record(kind, 0, payload))
        plan = Plan(request, session, last_before, repeats, refusals, groups)
        if noting:
            self._fence(plan, appends, owners)
        if groups and items[0][0] == _DELETION:
            self._guard(items[0][1], self._position_after(appends), now_ms)
        return plan

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
        deletion = deletions.decode(payload)
        owner = deletion.jobId, deletion.runId or ""
        self.guards.put(owner, Guard(position, now_ms))
        if self.fences.active:
            self.fences.note(owner, NO_SESSION, position)
        self.stored[_DELETION] += 1
        return position

    def _position_after(self, appends: Sequence[Append]) -> int:
        """The position of the last record once these are written."""
        return self.journal.written.position + sum([len(append.records) for append in appends])

    def _guard(self, payload: Payload, position: int, now_ms: int) -> None:
        """Guard a deletion that gets this position."""
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
            (plan.request.envelope, self.refuse(plan.request.id, refusal, plan.request.op)) for plan in plans
        ]

    def _take_back(self, plans: list[Plan]) -> None:
        """Take back what was planned."""
        self.fences.forget()
        for plan in reversed(plans):
            if plan.session is not None:
                plan.session.last = plan.last_before
        self.guards.take_back()

    def _answer(self, plan: Plan, firsts: list[int]) -> bytes:
        request = plan.request
        if not plan.repeats and not plan.refusals:
            first = firsts[plan.groups[0].append]
            self.counter.note(request.op)
            if request.is_batch:
                return frames.batch_answer(request.id, first, len(request.items))
            return frames.stored_answer(request.id, first)
        if request.atomic:
            return self._atomic_answer(plan)
        results = self._results(plan, firsts)
        if request.is_batch:
            self.counter.note(frames.BATCH_OP)
            return frames.results_answer(
                request.id, [r.as_dict() if isinstance(r, Refusal) else r for r in results]
            )
        (result,) = results
        if isinstance(result, Refusal):
            self.counter.note(request.op, result.code.value)
            return frames.error_answer(request.id, result)
        self.counter.note(request.op)
        return frames.stored_answer(request.id, result)

    def _atomic_answer(self, plan: Plan) -> bytes:
        """Answer to an atomic batch that is refused, or was seen before: as a whole."""
        request, refusals = plan.request, plan.refusals
        if not refusals:
            results = [self._repeated(plan, i) for i in range(plan.repeats)]
            refusals = {i: result for i, result in enumerate(results) if isinstance(result, Refusal)}
            positions = [result for result in results if isinstance(result, int)]
            if not refusals:
                self.counter.note(request.op)
                if positions == list(range(positions[0], positions[0] + len(positions))):
                    return frames.batch_answer(request.id, positions[0], len(positions))
                return frames.results_answer(request.id, list(positions))
        # What was refused before is refused again for the same reason, if the values tell it.
        item = min(refusals, key=lambda i: (_OF_THE_STATE.get(refusals[i].code, 0), i))
        if refusals[item].code is not ErrorCode.CONFLICT:  # that is of the whole
            refusals[item].item = item
        return self.refuse(request.id, refusals[item], request.op)

    def _results(self, plan: Plan, firsts: list[int]) -> list[int | Refusal]:
        request = plan.request
        results: list[int | Refusal] = [self._repeated(plan, i) for i in range(plan.repeats)]
        results += [0] * (len(request.items) - plan.repeats)
        for i, refusal in plan.refusals.items():
            results[i] = refusal
        for group in plan.groups:
            i, position = group.first, firsts[group.append]
            while i < len(request.items) and i not in plan.refusals:
                results[i] = position
                i, position = i + 1, position + 1
        for result in results:
            if isinstance(result, Refusal):
                self.refused[result.code] += 1
        return results

    def _repeated(self, plan: Plan, i: int) -> int | Refusal:
        """Return the first position of a repeated store (deduplication), or why there is none."""
        assert plan.session is not None
        seq = plan.request.seq + i
        position = plan.session.position_of(seq)
        if position is not None:
            self.repeated += 1
            return position
        try:
            self._check(plan.request, i, plan.session.begun)
        except Refusal as refusal:
            return refusal.alone()
        conflict = self._conflict_again(plan.request) if seq > plan.session.forgotten else None
        return conflict or Refusal(
            ErrorCode.SEQUENCE_OLD, f"store number {seq} was settled, or is no longer remembered", "seq"
        )

    def _conflict_again(self, request: StoreRequest) -> Refusal | None:
        """Why a store that was refused before is refused again; what others stored later changes nothing."""
        if request.expect is None or not self.fences.active:
            return None
        return self.fences.conflict(request.expect, request.key or NO_SESSION, self.journal.written.position)
