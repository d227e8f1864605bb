"""Answers to stores: positions, repeats (deduplication) and refusals, counted."""

from collections import Counter
from collections.abc import Callable

from perstack_storage.protocol import ErrorCode
from perstack_stored.errors import Refusal
from perstack_stored.journal.entry_format import NO_SESSION
from perstack_stored.journal.writer import JournalWriter
from perstack_stored.model.owners import Owner
from perstack_stored.observe.counters import RequestCounter
from perstack_stored.protocol import frames

from .fences import Fences
from .plan import Plan
from .requests import StoreRequest

# Errors that say nothing of a value. What is wrong with a value is named first: a retry has the same answer.
_OF_THE_STATE = {ErrorCode.CONFLICT: 1, ErrorCode.SEQUENCE_OLD: 2}

Check = Callable[[StoreRequest, int, int], Owner]
"""Checks an item of a request whose session began after a position. Raises Refusal."""


class Answers:
    """Makes and counts them.

    Attributes:
        repeated: count of stores that were seen before.
        refused: count of refusals by code.
        counter: requests and their latencies.
    """

    def __init__(self, journal: JournalWriter, fences: Fences, check: Check) -> None:
        self._journal = journal
        self._fences = fences
        self._check = check
        self.repeated = 0
        self.refused: Counter[str] = Counter()
        self.counter = RequestCounter()

    def refuse(self, id: int | None, refusal: Refusal, op: str) -> bytes:
        """Return the answer to a request that is refused as a whole, and count it."""
        self.refused[refusal.code] += 1
        self.counter.note(op, refusal.code.value)
        return frames.error_answer(id, refusal)

    def to(self, plan: Plan, firsts: list[int]) -> bytes:
        """The answer to a request of which all is written; `firsts` are positions by number of append."""
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
        if request.expect is None or not self._fences.active:
            return None
        return self._fences.conflict(
            request.expect, request.key or NO_SESSION, self._journal.written.position
        )
