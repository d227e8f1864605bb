"""What the connection of a thread consists of at a time: a wire, the stores of a session, and how to wait."""

import concurrent.futures
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from perstack_storage._core.batch import Batch, Sink, Store
from perstack_storage._core.errors import ClosedError, refused
from perstack_storage._core.protocol import ClientProtocol
from perstack_storage._core.reads import Read
from perstack_storage._core.stores import BATCH_BYTES_MAX
from perstack_storage._sync.delivery import ThreadOutstanding
from perstack_storage._sync.watch import Watch
from perstack_storage._wire.readiness import READABLE, WRITABLE
from perstack_storage._wire.target import Target
from perstack_storage._wire.transport import Transport
from perstack_storage._wire.wire import Wire
from perstack_storage._wire.zmtp import WAIT_SLICE_S

if TYPE_CHECKING:
    import zmq

DRAIN_EVERY_ITEMS = 64
DRAIN_EVERY_S = 0.001


class Superseded(Exception):  # noqa: N818 - no fault of anybody
    """The state that a call was in was replaced by a signal handler's call: begin again with the new one."""


class Common:
    """What all cores of a connection share.

    Attributes:
        watch: the clock.
        late: stores that signal handlers called for in the middle of a call.
        last: the future of the store that was queued last.
    """

    def __init__(self, timeout_s: float) -> None:
        self.watch = Watch(timeout_s)
        self.late: dict[int, Store] = {}
        self.last: concurrent.futures.Future[int] | None = None


