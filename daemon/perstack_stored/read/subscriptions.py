"""Subscriptions: reads that wait for records not stored yet, `readAll` with `waitMs`, close to the end.

One thread serves all of them. When the index has advanced, it reads the new records once, for everyone;
meanwhile it sleeps, and subscribers cost nothing. The read threads serve subscribers that are further back.
"""

import threading
import time
from collections.abc import Callable
from typing import Protocol

from perstack_storage.protocol import ErrorCode
from perstack_stored.errors import Refusal
from perstack_stored.journal.reader import LogPosition
from perstack_stored.model.shares import Shares
from perstack_stored.protocol.limits import READ_ALL_RECORDS_MAX
from perstack_stored.protocol.messages import RoutingId
from perstack_stored.read.source import Answer, Source

from . import window, window_reader
from .record_filter import wanted_of
from .requests import ReadRequest
from .thread import Faults


class Replies(Protocol):
    """Takes the answers. Called in the subscriptions' thread."""

    def answer(self, request: ReadRequest, answer: Answer, position: int) -> None:
        """Answer a request."""

    def refuse(self, request: ReadRequest, refusal: Refusal) -> None:
        """Answer a request with an error."""

    def go_on(self, request: ReadRequest) -> None:
        """Answer a request as one that does not wait."""

    @property
    def faults(self) -> Faults:
        """Counts faults of the daemon."""


class _Wait:
    """A subscription. `after` moves on over records that it does not want."""

    __slots__ = ("after", "expires", "limit", "request", "wanted")

    def __init__(self, request: ReadRequest) -> None:
        arguments = request.arguments
        self.request = request
        self.after: int = arguments.get("after", 0)
        self.wanted = wanted_of(arguments)
        self.limit = min(arguments.get("limit", READ_ALL_RECORDS_MAX), READ_ALL_RECORDS_MAX)
        self.expires = time.monotonic() + arguments["waitMs"] / 1000
        if request.deadline is not None:
            self.expires = min(self.expires, request.deadline)

    def has_records(self, indexed: int) -> bool:
        """Whether there are records for it, and the index knows which of them were deleted before it came."""
        return self.after < indexed and self.request.position <= indexed


