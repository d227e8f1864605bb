"""The connection of an asyncio client: one socket and one session for all tasks of an event loop."""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from perstack_storage._async.clock import ListeningClock
from perstack_storage._async.outstanding import TaskOutstanding
from perstack_storage._async.waiting_reads import WaitingReads
from perstack_storage._core.batch import Sink, Store
from perstack_storage._core.errors import (
    ClosedError,
    ProtocolError,
    StorageError,
    TooMuchOutstanding,
    refused,
)
from perstack_storage._core.outstanding import NowaitSettings
from perstack_storage._core.reads import Read
from perstack_storage._wire.target import Target
from perstack_storage._wire.transport import Transport
from perstack_storage._wire.wire import Wire

if TYPE_CHECKING:
    import zmq

TIMER_MIN_S = 0.001


class AsyncConnection(Transport):
    """Stores and reads of all tasks of one event loop. Errors are those of `AsyncClient`.

    Everything happens in `_turn`, which the descriptor, a timer or a call brings about. Calls leave their
    work in the queue and wait for a future: ending one early, by cancellation, changes nothing for the queue.
    """

    def __init__(self, target: Target, nowait: NowaitSettings, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(target)
        self.loop = loop
        self.outstanding = TaskOutstanding(nowait, self._given_up, loop)
        self._zmq: zmq.SyncContext | None = None
        self._awaited: deque[tuple[float, asyncio.Future[int]]] = deque()
        self._reads = WaitingReads(self._protocol, target.timeout_s)
        self._waiters: dict[asyncio.Future[bool], float] = {}  # until when each waits
        self._waits_due = math.inf
        self._clock = ListeningClock(target.timeout_s)
        self._ticking = False
        self._descriptor = -1
        self._writing = False
        self._turn_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    def __del__(self) -> None:
        self.release()

    def now(self) -> float:
        """Returns the time that limits on the daemon's silence are measured in."""
        return self._clock.now()

    @property
    def pid(self) -> int:
        """Of the process that made it."""
        return self._pid

    @property
    def window_records(self) -> int:
        """Number of stores that the daemon grants."""
        return self._protocol.limits.window_records

    @property
    def crowded(self) -> bool:
        """Whether stores wait that the window has no room for."""
        return bool(self._protocol.backlog)

    def submit(self, op: str, body: bytes, sink: Sink) -> None:
        """Queues one value; it is sent soon, without anybody's help."""
        self.check_open()
        self._queue((op, body, None), sink, self.now())

    def store(self, op: str, body: bytes) -> Coroutine[Any, Any, int]:
        """Queues one value, or an atomic batch; returns the awaitable of its (first) position."""
        self.check_open()
        future, now = self.loop.create_future(), self.now()
        self._awaited.append((now, future))
        self._queue((op, body, future), self.outstanding, now)
        return self.outstanding.outcome(future)

    def store_nowait(self, op: str, body: bytes) -> "asyncio.Future[int]":
        """Queues one value; returns the future of its position."""
        self.check_open()
        if self.outstanding.full:
            raise TooMuchOutstanding(f"{self.outstanding.count} stores are outstanding: await ready() first")
        future = self.loop.create_future()
        self._queue((op, body, future), self.outstanding, self.now())
        return future

    def _queue(self, store: Store, sink: Sink, now: float) -> None:
        if store[2] is not None:
            self.outstanding.count_in(len(store[1]))
        self._protocol.backlog.append(store, sink, now)
        self._turn_soon()  # not now: the calls of all tasks that are ready travel together
        if self._stores.has_full_batch and not self._blocked:
            self._send(now)

    def check_open(self) -> None:
        """Raises ClosedError if the client is closed."""
        if self.closed:
            raise ClosedError("the client is closed")

    async def call(
        self, op: str, arguments: bytes = b"", wait_s: float = 0.0, bytes_max: int | None = None
    ) -> Read:
        """Sends a request that stores nothing; returns it with its complete answer.

        It begins when the stores that were called for before have their outcomes, so that it sees them.

        Args:
            op: the operation.
            arguments: the body.
            wait_s: how long the daemon may put its answer off.
            bytes_max: what is taken of an answer; a larger one fails with AnswerTooLarge.
        """
        self.check_open()
        deadline = self.now() + self._timeout_s + wait_s
        read = Read(op, arguments, deadline, wait_s=wait_s)
        if bytes_max is not None:
            read.answer_bytes_max = bytes_max
        answered = self._reads.add(read, self.loop)
        self._turn_soon()
        try:
            await answered
        finally:
            self._reads.forget(read)
        return read

    async def wait_while(self, pending: Callable[[], bool], limit_s: float | None = None) -> bool:
        """Waits as long as that is so; it may change when stores get their outcomes.

        Returns:
            False where `limit_s` was over first.
        """
        until = math.inf if limit_s is None else self.now() + limit_s
        while pending():
            self.check_open()
            waiter = self.loop.create_future()
            self._waiters[waiter] = until
            if until < self._waits_due:
                self._waits_due = until
                self._turn_soon()
            try:
                if await waiter:
                    return not pending()
            finally:
                self._waiters.pop(waiter, None)
        return True

    def close(self) -> None:
        """Closes the socket; calls that wait get ClosedError. What is unanswered is not sent again."""
        if self.closed:
            return
        self.closed = self._given_up.closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._abandon_overdue(math.inf)
        self._raise_to_all(ClosedError, "the client was closed during the call")
        self._terminate()

    def discard(self) -> None:
        """Closes the socket where the event loop has ended: no call waits any more."""
        self.closed = True
        if self._wire is not None:
            self._wire.close()
            self._wire = None
        self._terminate()

    def _terminate(self) -> None:
        if self._zmq is not None:
            self._zmq.term()

    def _turn_soon(self) -> None:
        if not self._turn_due:
            self._turn_due = True
            self.loop.call_soon(self._turn)

    def _turn(self, limits_at: float | None = None) -> None:
        """Takes what has arrived, does what is due, sends what may go, and wakes the calls that wait.

        A timer's turn holds limits, as of a time.
        """
        self._turn_due = False
        if self.closed:
            return
        now, finished = self.now(), self._stores.finished
        try:
            self._drain(now)
            if limits_at is not None:
                if self._protocol.silent(limits_at):
                    self._move(now)
                self._give_up_overdue(limits_at)
            self._reads.start()
            self._send(now)
            if self._given_up.hopeless:
                self._give_up_all()
        except StorageError as error:  # of the protocol: another program listens there
            self._fail(error, now)
        except Exception as error:  # noqa: BLE001 - what an answer may hold has no end; no call may wait for ever
            self._fail(ProtocolError(f"an answer that can't be followed: {error!r}"), now)
        except BaseException:  # a signal handler raised it: where the conversation stood is not known
            self._drop_wire()
            self._turn_soon()
            raise
        if self._reads.finish(now):
            self._turn_soon()
        if limits_at is not None:
            self._end_overdue(limits_at)
        if self._stores.finished != finished:
            self._wake()
        if self._has_work():
            self._turn_soon()
        self._set_timer(now)

    def _fail(self, error: StorageError, now: float) -> None:
        self._drop_wire()
        self._connect_later(now)
        self._blocked = True
        if not self._raise_to_all(type(error), str(error)):
            self.outstanding.report(error)

    def _give_up_overdue(self, now: float) -> None:
        awaited = self._awaited
        while awaited and awaited[0][1].done():
            awaited.popleft()
        overdue = now - self._timeout_s
        if (awaited and awaited[0][0] <= overdue) or self._protocol.gives_up_at(self._timeout_s) <= now:
            self._abandon_overdue(overdue)

    def _give_up_all(self) -> None:
        """No daemon can be there."""
        self._abandon_overdue(math.inf)
        for read in self._reads.all():
            self._reads.end(read, self._given_up.unavailable())

    def _end_overdue(self, now: float) -> None:
        """Ends the reads and waits whose time is over."""
        for read in self._reads.overdue(now):
            if read.error is None:
                self._note_trouble()
                self._reads.end(read, self._given_up.unavailable())
            else:
                self._reads.end(read, refused(read.error, op=read.op))
        if now >= self._waits_due:
            for waiter, until in self._waiters.items():
                if until <= now and not waiter.done():
                    waiter.set_result(True)
            self._waits_due = min(
                (until for until in self._waiters.values() if until > now), default=math.inf
            )

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(False)

    def _raise_to_all(self, kind: type[StorageError], message: str) -> bool:
        """Raises an error in every call under way; returns whether there was one."""
        waiting: list[asyncio.Future[int] | asyncio.Future[bool] | asyncio.Future[None]] = [
            *(future for _, future in self._awaited),
            *self._reads.futures(),
            *self._waiters,
        ]
        pending = [future for future in waiting if not future.done()]
        for future in pending:
            future.set_exception(kind(message))
        return bool(pending)

    def _set_timer(self, now: float) -> None:
        due = math.inf if self._given_up.hopeless else self._due(now)
        due = min(due, self._reads.due, self._waits_due, self._protocol.gives_up_at(self._timeout_s))
        if self._awaited:
            due = min(due, self._awaited[0][0] + self._timeout_s)
        if due == math.inf:
            return
        if not self._ticking:
            self._ticking = True
            self._clock.start()
        tick_at = now + self._clock.tick_s
        due = min(due, tick_at) if self._clock.trusted else tick_at
        if due >= self._timer_at:  # it fires too early then, and is set again
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = due
        self._timer = self.loop.call_later(max(due - now, TIMER_MIN_S), self._on_timer)

    def _on_timer(self) -> None:
        self._timer, self._timer_at = None, math.inf
        self._clock.tick()
        self._turn(self._clock.now() if self._clock.trusted else None)
        self._ticking = self._timer is not None

    def _send(self, now: float) -> None:
        super()._send(now)
        unsent = self._wire is not None and self._wire.unsent
        if unsent is not self._writing:
            self._writing = unsent
            if unsent:
                self.loop.add_writer(self._descriptor, self._turn)
            else:
                self.loop.remove_writer(self._descriptor)

    def _note_wait(self) -> None:
        if (
            self._reads.all() or self._stores.settled < self._protocol.called
        ):  # it connects again at rest, too
            super()._note_wait()

    def _context(self) -> "zmq.SyncContext":
        import zmq  # noqa: PLC0415 - a client of a Unix socket needs none

        if self._zmq is None:
            self._zmq = zmq.Context()
        return self._zmq

    def _opened(self, wire: "Wire") -> None:
        self._descriptor = wire.fd
        self.loop.add_reader(self._descriptor, self._turn)

    def _closing(self, _wire: "Wire", /) -> None:
        self.loop.remove_reader(self._descriptor)
        self.loop.remove_writer(self._descriptor)
        self._writing = False
