"""The connection of one thread of the synchronous client: stores, reads, and how it waits for them."""

import math
import os
import select
import threading
import time
from collections.abc import Callable

import zmq

from perstack_storage._batch import Sink
from perstack_storage._errors import ClosedError, StorageError, refused
from perstack_storage._keys import CurveKeys
from perstack_storage._nowait import NowaitSettings, StoreFuture, ThreadOutstanding
from perstack_storage._pump import Pump
from perstack_storage._reads import Read
from perstack_storage._stores import BATCH_BYTES_MAX
from perstack_storage._transport import Transport

DRAIN_EVERY_ITEMS = 16
DRAIN_EVERY_S = 0.001


class Connection(Transport):
    """Stores and reads of one thread: one socket, one session. Errors are those of `Client`.

    Until the first `submit_nowait` no other thread and no lock is involved. From then on a pump moves what is
    outstanding while the thread is elsewhere, and `_pump.lock` guards everything but what is said otherwise.
    """

    def __init__(
        self,
        context: Callable[[], zmq.SyncContext],
        endpoint: str,
        base: str | None,
        timeout_s: float,
        nowait: NowaitSettings,
        keys: CurveKeys | None,
    ) -> None:
        super().__init__(endpoint, base, timeout_s, keys)
        self._get_context = context
        self._nowait = nowait
        self._thread = threading.get_ident()
        self._undrained_items = 0
        self._drained_at = 0.0
        self._pump: Pump | None = None
        self.outstanding: ThreadOutstanding | None = None
        self.busy = False  # read by `Client.close` in another thread

    def store(self, op: str, body: bytes) -> int:
        """Stores one value and waits; returns its position."""
        self._enter()
        try:
            now = time.monotonic()
            deadline = now + self._timeout_s
            self._make_room(len(body), math.inf, deadline)
            self._stores.seal()
            batch = self._stores.add(op, body, None, now)
            self._stores.seal()
            while not batch.done:
                self._step(deadline)
        finally:
            self._leave()
        outcome = batch.outcomes[0]
        if isinstance(outcome, dict):
            raise refused(outcome, op=op)
        return outcome

    def call(self, op: str, arguments: bytes = b"", wait_s: float = 0.0) -> Read:
        """Sends a request that stores nothing and waits; returns it with its complete answer.

        Args:
            op: the operation.
            arguments: the body.
            wait_s: how long the daemon may put its answer off.
        """
        self._enter()
        try:
            deadline = time.monotonic() + self._timeout_s + wait_s
            read = Read(op, arguments, deadline, wait_s=wait_s)
            self._protocol.reads.append(read)
            while not read.done:
                self._step(deadline)
        finally:
            self._protocol.reads.clear()
            self._leave()
        return read

    def submit(self, op: str, body: bytes, sink: Sink, records_max: float) -> None:
        """Queues one value and sends what is worth sending; waits only while the window is used up."""
        self._enter()
        try:
            stores, now = self._stores, time.monotonic()
            if (
                not stores.has_room(len(body), records_max)
                or len(body) > BATCH_BYTES_MAX
                or self._protocol.backlog
            ):
                self._make_room(len(body), records_max, None)
            stores.add(op, body, sink, now)
            self._push(now)
        finally:
            self._leave()

    def submit_nowait(self, op: str, body: bytes) -> StoreFuture:
        """Queues one value whose outcome goes to a future; waits only while too much is outstanding."""
        if self._pump is None:
            self._start_pump()
        self._enter()
        try:
            outstanding, pump = self.outstanding, self._pump
            assert outstanding is not None
            assert pump is not None
            if outstanding.full:
                self._wait_while(lambda: outstanding.full)
            now = time.monotonic()
            future = outstanding.new_future(len(body))
            self._protocol.backlog.enqueue(op, body, outstanding, now)
            self._push(now)
            pump.wake()
        finally:
            self._leave()
        return future

    def flush(self) -> None:
        """Waits until every store queued so far has its final outcome."""
        self._enter()
        try:
            self._stores.seal()
            self._wait_while(lambda: self._stores.records > 0 or bool(self._protocol.backlog))
        finally:
            self._leave()

    def close(self) -> None:
        """Closes the socket; what is unanswered is not sent again."""
        self.closed = self._given_up.closed = True
        pump = self._pump
        if pump is None:
            self._drop_wire()
            return
        with pump.lock:
            self._drop_wire()
            self._protocol.abandon()
        pump.stop()
        if self.outstanding is not None:
            self.outstanding.deliver()

    def __del__(self) -> None:
        super().__del__()
        if self._pump is not None and os.getpid() == self._pid:
            self._pump.stop()

    def _start_pump(self) -> None:
        if threading.get_ident() == self._thread and os.getpid() == self._pid:
            self.outstanding = ThreadOutstanding(self._nowait, self._given_up)
            self._pump = Pump(self)

    def tend(self) -> tuple[int, int] | None:
        """Does what is due for what is outstanding; called by the pump, in its thread.

        Returns:
            The descriptor, -1 for none, and its events to wait for; None if nothing is outstanding.
        """
        pump, outstanding = self._pump, self.outstanding
        assert pump is not None
        assert outstanding is not None
        with pump.lock:
            try:
                if not self.closed:
                    now = time.monotonic()
                    if now >= self._protocol.gives_up_at(self._timeout_s):
                        self._abandon_overdue(now - self._timeout_s)
                    self._look_up_all(now)
            except ClosedError:
                pass  # `close` does the rest
            except StorageError as error:
                outstanding.report(error)
            if self.closed or not outstanding.count:
                pump.rest()
                awaited = None
            else:
                awaited = self._awaited()
        outstanding.deliver()
        return awaited

    def _awaited(self) -> tuple[int, int]:
        wire = self._wire
        if wire is None:
            return -1, 0
        return wire.fd, select.POLLIN | select.POLLOUT if wire.unsent else select.POLLIN

    def interrupt(self) -> None:
        """Ends a wait in another thread, after `closed` was set."""
        wire = self._wire
        if wire is not None:
            wire.interrupt()

    def _enter(self) -> None:
        if os.getpid() != self._pid or threading.get_ident() != self._thread:
            raise ClosedError("a pipeline can be used only in the thread and process that opened it")
        if self.busy:
            raise StorageError(
                "the client was called again from within one of its own calls (a signal handler?)"
            )
        self.busy = True
        if self._pump is not None:
            self._pump.lock.acquire()
        if self.closed:
            self._leave()
            raise ClosedError("the client is closed")

    def _leave(self) -> None:
        self.busy = False
        if self._pump is not None:
            self._leave_to_pump(self._pump)

    def _leave_to_pump(self, pump: Pump) -> None:
        outstanding = self.outstanding
        assert outstanding is not None
        try:
            # Otherwise the pump, which waits for the descriptor, might miss what has arrived.
            if self._touched and outstanding.count and not self.closed and self._has_work():
                self._look_up_all(time.monotonic())
        finally:
            pump.lock.release()
        outstanding.deliver()

    def _make_room(self, size: int, records_max: float, deadline: float | None) -> None:
        stores, limits, backlog = self._stores, self._protocol.limits, self._protocol.backlog
        if size > BATCH_BYTES_MAX:  # whether it must travel in parts depends on what the daemon grants
            self._wait_while(lambda: not limits.known, deadline)
        if backlog or not stores.has_room(size, records_max):
            stores.seal()  # nothing joins it before something is answered
            self._wait_while(lambda: bool(backlog) or not stores.has_room(size, records_max), deadline)

    def _wait_while(self, pending: Callable[[], bool], deadline: float | None = None) -> None:
        """Without a deadline, gives up when no store has been answered for `timeout_s`."""
        start = time.monotonic()
        while pending():
            last = max(start, self._stores.progress_at)
            self._step(last + self._timeout_s if deadline is None else deadline)

    def _step(self, deadline: float) -> None:
        """Sends what may be sent, then waits until something arrives or has to be done."""
        now = time.monotonic()
        if now >= deadline:
            self._give_up()
        self._send(now)
        due = self._blocked_until(now) if self._blocked else self._protocol.due()
        wait_s = max(0.0, min(due, deadline) - now)
        wire = self._wire
        if wire is None:
            time.sleep(wait_s)
            return
        try:
            arrived = wire.wait(wait_s, self._blocked)
        except ConnectionAbortedError as error:
            raise ClosedError("the client was closed during the call") from error
        if arrived:
            self._drain()
        elif self._protocol.silent(time.monotonic()):
            self._drop_wire()

    def _push(self, now: float) -> None:
        """Sends what is worth sending, and takes what has arrived every now and then."""
        self._undrained_items += 1
        if self._stores.worth_sending and not self._blocked:
            self._send(now)
        elif self._undrained_items >= DRAIN_EVERY_ITEMS or now - self._drained_at > DRAIN_EVERY_S:
            self._look_up(now)

    def _look_up(self, now: float) -> None:
        """Takes what has arrived and sends what may be sent, without waiting."""
        self._undrained_items = 0
        self._drained_at = now
        self._drain()
        if self._protocol.silent(now):
            self._drop_wire()
        self._send(now)

    def _look_up_all(self, now: float) -> None:
        """The same until nothing more has arrived; the descriptor can be waited for then."""
        self._look_up(now)
        while self._has_work():
            self._look_up(now)

    def _context(self) -> zmq.SyncContext:
        return self._get_context()

    def _give_up(self) -> None:
        if self._protocol.reads:
            read = self._protocol.reads[0]
            if read.error is not None:
                raise refused(read.error, op=read.op)
            self._note_trouble()
            raise self._given_up.unavailable()
        # With the socket goes what it has not delivered yet: a store given up must not arrive later.
        self._drop_wire()
        raise self._given_up.error_of(self._protocol.abandon())
