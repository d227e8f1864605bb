"""Reads beside the serving loop: two threads ask index and journal, so that no read holds up a store.

One thread looks up single values, the other makes listings and parts of large answers, a part at a time. A
third one, the tail's, has those that wait for new records.
"""

import queue
import sqlite3
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator

import structlog

from perstack_storage._errors import ErrorCode

from . import index, queries, wire
from .arguments import ReadRequest
from .epochs import Epochs
from .errors import DamageError, IndexUnusableError, Refusal, StoredError
from .figures import Tally
from .files import Files
from .listings import Listings
from .outbox import RoutingId
from .queries import STRETCH_ANSWER_BYTES, Answer, Source
from .segments import JournalReader
from .stores import Reply
from .tail import Tail

_POINT_OPS = frozenset({"retrieveJob", "retrieveCheckpoint"})

_TAKE_BYTES_MAX = 4 << 20

_log = structlog.get_logger()


class _OpenRead:
    """The rest of a large answer: `left` is what was made and not sent yet."""

    __slots__ = ("left", "masked", "part", "peer", "pieces", "used")

    def __init__(self, peer: RoutingId, pieces: Iterator[bytes], *, masked: bool) -> None:
        self.peer = peer
        self.masked = masked
        self.pieces = pieces
        self.left = b""
        self.part = 0
        self.used = time.monotonic()

    def next_part(self, size: int) -> tuple[bytes, bool]:
        """The next part of the body, and whether it is the last one."""
        collected = [self.left]
        length = len(self.left)
        done = False
        while length <= size and not done:
            piece = next(self.pieces, None)
            if piece is None:
                done = True
            else:
                collected.append(piece)
                length += len(piece)
        body = b"".join(collected)
        self.left = body[size:]
        self.used = time.monotonic()
        return body[:size], done and not self.left


def _close(source: Source) -> None:
    source.database.close()
    source.reader.close()