class Core(Transport):
    """The state of a connection and what a call does with it; `Connection` sees that one at a time does.

    An exception in the middle of a call may leave it `torn`. Then it is not used again: `successor` makes
    another one from the facts that no interruption can spoil (the stores without an outcome, their numbers
    and outcomes), without a change in this one. A call that a signal handler interrupted may still be in here
    when the handler's own calls have a successor made; what it does here then has no effect.

    Attributes:
        stores: the queue of the session.
        waiting: what the window has no room for.
        torn: a call is in here, or has left by an exception.
        superseded: there is a successor.
        taken_over: the stores that the successor got.
    """

    def __init__(self, context: "Callable[[], zmq.SyncContext]", target: Target, common: Common) -> None:
        super().__init__(target)
        self._get_context = context
        self.common, self.watch, self.late = common, common.watch, common.late
        self._undrained_items = 0
        self._drained_at = 0.0
        self._looked_for = 0.0
        self._use(self._protocol)
        self.outstanding: ThreadOutstanding
        self.torn = False
        self.superseded = False
        self.taken_over: list[Store] = []

    def _use(self, protocol: ClientProtocol) -> None:
        self._protocol = protocol
        self._stores = self.stores = protocol.stores
        self.waiting = protocol.backlog.waiting

    # --- after an interruption -----------------------------------------------------------------------

    def successor(self, renewed: Callable[[], ThreadOutstanding], *, interrupted: bool) -> "Core":
        """Returns a core that goes on where this one was interrupted, on a new connection.

        Args:
            renewed: returns the sink of what is outstanding, without a count.
            interrupted: a call is still in here, and will go on.
        """
        new = Core(self._get_context, self._target, self.common)
        outstanding = new.outstanding = renewed()
        old = self.outstanding
        new._given_up = self._given_up
        new._rotation = self._rotation

        def sink_of(sink: Sink) -> Sink:
            return outstanding if sink is old else sink

        protocol = self._protocol.successor(sink_of, keep_unheard=interrupted)
        new._use(protocol)
        stores = protocol.unanswered()
        known = {id(store) for store in stores}
        for number in list(self.late):
            if id(self.late.get(number)) in known:
                self.late.pop(number, None)
        for store in stores:
            if store[2] is not None:
                outstanding.count_in(len(store[1]))
        self.taken_over = stores
        new.closed = self.closed
        return new

    def settle(self) -> None:
        """Gives out what a rebuilt core already has the outcomes of."""
        self._stores.settle(self.watch.now())

    def handed_over(self, store: Store) -> bool:
        """Whether the successor got a store from this one."""
        return any(store is other for other in self.taken_over)

    def retire(self, *, interrupted: bool) -> None:
        """There is a successor: ends the connection. The call that is still in here will close it."""
        wire = self._wire
        if wire is None:
            return
        if interrupted:
            wire.interrupt()
        else:
            self._wire = None
            wire.close()

    # --- calls ---------------------------------------------------------------------------------------

    def queue(self, store: Store, now: float) -> Batch:
        """Queues a store that this call waits for."""
        return self._stores.append_alone(store, now)

    def queue_nowait(self, store: Store) -> None:
        """Queues a store that has a future."""
        now = self.watch.now()
        self._append(store, now)
        self.push(now)

    def _append(self, store: Store, now: float) -> None:
        self._protocol.backlog.append(store, self.outstanding, now)
        self.common.last = store[2]
        self.outstanding.count_in(len(store[1]))

    def add_read(self, read: Read) -> None:
        """Takes a request that this call waits for."""
        self._protocol.reads.append(read)

    def drop_reads(self) -> None:
        """Forgets the requests: they were answered."""
        self._protocol.reads.clear()

    def finish_some(self) -> None:
        """Waits until no longer as much is outstanding as may be."""
        self.wait_while(lambda: self.outstanding.full)

    def finish_stores(self) -> None:
        """Waits until every store queued so far has its final outcome."""
        self._stores.seal()
        self.wait_while(lambda: self._stores.records > 0 or bool(self._protocol.backlog))

    def finish_outstanding(self, deadline: float) -> None:
        """Waits until what is outstanding has its outcomes, which `step` gives up itself, or until a time."""
        watch = self.watch
        while (self.outstanding.count or self.late) and (now := watch.now()) < deadline:
            self.give_up_overdue(now)
            self.step(min(deadline, now + WAIT_SLICE_S), now, gives_up=False)

    def finish_earlier(self, deadline: float) -> float:
        """Waits until what was called for so far has its outcomes, which `step` gives up itself.

        Its refusals and errors go where they belong, not to the read that waits here.

        Returns:
            The deadline of the read: `deadline`, or later where stores were answered meanwhile.
        """
        if self.late:
            self._take_late()
        stores, watch, after = self._stores, self.watch, self._protocol.called
        if stores.settled >= after:
            return deadline
        stores.seal()
        while stores.settled < after and (now := watch.now()) < deadline:
            self.give_up_overdue(now)
            self.step(min(deadline, now + WAIT_SLICE_S), now, gives_up=False)
            deadline = max(deadline, stores.progress_at + self._timeout_s)
        return deadline

    def make_room(self, size: int, records_max: float, deadline: float | None) -> None:
        """Waits until the window has room for a store."""
        stores, limits, backlog = self._stores, self._protocol.limits, self._protocol.backlog
        if size > BATCH_BYTES_MAX:  # whether it must travel in parts depends on what the daemon grants
            self.wait_while(lambda: not limits.known, deadline)
        if backlog or not stores.has_room(size, records_max):
            stores.seal()  # nothing joins it before something is answered
            self.wait_while(lambda: bool(backlog) or not stores.has_room(size, records_max), deadline)

    def wait_while(self, pending: Callable[[], bool], deadline: float | None = None) -> None:
        """Without a deadline, gives up when no store has been answered for `timeout_s`."""
        start = self.watch.now()
        while pending():
            last = max(start, self._stores.progress_at)
            self.step(last + self._timeout_s if deadline is None else deadline, self.watch.now())

    def step(self, deadline: float, now: float, *, gives_up: bool = True) -> None:
        """Sends what may be sent, then waits until something arrives or has to be done.

        Args:
            deadline: when the call gives up.
            now: the time.
            gives_up: whether it gives up itself.
        """
        watch = self.watch
        self._send(now)
        if now >= deadline or self._given_up.hopeless:
            # What has arrived is taken before anything is given up.
            if self._looked_for != deadline:
                self._looked_for = deadline
                self._drain(now)
            elif gives_up:
                self._give_up()
            return
        due = self._due(now)
        wait_s = max(0.0, min(due - now, deadline - now, WAIT_SLICE_S))
        wire = self._wire
        if wire is None:
            time.sleep(wait_s)
            watch.now(wait_s)
        else:
            try:
                arrived = wire.wait(wait_s, self._blocked)
            except ConnectionAbortedError as error:
                if self.superseded:
                    raise Superseded from None
                raise ClosedError("the client was closed during the call") from error
            now = self._drained_at = watch.now(wait_s)
            if arrived:
                self._drain(now)
            elif self._protocol.silent(now):
                # What arrived in a standstill has to be taken before it is missed.
                received = self._received
                self._drain(now)
                if self._received == received:
                    self._move(now)
        if self.superseded:
            raise Superseded
        if self.closed:
            raise ClosedError("the client was closed during the call")

    def push(self, now: float, *, more_soon: bool = False) -> None:
        """Sends what is worth sending, and takes what has arrived every now and then.

        Args:
            now: the time.
            more_soon: the next store is about to come: a batch that is not full waits for it, but not long.
        """
        stores = self._stores
        gathers = more_soon and not (stores.under_way or stores.has_full_batch)
        if gathers and now - self._drained_at < DRAIN_EVERY_S:
            return
        self._undrained_items += 1
        if stores.worth_sending and not self._blocked:
            self._send(now)
        elif self._undrained_items >= DRAIN_EVERY_ITEMS or now - self._drained_at > DRAIN_EVERY_S:
            self._look_up(now)

    def leave_descriptor(self) -> None:
        """Takes what has arrived where the pump, which waits for the descriptor, might miss it."""
        if self.outstanding.count and not self.closed and self._has_work():
            self.look_up_all(self.watch.now())

    # --- without waiting -----------------------------------------------------------------------------

    def give_up_overdue(self, now: float) -> None:
        """Gives up the stores that no store was answered for `timeout_s` since; but looks first.

        Where no daemon can be there, gives up all.
        """
        if self.superseded:
            raise Superseded
        if self._given_up.hopeless or now >= self._protocol.gives_up_at(self._timeout_s):
            self.look_up_all(now)
            if self._given_up.hopeless:
                self._abandon_overdue(math.inf)
            elif now >= self._protocol.gives_up_at(self._timeout_s):
                self._abandon_overdue(now - self._timeout_s)

    def look_up_all(self, now: float) -> None:
        """Takes what has arrived and sends what may be sent, until nothing more has arrived.

        The descriptor can be waited for then.
        """
        self._look_up(now)
        while self._has_work():
            self._look_up(now)

    def awaited(self) -> tuple[int, int]:
        """Returns the descriptor, -1 for none, and its events that the pump has to wait for."""
        wire = self._wire
        if wire is None:
            return -1, 0
        return wire.fd, READABLE | WRITABLE if wire.unsent else READABLE

    def interrupt(self) -> None:
        """Ends a wait in another thread, after `closed` was set."""
        wire = self._wire
        if wire is not None:
            wire.interrupt()

    def end(self) -> None:
        """Closes the connection; what is unanswered is not sent again."""
        self._take_late()
        self._drop_wire()
        self._protocol.abandon()

    def _take_late(self) -> None:
        for number in list(self.late):
            store = self.late.get(number)
            if store is not None:
                self._append(store, self.watch.now())
                self.late.pop(number, None)  # only when queued: an interrupt loses none

    def _send(self, now: float) -> None:
        if self.late:
            self._take_late()
        Transport._send(self, now)

    def _look_up(self, now: float) -> None:
        self._undrained_items = 0
        self._drained_at = now
        received = self._received
        self._drain(now)
        if self._received == received and self._protocol.silent(now):
            self._move(now)
        self._send(now)

    def _context(self) -> "zmq.SyncContext":
        return self._get_context()

    def _connect(self, now: float) -> "Wire | None":
        if self.superseded:  # its numbers may be those of other stores by now
            raise Superseded
        return super()._connect(now)

    def _give_up(self) -> None:
        if self.superseded:
            raise Superseded
        if self._protocol.reads:
            read = self._protocol.reads[0]
            if read.error is not None:
                raise refused(read.error, op=read.op)
            self._note_trouble()
            raise self._given_up.unavailable()
        # With the socket goes what it has not delivered yet: a store given up must not arrive later.
        self._drop_wire()
        raise self._given_up.error_of(self._protocol.abandon())
