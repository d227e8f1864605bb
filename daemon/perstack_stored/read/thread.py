"""A thread that makes answers to reads: clients take turns, and none keeps the others waiting for long."""

import sqlite3
import threading
import time
from collections.abc import Callable, Generator
from typing import Protocol

import structlog

from perstack_storage.protocol import ErrorCode
from perstack_stored.errors import DamageError, IndexUnusableError, Refusal, StoredError
from perstack_stored.index.connection import is_damage, may_pass
from perstack_stored.observe.counters import RequestCounter
from perstack_stored.protocol import frames
from perstack_stored.protocol.messages import RoutingId
from perstack_stored.read.source import Answer, Source

from . import queries
from .open_answers import Buffer, OpenRead, OpenReads
from .requests import ReadRequest
from .turns import Task, Turns

# Work of a client is put back after this time if others wait.
_TURN_SECONDS = 0.01

_log = structlog.get_logger()


class Faults:
    """Faults that reads found: counts and logs them, and reports a damaged index to the server.

    Attributes:
        failed: count of reads that failed by a fault of the daemon.
        generation: of the index; it changes with the index's file.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._damage: tuple[int, str] | None = None
        self.failed = 0
        self.generation = 0

    def index_damage(self) -> str:
        """Why the index, in its current generation, can't be read any more; "" without a known reason."""
        found = self._damage
        return found[1] if found is not None and found[0] == self.generation else ""

    def note(self, error: Exception, op: str, source: Source | None, **who: object) -> Refusal:
        """Log and count a read that failed by a fault of the daemon; return its answer."""
        self.failed += 1
        is_known = isinstance(error, (sqlite3.Error, OSError, StoredError))
        _log.error("read_failed", op=op, reason=str(error), exc_info=not is_known, **who)
        of_index = isinstance(error, (sqlite3.Error, IndexUnusableError))
        damaged = isinstance(error, IndexUnusableError) or (
            isinstance(error, sqlite3.Error) and is_damage(error)
        )
        if damaged:
            self._damage = self.generation if source is None else source.generation, str(error)
            self._wake()
        if of_index and op == "readPart":
            return Refusal(ErrorCode.READ_GONE, "the index could not be read; the daemon's log says why")
        if damaged or (isinstance(error, sqlite3.Error) and may_pass(error)):
            # A temporary fault may pass soon; otherwise the index is rebuilt.
            return Refusal(ErrorCode.BUSY, "the index could not be read; the daemon's log says why")
        code = ErrorCode.DAMAGED if isinstance(error, DamageError) else ErrorCode.INTERNAL
        return Refusal(code, "the read failed; the daemon's log says why")


class ReadQueue(Protocol):
    """Gives a thread its source, and takes its answers."""

    def open_source(self) -> Source:
        """Open index and journal for the calling thread."""

    def reply(self, request: ReadRequest, frame: bytes) -> None:
        """Hand over an answer."""

    def fields(self, request: ReadRequest, answer: Answer) -> dict[str, object]:
        """Header fields of an answer."""

    def is_here(self, peer: RoutingId) -> bool:
        """Whether the connection is still open."""


