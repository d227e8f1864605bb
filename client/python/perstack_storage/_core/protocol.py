"""One side of a conversation with the daemon, without sockets and clocks: what to send, what an answer means.

A driver with a socket does this, over and over:

    while (frame := protocol.next_frame(now)) is not None and <the socket took it>: protocol.sent(now)
    for frame in <what arrived>: protocol.receive(frame, now)
    if protocol.silent(now): <close the socket, connect a new one>; protocol.disconnected()
    <wait until something arrives, the socket takes frames again, or protocol.due()>
"""

import math
from collections.abc import Callable

from perstack_storage._core import frames
from perstack_storage._core.backlog import Backlog
from perstack_storage._core.batch import Batch, Sink, Store
from perstack_storage._core.errors import EndpointError, refused
from perstack_storage._core.history import SharedHistory
from perstack_storage._core.reads import OF_THE_DAEMON, Read
from perstack_storage._core.stores import StoreQueue


class ClientProtocol:
    """The session's stores, the reads under way, and the `hello` that opens each connection.

    Attributes:
        problem: why the daemon of this connection must not be used. Close it then, and connect to another.
    """

    def __init__(self, session: str, history: SharedHistory) -> None:
        """Where there are several daemons, nothing is sent to one before its `hello` tells that it may be."""
        self.limits = frames.Limits()
        self.stores = StoreQueue(session, self.limits)
        self.backlog = Backlog(self.stores, self.limits)
        self.reads: list[Read] = []
        self.problem: EndpointError | None = None
        self._session = session
        self._history, self._several = history, history.several
        self._read_at = 0.0  # when a read was answered last
        self._next_id = 1
        self._hello = self._new_hello()
        self._hello_done = False
        self._offered: Read | Batch | None = None

    def _new_hello(self) -> Read:
        return Read("hello", b"", math.inf, self._session)

    def next_frame(self, now: float) -> bytes | None:
        """Returns the frame to hand to the socket now, or None; `sent` says that the socket took it."""
        if self._several:
            for read in self.reads:
                read.asked_at = min(read.asked_at, now)
        if not self._hello_done and self._hello.ready(now):
            self._offered = self._hello
            return self._hello.frame(self._next_id, now)
        if self._several and (not self._hello_done or self.problem is not None):
            return None
        for read in self.reads:
            if read.ready(now):
                self._offered = read
                read.value_bytes_max = self.limits.value_bytes
                if self.limits.replicated and read.op not in OF_THE_DAEMON:
                    read.at_least = self._history.position or None
                return read.frame(self._next_id, now)
        if self.backlog.waiting:
            self.backlog.move()
        batch = self._offered = self.stores.next_batch(now)
        return None if batch is None else self.stores.frame(batch, self._next_id)

    def sent(self, now: float) -> bool:
        """Notes that the socket took the frame that `next_frame` returned last.

        Returns:
            Whether there may be another one to send.
        """
        request_id, offered = self._next_id, self._offered
        self._next_id = request_id + 1
        if type(offered) is Batch:
            self.stores.sent(offered, request_id, now)
            return self.stores.has_waiting or bool(self.backlog.waiting or self.reads)
        if type(offered) is Read:
            offered.sent(request_id, now)
        return True

    def receive(self, frame: bytes, now: float) -> None:
        """Takes a frame that arrived. Answers to what nobody waits for any more are ignored.

        Raises:
            ProtocolError: it is no answer as wire.md has it.
        """
        answer = frames.parse_answer(frame)
        request_id = answer.header["id"]
        if self.stores.answered(request_id, answer, now):
            if self.limits.replicated:
                self._history.note(frames.highest_position(answer.header))
            return
        for read in self.reads:
            if read.answered(request_id, answer, now):
                if self.limits.replicated:
                    self._history.note(frames.highest_position(answer.header))
                if read.done:
                    self._read_at = now
                return
        if not self._hello_done and self._hello.answered(request_id, answer, now) and self._hello.done:
            self._hello_done = True
            if self._hello.error is None:
                self.limits.learn(self._hello.body)
                self.problem = self._history.problem(self.limits)
            elif self._several:
                self.problem = EndpointError(str(refused(self._hello.error, op="hello")))
            self.limits.known = True  # a daemon that refuses it gets the usual limits

    @property
    def waiting(self) -> bool:
        """Whether an answer to a store or read is due to come; that to `hello` is taken along the way."""
        if self.stores.under_way or not self._hello_done:
            return True
        return bool(self.reads) and not all(read.done for read in self.reads)

    @property
    def waits_since(self) -> float:
        """Since when something waits for an answer that is due; infinity if nothing does.

        A read that waits for news has time, once the connection is there.
        """
        since = min(self.stores.oldest_at, self.backlog.oldest_at)
        for read in self.reads:
            if not read.done and not (read.wait_s and self._hello_done):
                since = min(since, read.asked_at)
        return since

    @property
    def answered_at(self) -> float:
        """When a store or a read had its answer last."""
        return max(self.stores.progress_at, self._read_at)

    @property
    def called(self) -> int:
        """Number of stores called for so far; all have outcomes when `stores.settled` is as much."""
        return self.stores.next_seq - 1 + self.backlog.numbers

    def gives_up_at(self, timeout_s: float) -> float:
        """Returns when the oldest store will have waited for so long with no store answered since."""
        return max(min(self.stores.oldest_at, self.backlog.oldest_at), self.stores.progress_at) + timeout_s

    def abandon(self, through: float = math.inf) -> list[Batch]:
        """Gives up the stores that were called for up to a time; see `StoreQueue.abandon`."""
        return self.stores.abandon(through) + self.backlog.abandon(through)

    def disconnected(self) -> None:
        """A new connection: everything without an answer is sent again, after a `hello`."""
        self._hello = self._new_hello()
        self._hello_done = False
        self.problem = None
        self.stores.resend_all()
        for read in self.reads:
            read.disconnected()

    def successor(self, sink_of: Callable[[Sink], Sink], *, keep_unheard: bool) -> "ClientProtocol":
        """Returns this side rebuilt after an interruption, to go on with on a new connection.

        This one is only read: a call that was interrupted may go on with it. Reads are not taken over: a
        caller that waits for one asks again. See `StoreQueue.successor`.
        """
        new = ClientProtocol(self._session, self._history)
        limits = new.limits = self.limits.copy()
        # Whether the socket took the frame offered last is not known.
        offered = self._offered
        if type(offered) is Batch:
            offered.sent_ever = True
        new._next_id = self._next_id + 1
        new._read_at = self._read_at
        new.stores = self.stores.successor(
            limits, lambda sink: None if sink is None else sink_of(sink), keep_unheard=keep_unheard
        )
        new.backlog = self.backlog.successor(new.stores, limits, sink_of)
        return new

    def unanswered(self) -> list[Store]:
        """All stores of which no outcome was given out, in order."""
        return self.stores.stores() + self.backlog.stores()

    def due(self) -> float:
        """Returns when the driver must call again although nothing arrives."""
        due = self.stores.due()
        for read in self.reads:
            due = min(due, read.due())
        return due if self._hello_done else min(due, self._hello.due())

    def silent(self, now: float) -> bool:
        """Whether an answer is overdue, so that a new connection is needed."""
        overdue = self.stores.silent(now)
        for read in self.reads:
            overdue |= read.silent(now)
        if not self._hello_done:
            overdue |= self._hello.silent(now)
        return overdue
