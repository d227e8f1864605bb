"""The connection of one thread of the synchronous client: one call at a time, whatever interrupts it."""

import concurrent.futures
import itertools
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from perstack_storage._core.batch import Batch, Outcome, Sink, Store
from perstack_storage._core.conditions import refusal_of
from perstack_storage._core.errors import ClosedError, StorageError, TooMuchOutstanding
from perstack_storage._core.outstanding import NowaitSettings
from perstack_storage._core.reads import Read
from perstack_storage._core.stores import BATCH_BYTES_MAX
from perstack_storage._sync.core import Core, Superseded
from perstack_storage._sync.core_holder import CoreHolder
from perstack_storage._sync.future import StoreFuture
from perstack_storage._sync.pump import LOOK_EVERY_MS, Pump
from perstack_storage._wire.target import Target

if TYPE_CHECKING:
    import zmq

LATE_MAX = 10_000
BURST_S = 0.0002
"""A store of a pipeline that comes so soon after the last thing the connection did is one of many."""
_NO_MAX = float("inf")


class Connection(CoreHolder):
    """Stores and reads of one thread: one socket, one session. Errors are those of `Client`.

    From the first `submit_nowait` on a pump moves what is outstanding while the thread is elsewhere.
    """

    def __init__(
        self,
        context: "Callable[[], zmq.SyncContext]",
        target: Target,
        nowait: NowaitSettings,
    ) -> None:
        super().__init__(context, target, nowait)
        self._timeout_s = target.timeout_s
        self._late_numbers = itertools.count()
        self._pump = Pump(self)

    @property
    def outstanding(self) -> int:
        """Number of stores that nobody waits for and that have no outcome."""
        return self._core.outstanding.count + len(self._late)

    def now(self) -> float:
        """Returns a steady time in seconds."""
        return time.monotonic()

    def last_futures(self) -> list[concurrent.futures.Future[int]]:
        """Returns those that are done last: they are handed out in order."""
        queued = self._common.last
        late = [store[2] for store in list(self._late.values()) if store[2] is not None]
        return late if queued is None else [queued, *late]

    # --- calls ---------------------------------------------------------------------------------------

    def store(self, op: str, body: bytes) -> int:
        """Stores one value and waits; returns its position."""
        store: Store = (op, body, None)
        batch: Batch | None = None
        deadline = 0.0

        def work(core: Core, _nested: bool) -> Outcome:
            nonlocal batch, deadline
            now = self._watch.now()
            deadline = deadline or now + self._timeout_s
            if batch is not None:
                batch = batch.successor
            if batch is None:
                if core.stores.records or core.waiting or len(body) > BATCH_BYTES_MAX:
                    core.make_room(len(body), _NO_MAX, deadline)
                    now = self._watch.now()
                batch = core.queue(store, now)
            if not batch.done:
                core.step(deadline, now)
            while not batch.done:
                core.step(deadline, self._watch.now())
            return batch.outcomes[0]

        outcome = self._on_core(work)
        if isinstance(outcome, dict):
            raise refusal_of(op, body, outcome)
        return outcome

    def call(self, op: str, arguments: bytes = b"", wait_s: float = 0.0) -> Read:
        """Sends a request that stores nothing and waits; returns it with its complete answer.

        It begins when what this thread stored before has its outcomes, so that it sees that.

        Args:
            op: the operation.
            arguments: the body.
            wait_s: how long the daemon may put its answer off.
        """
        deadline = 0.0

        def work(core: Core, _nested: bool) -> Read:
            nonlocal deadline
            deadline = deadline or self._watch.now() + self._timeout_s + wait_s
            read = Read(op, arguments, deadline, wait_s=wait_s)
            if read.sees_stores:
                read.deadline = deadline = core.finish_earlier(deadline)
            core.add_read(read)
            while not read.done:
                core.step(deadline, self._watch.now())
            core.drop_reads()
            return read

        return self._on_core(work)

    def submit(self, op: str, body: bytes, sink: Sink, records_max: float) -> None:
        """Queues one value and sends what is worth sending; waits only while the window is used up."""
        store: Store = (op, body, None)
        before: Core | None = None
        while True:
            nested = self._enter()
            core = self._core
            try:
                if before is None or not before.handed_over(store):
                    stores, size, watch, now = core.stores, len(body), self._watch, time.monotonic()
                    since = now - watch.seen
                    if since > watch.standstill_s:
                        now = watch.now()
                    else:
                        watch.seen = now
                        now -= watch.lost_s
                    if size > BATCH_BYTES_MAX or not stores.has_room(size, records_max) or core.waiting:
                        core.make_room(size, records_max, None)
                    stores.append(store, sink, now)
                    core.push(now, more_soon=since < BURST_S)
                if core.outstanding.bytes and core._touched:
                    core.leave_descriptor()
                core.torn = False
                if not core.superseded:
                    return
            except Superseded:
                pass
            finally:
                self._leave(core, nested)
            before = core

    def submit_nowait(self, op: str, body: bytes) -> StoreFuture:
        """Queues one value whose outcome goes to a future; waits only while too much is outstanding."""
        if self.closed:
            raise ClosedError("the client is closed")
        future, pump = StoreFuture(), self._pump
        store: Store = (op, body, future)
        before: Core | None = None
        while True:
            nested = self._enter(may_wait=False)
            if nested:
                self._submit_late(store)
                return future
            core = self._core
            try:
                if before is None or not before.handed_over(store):
                    if core.outstanding.full:
                        core.finish_some()
                    if not pump.awake:  # first: it is moved even if an exception ends this call
                        pump.wake()
                    core.queue_nowait(store)
                if core._touched:
                    core.leave_descriptor()
                core.torn = False
                if not core.superseded:
                    return future
            except Superseded:
                pass
            finally:
                self._leave(core, nested)
            before = core

    def flush(self) -> None:
        """Waits until every store queued so far has its final outcome."""
        self._on_core(lambda core, _nested: core.finish_stores())

    def catch_up(self, timeout_s: float | None) -> None:
        """Sees that what is outstanding is moved: by the pump, or where this thread keeps it out, here."""
        if not self.outstanding and not self._collected and not self._core.torn:
            return
        deadline = _NO_MAX if timeout_s is None else self._watch.now() + timeout_s

        def work(core: Core, nested: bool) -> bool:
            self._pump.wake()
            if nested:
                core.finish_outstanding(deadline)
            return nested

        nested = self._on_core(work)
        if nested or self._delivery.is_mine():  # this thread was interrupted while it handed outcomes out
            self._delivery.hand_out(by_all_means=True)

    def handing_out(self) -> bool:
        """Whether this thread was interrupted while it handed outcomes out: the pump can't, then."""
        return self._delivery.is_mine()

    def announce_close(self) -> None:
        """Has calls under way end soon; `close` waits for them."""
        self.closed = self._given_up.closed = True
        self._core.closed = True

    def close(self) -> bool:
        """Closes the socket; what is unanswered is not sent again.

        Returns:
            Whether a call of this thread is still in the socket: a signal handler interrupted it.
        """
        self.announce_close()
        nested = self._turn.take(sys._getframe(), self._interrupt)
        try:
            if nested or self._core.torn:
                self._renew(interrupted=nested)
            core = self._core
            core.closed = True
            core.torn = True
            core.end()
            core.torn = False
        finally:
            if not nested:
                self._turn.give_back()
        self._pump.stop()
        self._delivery.hand_out(by_all_means=nested)
        return nested

    def __del__(self) -> None:
        """A thread that ended leaves its connection to this; a forked child must not touch it."""
        pump: Pump | None = getattr(self, "_pump", None)
        if pump is not None and os.getpid() == self._pid:
            pump.stop()
            self._core.release()

    # --- the pump ------------------------------------------------------------------------------------

    def tend(self) -> tuple[int, int] | None:
        """Does what is due for what is outstanding; called by the pump, in its thread.

        Returns:
            The descriptor, -1 for none, and its events to wait for; None if nothing is outstanding.
        """
        self._turn.take(sys._getframe())
        try:
            awaited = self._tend()
        finally:
            self._turn.give_back()
        self._delivery.hand_out()
        if awaited is None and self._collected and not self.closed:
            return -1, 0  # a call hands them out, or has left by an exception: look again
        return awaited

    def _tend(self) -> tuple[int, int] | None:
        if self._core.torn and not self.closed:
            self._renew(interrupted=False)
        core = self._core
        if not self.closed:
            core.torn = True
            try:
                now = self._watch.now(LOOK_EVERY_MS / 1000)
                core.give_up_overdue(now)
                core.look_up_all(now)
                core.torn = False
            except ClosedError:
                pass  # `close` does the rest
            except StorageError as error:
                core.outstanding.report(error)
        if self.closed or not self.outstanding:
            self._pump.rest()
            if self.closed or not self.outstanding:  # a signal handler's store may have come in between
                return None
            self._pump.wake()
        return core.awaited()

    def _submit_late(self, store: Store) -> None:
        if len(self._late) >= LATE_MAX:
            raise TooMuchOutstanding(f"{LATE_MAX} stores of signal handlers wait for the call below them")
        self._late[next(self._late_numbers)] = store
        self._pump.wake()