class ReadThread:
    """Makes answers to requests, and the later parts of those answers.

    Attributes:
        prefix: of the names of its large answers.
    """

    def __init__(
        self,
        name: str,
        prefix: str,
        desk: ReadQueue,
        faults: Faults,
        open_reads: OpenReads,
        answer_bytes: int,
    ) -> None:
        self.prefix = prefix
        self.counter = RequestCounter()
        self._desk = desk
        self._faults = faults
        self._open_reads = open_reads
        self._answer_bytes = answer_bytes
        self._turns = Turns()
        self._source: Source | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name=f"reads-{name}", daemon=True)
        self._thread.start()

    def put(self, request: ReadRequest) -> None:
        """Answer a request when its client's turn comes."""
        self._turns.put(request.client, self._serve(request))

    def stop(self) -> None:
        """End after the current step; reads that wait are not answered."""
        self._stopping = True
        self._turns.end()

    def join(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join()

    # --- in the thread -----------------------------------------------------------------------------

    def _work(self) -> None:
        while (turn := self._turns.take()) is not None and not self._stopping:
            client, task = turn
            until = time.monotonic() + _TURN_SECONDS
            for _ in task:
                if time.monotonic() >= until and self._turns.others_wait(client):
                    self._turns.put_back(client, task)
                    break
        self._drop_source()

    def _serve(self, request: ReadRequest) -> Task:
        """Make an answer, in steps."""
        outcome = "ok"
        try:
            frame = yield from self._answer(request)
        except Refusal as refusal:
            outcome = refusal.code.value
            frame = frames.error_answer(request.id, refusal)
        except Exception as error:  # noqa: BLE001 - a thread that ended would leave every read unanswered
            who = request.peer.as_log_fields() if request.peer else {}
            fault = self._faults.note(error, request.op, self._source, request=request.id, **who)
            if isinstance(error, (sqlite3.Error, IndexUnusableError)):
                self._drop_source()
            outcome = fault.code.value
            frame = frames.error_answer(request.id, fault)
        self.counter.note(request.op, outcome)
        self.counter.seconds.add(time.monotonic() - request.arrived)
        self._desk.reply(request, frame)

    def _answer(self, request: ReadRequest) -> Generator[None, None, bytes]:
        self._check(request)
        source = self._current_source()
        position: int | None = None
        fields: dict[str, object] = {}
        if request.op == "readPart":
            read = self._open_reads.take(
                request.arguments["read"],
                request.envelope[0],
                request.arguments["part"],
                masked="masked" in request.arguments,
            )
        else:
            position = request.position
            if source.indexed().position < position:
                raise Refusal(ErrorCode.BUSY, "the index is being rebuilt")
            answer = queries.OPERATIONS[request.op](source, request.arguments)
            fields = self._desk.fields(request, answer)
            read = begin(request, answer)
        buffers: list[Buffer] = []
        try:
            for _ in read.make_part(self._answer_bytes, buffers):
                self._open_reads.note(read, self.prefix)
                yield
                self._check(request)
                self._check_source(source, request)
            return frame_of(
                request, read, buffers, self._open_reads, self.prefix, position=position, **fields
            )
        except BaseException:
            self._open_reads.drop(read)  # pieces of the failed part are lost
            raise

    def _check(self, request: ReadRequest) -> None:
        """Raise Refusal if the answer is not wanted any more."""
        if request.deadline is not None and time.monotonic() > request.deadline:
            raise Refusal(ErrorCode.DEADLINE, "the time for the answer was over before it was complete")
        if not self._desk.is_here(request.envelope[0]):
            raise Refusal(ErrorCode.READ_GONE, "the connection has ended")

    def _check_source(self, source: Source, request: ReadRequest) -> None:
        """Raise Refusal if the index has changed since the answer was begun."""
        if source is not self._source or source.generation != self._faults.generation:
            code = ErrorCode.READ_GONE if request.op == "readPart" else ErrorCode.BUSY
            raise Refusal(code, "the index is being rebuilt")

    def _current_source(self) -> Source:
        if self._source is not None and self._source.generation != self._faults.generation:
            self._drop_source()
        if self._source is None:
            self._source = self._desk.open_source()
        return self._source

    def _drop_source(self) -> None:
        """Close the source; answers that are kept of it can't be continued."""
        source, self._source = self._source, None
        if source is not None:
            self._open_reads.clear()
            source.close()


def begin(request: ReadRequest, answer: Answer) -> OpenRead:
    """Open the answer to a request, to be pulled in parts."""
    return OpenRead(
        request.envelope[0],
        request.client,
        answer.pieces,
        answer.memory,
        masked="masked" in request.arguments,
    )


def frame_of(
    request: ReadRequest,
    read: OpenRead,
    buffers: list[Buffer],
    open_reads: OpenReads,
    prefix: str,
    position: int | None = None,
    **fields: object,
) -> bytes:
    """The frame of a part that was made; the rest of the answer is kept.

    Raises:
        Refusal: BUSY.
    """
    more = None
    if read.is_complete:
        open_reads.drop(read)
    else:
        open_reads.keep(read, prefix)
        more = {"read": read.name, "part": read.part + 1}
    return frames.joined_answer(request.id, buffers, position=position, more=more, **fields)