class Subscriptions:
    """The subscriptions, and the thread that serves them."""

    def __init__(
        self, open_source: Callable[[], Source], replies: Replies, *, waits_max: int, answer_bytes: int
    ) -> None:
        self._open_source = open_source
        self._replies = replies
        self._waits_max = waits_max
        self._answer_bytes = answer_bytes
        self._changed = threading.Condition()
        self._waits: dict[_Wait, None] = {}  # in order of arrival
        self._by_peer: dict[RoutingId, dict[_Wait, None]] = {}
        self._by_client = Shares()
        self._position = 0
        self._woken = False
        self._stopping = False
        self._stale = False
        self._next_expiry = 0.0
        self._source: Source | None = None
        self._near: LogPosition | None = None
        self._thread = threading.Thread(target=self._work, name="long-polls", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._waits)

    def add(self, request: ReadRequest) -> ReadRequest | None:
        """Answer a read as soon as there are records for it, or its time is over.

        Returns:
            A read that gives way to it, of the client that has most; the caller answers that one.

        Raises:
            Refusal: BUSY.
        """
        wait = _Wait(request)
        with self._changed:
            victim = self._to_give_way(request.client) if len(self._waits) >= self._waits_max else None
            if victim is not None:
                self._remove(victim)
            self._waits[wait] = None
            self._by_peer.setdefault(request.envelope[0], {})[wait] = None
            self._by_client.add(request.client)
            if wait.has_records(self._position) or wait.expires < self._next_expiry:
                self._stir()
        return None if victim is None else victim.request

    def _to_give_way(self, client: str) -> "_Wait":
        most = self._by_client.must_yield(client)
        if most is None:
            raise Refusal(ErrorCode.BUSY, f"{self._waits_max} reads wait for new records already")
        return next(wait for wait in self._waits if wait.request.client == most)

    def left(self, peer: RoutingId) -> None:
        """Drop the reads of a connection that ended."""
        if peer in self._by_peer:
            with self._changed:
                for wait in list(self._by_peer.get(peer, ())):
                    self._remove(wait)

    def on_indexed(self, position: int) -> None:
        """Note that the index is complete up to a position."""
        if position == self._position:
            return
        self._position = position
        if self._waits:
            with self._changed:
                self._stir()

    def index_restarted(self) -> None:
        """Serve no read until the index, which may be rebuilt, reports its position."""
        self._position = 0
        self._stale = True

    def release(self) -> list[ReadRequest]:
        """Remove and return all reads that wait; the caller answers them."""
        with self._changed:
            waits = list(self._waits)
            for wait in waits:
                self._remove(wait)
        return [wait.request for wait in waits]

    def stop(self) -> None:
        """Let the thread end; reads that wait are not answered."""
        with self._changed:
            self._stopping = True
            self._stir()
        self._thread.join()

    def _stir(self) -> None:
        self._woken = True
        self._changed.notify()

    # --- in the thread -----------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._woken:
                    self._changed.wait(self._sleep_seconds())
                self._woken = False
                if self._stopping:
                    break
                waits = list(self._waits)
            self._serve(waits)
            self._expire()
        self._drop_source()

    def _sleep_seconds(self) -> float | None:
        """Seconds until the next deadline; None without one."""
        self._next_expiry = min((wait.expires for wait in self._waits), default=float("inf"))
        return max(0.0, self._next_expiry - time.monotonic()) if self._waits else None

    def _serve(self, waits: list[_Wait]) -> None:
        """Answer the reads for which there are new records."""
        lagging = [wait for wait in waits if wait.has_records(self._position)]
        try:
            while lagging:
                source = self._current_source()
                until = source.indexed()
                if until.position <= min(wait.after for wait in lagging):
                    return
                lagging = self._serve_window(source, until, lagging)
        except Refusal as refusal:
            self._refuse(lagging, refusal)
        except Exception as error:  # noqa: BLE001 - a thread that ended would leave everyone waiting
            answer = self._replies.faults.note(error, "readAll", self._source)
            self._drop_source()
            self._refuse(lagging, answer)

    def _serve_window(self, source: Source, until: LogPosition, lagging: list[_Wait]) -> list[_Wait]:
        """Serve from the next read window; return the reads that are still before `until`."""
        start = min(wait.after for wait in lagging)
        found = window_reader.read(source.database, source.reader, start, until, self._near)
        self._near = found.place
        left = []
        for wait in lagging:
            if wait.after < found.place.position:
                if wait.wanted.form.omit and found.has(wait.after, wait.wanted):
                    self._hand_on(wait, until.position)
                    continue
                taken = found.take(wait.after, wait.wanted, wait.limit, self._answer_bytes)
                if taken.large is not None:
                    self._hand_on(wait, until.position)
                    continue
                lost = found.gaps(wait.after, taken.next)
                wait.after = taken.next
                if taken.records or lost:
                    answer = Answer(window.answer_fields(taken.next, lost), iter([taken.body]))
                    self._answer(wait, answer, until.position)
                    continue
            if wait.after < until.position:
                left.append(wait)
        return left

    def _expire(self) -> None:
        now = time.monotonic()
        with self._changed:
            late = [wait for wait in self._waits if wait.expires <= now]
        for wait in late:
            self._answer(wait, Answer({"next": wait.after}, iter([b"[]"])), wait.after)

    def _answer(self, wait: _Wait, answer: Answer, position: int) -> None:
        if self._leave(wait):
            self._replies.answer(wait.request, answer, position)

    def _hand_on(self, wait: _Wait, position: int) -> None:
        """Hand over a large record, or fields to leave out: this thread has no time for either."""
        if self._leave(wait):
            asked = wait.request.arguments
            arguments = {**asked, "after": wait.after, "waitedFrom": asked.get("after", 0)}
            self._replies.go_on(wait.request._replace(arguments=arguments, position=position))

    def _refuse(self, waits: list[_Wait], refusal: Refusal) -> None:
        for wait in waits:
            if self._leave(wait):
                self._replies.refuse(wait.request, refusal)

    def _leave(self, wait: _Wait) -> bool:
        """Remove a read; return whether it still waited."""
        with self._changed:
            return self._remove(wait)

    def _remove(self, wait: _Wait) -> bool:
        if self._waits.pop(wait, 0) is not None:
            return False
        peer = wait.request.envelope[0]
        waits = self._by_peer[peer]
        del waits[wait]
        if not waits:
            del self._by_peer[peer]
        self._by_client.remove(wait.request.client)
        return True

    def _current_source(self) -> Source:
        if self._stale:
            self._stale = False
            self._drop_source()
        if self._source is None:
            self._source = self._open_source()
        return self._source

    def _drop_source(self) -> None:
        source, self._source, self._near = self._source, None, None
        if source is not None:
            source.close()