class Reads:
    """Runs reads and hands their answers back through `replies`, telling `wake` that there are some."""

    def __init__(  # noqa: PLR0913 - its bounds
        self,
        files: Files,
        base: str,
        journal_dir: int,
        epochs: Epochs,
        *,
        answer_bytes: int,
        open_max: int,
        waits_max: int,
        keep_seconds: float,
        listings_bytes: int,
        wake: Callable[[], None],
    ) -> None:
        self._files = files
        self._path = f"{base}/.stored/{index.FILE_NAME}"
        self._journal_dir = journal_dir
        self._epochs = epochs
        self._answer_bytes = answer_bytes
        self._open_max = open_max
        self._keep_seconds = keep_seconds
        self._listings_bytes = listings_bytes
        self._wake = wake
        self._replies: deque[Reply] = deque()
        self._tail_replies: deque[Reply] = deque()
        self.pending = 0
        self.failed = 0
        self.tallies = [Tally(), Tally(), Tally()]  # of the threads, and of the tail
        self._generation = 0
        self.index_is_there = False
        self._index_damage: tuple[int, str] | None = None
        self._open: OrderedDict[str, _OpenRead] = OrderedDict()
        self._open_lock = threading.Lock()
        self._opened = 0
        self._stopping = False
        self._queues: dict[str, queue.SimpleQueue[ReadRequest | None]] = {
            "point": queue.SimpleQueue(),
            "listing": queue.SimpleQueue(),
        }
        self._threads = [
            threading.Thread(target=self._work, args=(q, tally), name=f"reads-{name}", daemon=True)
            for (name, q), tally in zip(self._queues.items(), self.tallies, strict=False)
        ]
        for thread in self._threads:
            thread.start()
        self.tail = Tail(
            self.open_source, self, waits_max=waits_max, answer_bytes=min(answer_bytes, STRETCH_ANSWER_BYTES)
        )

    def submit(self, request: ReadRequest) -> None:
        """Run a read; the index has come as far as it needs."""
        self.pending += 1
        self._queues["point" if request.op in _POINT_OPS else "listing"].put(request)

    @property
    def answered(self) -> bool:
        """Whether there are answers to take."""
        return bool(self._replies or self._tail_replies)

    def refused(self) -> Counter[str]:
        """Reads that were answered with an error, by code."""
        counts: Counter[str] = Counter()
        for tally in self.tallies:
            for (_op, outcome), count in tally.outcomes.copy().items():
                if outcome != "ok":
                    counts[outcome] += count
        return counts

    def take_replies(self) -> list[Reply]:
        """Answers that are ready; no more at a time than what is sent quickly. The rest wakes again."""
        replies = []
        size = 0
        while self._replies and size < _TAKE_BYTES_MAX:
            replies.append(self._replies.popleft())
            size += len(replies[-1][1])
        self.pending -= len(replies)
        while self._tail_replies and size < _TAKE_BYTES_MAX:
            replies.append(self._tail_replies.popleft())
            size += len(replies[-1][1])
        if self.answered:
            self._wake()
        return replies

    def index_stopped(self) -> None:
        """The index may be made anew: what is open of it is of no use, and nothing is opened for now."""
        self.index_is_there = False
        self._generation += 1
        self.tail.index_restarted()

    def index_started(self) -> None:
        """The index says how far it is."""
        self.index_is_there = True
        self.tail.index_restarted()

    def index_damage(self) -> str:
        """Why the index, as it is now, can't be read any more, "" if nothing is known against it."""
        found = self._index_damage
        return found[1] if found is not None and found[0] == self._generation else ""

    def stop(self) -> None:
        """Let the threads end after what they have begun; what still waits is not answered."""
        self._stopping = True
        self.tail.stop()
        for q in self._queues.values():
            q.put(None)
        for thread in self._threads:
            thread.join()

    # --- in the thread of the tail -----------------------------------------------------------------

    def answer(self, request: ReadRequest, answer: Answer, position: int) -> None:
        """Answer a read that waited."""
        try:
            frame = self._begin(request, answer, position)
            self.tallies[2].note(request.op)
        except Refusal as refusal:
            self.refuse(request, refusal)
            return
        self._tail_replies.append((request.envelope, frame))
        self._wake()

    def refuse(self, request: ReadRequest, refusal: Refusal) -> None:
        """Answer a read that waited with an error."""
        self.tallies[2].note(request.op, refusal.code.value)
        self._tail_replies.append((request.envelope, wire.error_answer(request.id, refusal)))
        self._wake()

    # --- in the threads ----------------------------------------------------------------------------

    def note_failure(self, error: Exception, op: str, source: Source | None, **who: object) -> Refusal:
        """Log and count a read that met a fault of the daemon; returns its answer."""
        self.failed += 1
        is_known = isinstance(error, (sqlite3.Error, OSError, StoredError))
        _log.error("read_failed", op=op, reason=str(error), exc_info=not is_known, **who)
        of_index = isinstance(error, (sqlite3.Error, IndexUnusableError))
        is_damage = isinstance(error, IndexUnusableError) or (
            isinstance(error, sqlite3.Error) and index.is_damage(error)
        )
        if is_damage:
            self._index_damage = self._generation if source is None else source.generation, str(error)
            self._wake()
        if of_index and op == "readPart":
            return Refusal(ErrorCode.READ_GONE, "the index could not be read; the daemon's log says why")
        if is_damage or (isinstance(error, sqlite3.Error) and index.may_pass(error)):
            # What may pass may do so soon; what may not is built anew.
            return Refusal(ErrorCode.BUSY, "the index could not be read; the daemon's log says why")
        code = ErrorCode.DAMAGED if isinstance(error, DamageError) else ErrorCode.INTERNAL
        return Refusal(code, "the read failed; the daemon's log says why")

    def _work(self, requests: queue.SimpleQueue[ReadRequest | None], tally: Tally) -> None:
        source: Source | None = None
        while (request := requests.get()) is not None and not self._stopping:
            outcome = "ok"
            try:
                if source is None or source.generation != self._generation:
                    if source is not None:
                        _close(source)
                        source = None
                        with self._open_lock:
                            self._open.clear()
                    source = self.open_source()
                frame = self._answer(source, request)
            except Refusal as refusal:
                outcome = refusal.code.value
                frame = wire.error_answer(request.id, refusal)
            except Exception as error:  # noqa: BLE001 - a thread that ended would leave every read unanswered
                who = request.peer.told() if request.peer else {}
                answer = self.note_failure(error, request.op, source, request=request.id, **who)
                source = None
                outcome = answer.code.value
                frame = wire.error_answer(request.id, answer)
            tally.note(request.op, outcome)
            tally.seconds.add(time.monotonic() - request.arrived)
            self._replies.append((request.envelope, frame))
            self._wake()
        if source is not None:
            _close(source)

    def open_source(self) -> Source:
        """Open index and journal for the calling thread.

        Raises:
            Refusal: BUSY.
        """
        generation = self._generation
        if self.index_is_there:
            source = Source(
                index.connect(self._path, read_only=True),
                JournalReader(self._files, self._journal_dir),
                Listings(self._listings_bytes),
                generation,
            )
            source.indexed()  # opens all of its files
            if generation == self._generation:
                return source
            _close(source)  # some of the one before, maybe, and some of the new one
        raise Refusal(ErrorCode.BUSY, "the index is being built anew")

    def _answer(self, source: Source, request: ReadRequest) -> bytes:
        if request.deadline is not None and time.monotonic() > request.deadline:
            raise Refusal(ErrorCode.DEADLINE, "the time for the answer was over before it was begun")
        if request.op == "readPart":
            return self._part(request)
        if source.indexed().position < request.position:
            raise Refusal(ErrorCode.BUSY, "the index is being built anew")
        return self._begin(
            request, queries.OPERATIONS[request.op](source, request.arguments), request.position
        )

    def _begin(self, request: ReadRequest, answer: Answer, position: int) -> bytes:
        """The frame of an answer, or of its first part."""
        read = _OpenRead(request.envelope[0], answer.pieces, masked="masked" in request.arguments)
        body, last = read.next_part(self._answer_bytes)
        more = None if last else {"read": self._keep(read), "part": 1}
        fields = answer.fields
        if request.op == "readAll":
            until = fields["next"]
            assert isinstance(until, int)
            fields |= self._epochs.between(request.arguments.get("after", 0), until)
        return wire.read_answer(request.id, body, position=position, more=more, **fields)

    def _part(self, request: ReadRequest) -> bytes:
        name, part = request.arguments["read"], request.arguments["part"]
        with self._open_lock:
            self._forget_old()
            read = self._open.get(name)
            asker = (request.envelope[0], "masked" in request.arguments)
            if read is None or (read.peer, read.masked) != asker or part != read.part + 1:
                raise Refusal(ErrorCode.READ_GONE, "the rest of that answer is no longer kept")
            self._open.move_to_end(name)
        last = True
        try:
            body, last = read.next_part(self._answer_bytes)
        finally:
            if last:  # or failed: what was made of the part is gone
                with self._open_lock:
                    self._open.pop(name, None)
        read.part = part
        more = None if last else {"read": name, "part": part + 1}
        return wire.read_answer(request.id, body, more=more)

    def _keep(self, read: _OpenRead) -> str:
        with self._open_lock:
            self._forget_old()
            if len(self._open) >= self._open_max:
                raise Refusal(ErrorCode.BUSY, f"{self._open_max} large answers are being pulled already")
            self._opened += 1
            name = f"r{self._opened}"
            self._open[name] = read
            return name

    def _forget_old(self) -> None:
        limit = time.monotonic() - self._keep_seconds
        while self._open and next(iter(self._open.values())).used < limit:
            self._open.popitem(last=False)
