"""The stores of one session that have no final answer yet: numbers, batches, window, and what is sent again.

No sockets and no clocks: the time comes in as `now`, in seconds of a steady clock.
"""

import math
from collections import deque
from collections.abc import Callable
from typing import Any

from perstack_storage._core import frames
from perstack_storage._core.batch import Batch, Outcome, Sink, Store
from perstack_storage._core.conditions import AllOrNone, Condition, Conditional
from perstack_storage._core.errors import ProtocolError
from perstack_storage._core.patience import Patience

BATCH_ITEMS_MAX = 64
BATCH_BYTES_MAX = 262_144
"""Above this a batch is full: larger frames gain nothing and delay the first answer."""
BATCH_AGE_MAX_S = 0.1
"""A batch takes none that is called for later than so long after its first: batches are given up whole."""
PART_BYTES_MAX = 4_194_304
PARTS_IN_FLIGHT_MAX = 2


class StoreQueue:
    """The state machine of a session's stores (go-back-N).

    `_unanswered` holds all batches in order, `_waiting` those that have to be sent (again). Any retryable
    error, and silence, end with all of them sent again.
    """

    def __init__(self, session: str, limits: frames.Limits) -> None:
        self._session = session
        self._limits = limits
        self._unanswered: deque[Batch] = deque()
        self._waiting: deque[Batch] = deque()
        self.under_way: dict[int, Batch] = {}  # by the ids of requests that have no answer
        self._open: Batch | None = None
        self._next_seq = 1
        self._resend_at: float | None = None
        self._patience = Patience()
        self.progress_at = 0.0
        self.finished = 0  # number of stores that were settled or given up
        self.records = 0
        self.bytes = 0

    def has_room(self, size: int, records_max: float) -> bool:
        """Whether one more value of `size` bytes stays within the window, or nothing is unanswered at all."""
        limits = self._limits
        return not self.records or (
            self.records < records_max
            and self.records < limits.window_records
            and self.bytes + size <= limits.window_bytes
        )

    def append(self, store: Store, sink: Sink | None, now: float) -> Batch:
        """Appends a store, to the batch that still takes some or to a new one; returns the batch."""
        body = store[1]
        size = len(body)
        condition = body.condition if isinstance(body, Conditional) else None
        batch = self._open
        if (
            batch is None
            or batch.sink is not sink
            or batch.condition is not condition
            or batch.size + size > BATCH_BYTES_MAX
            or now - batch.added_at > BATCH_AGE_MAX_S
        ):
            batch = self._start_batch(size, sink, now, condition)
        batch.stores.append(store)  # from here on it is in the queue, at whatever step an exception comes
        batch.size += size
        numbers = 1 if condition is None else 1 + condition.extra
        self._next_seq += numbers
        self.records += numbers
        self.bytes += size
        if len(batch.stores) >= BATCH_ITEMS_MAX or len(batch.stores) >= self._limits.batch_items:
            self._open = None
        return batch

    def append_alone(self, store: Store, now: float) -> Batch:
        """Appends a store that a call waits for, in a batch of its own; returns the batch."""
        body = store[1]
        size = len(body)
        condition = body.condition if isinstance(body, Conditional) else None
        self._open = None
        batch = Batch(self._next_seq, None, now, condition)
        batch.stores.append(store)  # first: from the next line on it is in the queue, whatever comes
        self._unanswered.append(batch)
        self._waiting.append(batch)
        if size > self._limits.frame_bytes - frames.HEADER_RESERVE_BYTES and type(condition) is not AllOrNone:
            batch.parts = -(-size // self._part_bytes)
        batch.size = size
        numbers = 1 if condition is None else 1 + condition.extra
        self._next_seq += numbers
        self.records += numbers
        self.bytes += size
        return batch

    def _start_batch(self, size: int, sink: Sink | None, now: float, condition: Condition | None) -> Batch:
        batch = Batch(self._next_seq, sink, now, condition)
        self._unanswered.append(batch)
        self._waiting.append(batch)
        self._open = batch if size < BATCH_BYTES_MAX else None
        if type(condition) is AllOrNone:
            self._open = None  # it has all its values, and can't come in parts
        elif size > self._limits.frame_bytes - frames.HEADER_RESERVE_BYTES:
            batch.parts = -(-size // self._part_bytes)
        return batch

    @property
    def _part_bytes(self) -> int:
        return min(PART_BYTES_MAX, self._limits.frame_bytes - frames.HEADER_RESERVE_BYTES)

    @property
    def next_seq(self) -> int:
        """Number of the next store."""
        return self._next_seq

    def pass_numbers(self, numbers: int) -> None:
        """Counts a store that was given up before it came into the queue. Nothing else is unanswered then."""
        self._next_seq += numbers
        self.finished += numbers

    def seal(self) -> None:
        """Makes the batch that still takes some ready to be sent as it is."""
        self._open = None

    @property
    def oldest_at(self) -> float:
        """When the first store without a final outcome was called for; infinity if there is none."""
        return self._unanswered[0].added_at if self._unanswered else math.inf

    def abandon(self, through: float = math.inf) -> list[Batch]:
        """Gives up what was called for up to the time `through`: its numbers count as settled from now on.

        To be followed by a new connection: what comes after is sent again there.

        Returns:
            The batches given up. Where the first one was last answered with a retryable error, all have it.
        """
        gone: list[Batch] = []
        waiting = self._unanswered
        error = waiting[0].error if waiting else None
        while waiting and waiting[0].added_at <= through:
            batch = waiting[0]
            batch.error = error
            if batch.sink is not None:  # before it is taken off: an exception here loses no outcome
                batch.sink.abandoned(batch)
            self._take_off()
            gone.append(batch)
        if self._open in gone:
            self._open = None
        self.resend_all()
        return gone

    def _take_off(self) -> None:
        batch = self._unanswered.popleft()
        numbers = batch.numbers
        self.records -= numbers - batch.taken
        self.bytes -= batch.size
        self.finished += numbers

    @property
    def settled(self) -> int:
        """Every number up to this one has its final answer, or was given up."""
        return self._unanswered[0].first - 1 if self._unanswered else self._next_seq - 1

    @property
    def has_full_batch(self) -> bool:
        """Whether there is one to be sent that takes no more."""
        return bool(self._waiting) and self._waiting[0] is not self._open

    @property
    def has_waiting(self) -> bool:
        """Whether there is one to be sent, now or later."""
        return bool(self._waiting)

    @property
    def worth_sending(self) -> bool:
        """Whether there is a full batch, or nothing under way, so that any batch should go."""
        return bool(self._waiting) and (self._waiting[0] is not self._open or not self.under_way)

    def next_batch(self, now: float) -> Batch | None:
        """Returns the batch whose frame (or next part) may be sent now."""
        if self._resend_at is not None:
            if now < self._resend_at:
                return None
            self.resend_all()
        if not self._waiting:
            return None
        batch, under_way = self._waiting[0], len(self.under_way)
        if batch.condition is not None and not self._can_send(batch, batch.condition, now):
            return self.next_batch(now) if self._limits.known else None
        if batch is self._open and under_way:
            return None  # it gathers more until the answer comes: a frame costs far more than a store in it
        if batch.parts > 1 and under_way >= PARTS_IN_FLIGHT_MAX:
            return None
        return batch

    def _can_send(self, batch: Batch, condition: Condition, now: float) -> bool:
        """Whether stores with a condition may be sent; refuses them where the daemon can't keep it."""
        if not self._limits.known:
            return False  # `hello` tells
        problem = condition.problem(batch.size, self._limits)
        if problem is None:
            return True
        if batch is self._open:
            self._open = None
        self._waiting.popleft()
        batch.take([problem] * len(batch.pending))
        if batch is self._unanswered[0]:
            self._pop_settled(now)
        return False

    def frame(self, batch: Batch, request_id: int) -> bytes:
        """Returns the bytes of a batch, or of its next part."""
        number, pending = (self._session, batch.first, self.settled), batch.pending
        op, body, _ = pending[0]
        conditions = "" if batch.condition is None else batch.condition.header()
        if batch.parts > 1:
            part, value = (batch.next_part, self._part_bytes), memoryview(body)
            return frames.part_request(op, request_id, number, part, value, conditions)
        if len(pending) == 1:
            return frames.store_request(op, request_id, number, body, conditions)
        return frames.batch_request(request_id, number, pending, conditions)

    def sent(self, batch: Batch, request_id: int, now: float) -> None:
        """Notes that the socket took the frame of a batch, or of its next part."""
        self.under_way[request_id] = batch
        batch.sent_at = now
        batch.sent_ever = True
        batch.error = None
        batch.next_part += 1
        if batch.next_part >= batch.parts:
            self._waiting.popleft()
        if batch is self._open:
            self._open = None

    def resend_all(self) -> None:
        """Everything unanswered waits to be sent again, in a new transmission."""
        # Answers to what was sent so far name ids that nobody knows any more: they are ignored.
        self.under_way.clear()
        self._resend_at = None
        self._waiting = deque(batch for batch in self._unanswered if not batch.done)
        for batch in self._waiting:
            batch.next_part = 0

    def answered(self, request_id: int, answer: frames.Answer, now: float) -> bool:
        """Takes an answer; returns whether it was to a store of the current transmission."""
        batch = self.under_way.pop(request_id, None)
        if batch is None:
            return False
        header = answer.header
        if header["ok"] and "part" in header and batch.parts > 1:
            batch.sent_at = self.progress_at = now
            return True
        size, count, taken = batch.size, len(batch.pending), batch.outcomes
        position = header.get("position")
        if type(position) is int and header["ok"] and header.get("count", 1) == batch.numbers - len(taken):
            batch.outcomes = (
                [*taken, *range(position, position + count)] if count > 1 or taken else [position]
            )
            batch.done = True
            error = None
        else:
            error = batch.take(self._results(batch, answer))
        if batch.parts > 1:
            self._drop_parts(batch)
        if error is not None:
            self.bytes -= size - batch.size
            batch.taken = len(batch.outcomes)
            self.records -= count - len(batch.pending)
            self._retry(batch, error, now)
        else:
            if batch.condition is not None:
                batch.condition.take(batch.outcomes)
            if batch is self._unanswered[0]:
                self._pop_settled(now)
        return True

    def _results(self, batch: Batch, answer: frames.Answer) -> list[Outcome]:
        header, count = answer.header, len(batch.pending)
        if not header["ok"]:
            return [answer.error or {}] * count
        results = header.get("results")
        if type(results) is not list or len(results) != count or not all(map(_is_outcome, results)):
            shown = frames.shortened(header)
            raise ProtocolError(f"an answer that does not fit a batch of {count} stores: {shown}")
        return results

    def _retry(self, batch: Batch, error: dict[str, Any], now: float) -> None:
        batch.error = error
        if self._resend_at is None:  # the first one of a transmission; the others follow from it
            self._resend_at = now + self._patience.retry_s(error)

    def _pop_settled(self, now: float) -> None:
        waiting = self._unanswered
        while waiting and waiting[0].done:
            batch = waiting[0]
            if batch.sink is not None:  # before it is taken off: an exception here loses no outcome
                batch.sink.settled(batch)
            self._take_off()
        self.progress_at = now
        if self._patience.is_tried:
            self._patience = Patience()

    def _drop_parts(self, batch: Batch) -> None:
        """Leaves off with a value that has its answer: those to its other parts mean nothing."""
        if self._waiting and self._waiting[0] is batch:
            self._waiting.popleft()
        for request_id in [key for key, other in self.under_way.items() if other is batch]:
            del self.under_way[request_id]

    def successor(
        self, limits: frames.Limits, sink_of: Callable[[Sink | None], Sink | None], *, keep_unheard: bool
    ) -> "StoreQueue":
        """Returns this queue rebuilt from what an interruption leaves right.

        This one is only read: a call that was interrupted may go on with it.

        Args:
            limits: of the new queue.
            sink_of: returns the sink to use in the place of another one.
            keep_unheard: a call is still there that waits for the stores that have no sink. Otherwise those
                at the head are given up.
        """
        new = StoreQueue(self._session, limits)
        new._next_seq = self._next_seq
        new.progress_at, new.finished = self.progress_at, self.finished
        for batch in list(self._unanswered):
            stores = list(batch.stores)
            new._next_seq = max(new._next_seq, batch.start + batch.numbers)
            outcomes = batch.outcomes
            heard = keep_unheard or batch.sink is not None or new._unanswered
            if not stores or not (heard or len(outcomes) >= len(stores)):
                continue
            same = Batch(batch.start, sink_of(batch.sink), batch.added_at, batch.condition)
            same.stores, same.outcomes = stores, outcomes
            same.done = len(outcomes) >= len(stores)
            same.sent_ever, same.error = batch.sent_ever, batch.error
            same.size = sum(len(store[1]) for store in same.pending)
            too_large = same.size > limits.frame_bytes - frames.HEADER_RESERVE_BYTES
            if too_large and type(same.condition) is not AllOrNone:
                same.parts = -(-same.size // new._part_bytes)
            same.taken = 0 if same.done else len(outcomes)
            new.records += same.numbers - same.taken
            new.bytes += same.size
            new._unanswered.append(same)
            batch.successor = same
        new.resend_all()
        return new

    def settle(self, now: float) -> None:
        """Takes off what stands at the head with its outcomes; for a rebuilt queue."""
        if self._unanswered and self._unanswered[0].done:
            self._pop_settled(now)

    @property
    def last(self) -> Store | None:
        """The store that was appended last, if it has no final outcome."""
        return self._unanswered[-1].stores[-1] if self._unanswered else None

    def stores(self) -> list[Store]:
        """All stores of which no outcome was given out, in order."""
        return [store for batch in self._unanswered for store in batch.stores]

    def due(self) -> float:
        """Returns when something has to be done although nothing came in."""
        if self._resend_at is not None:
            return self._resend_at
        if not self.under_way:
            return math.inf
        return max(self._unanswered[0].sent_at, self.progress_at) + self._patience.answer_s

    def silent(self, now: float) -> bool:
        """Whether an answer is overdue; if so, the next one is waited for twice as long."""
        if self._resend_at is not None or now < self.due():
            return False
        self._patience.missed()
        return True


def _is_outcome(result: object) -> bool:
    return type(result) is int or type(result) is dict
