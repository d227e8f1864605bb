"""Runs reads beside the serving loop: two threads query index and journal, so that no read delays a store.

One thread looks up single values, the other makes listings; each makes the later parts of its own answers. A
third thread serves subscriptions, which wait for new records.
"""

import threading
import weakref
from collections import Counter, deque
from collections.abc import Callable
from typing import NamedTuple

import structlog

from perstack_storage.protocol import ErrorCode
from perstack_stored.datadir.layout import DataDir
from perstack_stored.errors import Refusal
from perstack_stored.index.connection import connect
from perstack_stored.journal.epochs import Epochs
from perstack_stored.journal.reader import JournalReader
from perstack_stored.model.portions import ByteShares
from perstack_stored.observe.counters import RequestCounter
from perstack_stored.protocol import frames
from perstack_stored.protocol.messages import Reply, RoutingId
from perstack_stored.read.source import STRETCH_ANSWER_BYTES, Answer, Source

from .listing_cache import ListingCache
from .open_answers import Buffer, OpenReads
from .requests import ReadRequest
from .subscriptions import Subscriptions
from .thread import Faults, ReadThread, begin, frame_of

_POINT_OPS = frozenset({"retrieveJob", "retrieveCheckpoint", "getEvent"})
_POINT, _LISTING = "v", "r"  # in names of large answers: the thread that makes their parts

_TAKE_BYTES_MAX = 4 << 20
_UNTAKEN_BYTES_MAX = 32 << 20  # answers that the loop has not collected; beyond it the threads wait
_UNTAKEN_WAIT_SECONDS = 0.1


_log = structlog.get_logger()


class ReadLimits(NamedTuple):
    """Bounds of reads.

    Attributes:
        answer_bytes: of one answer; a larger one goes in parts.
        open_max: count of large answers that are kept for their later parts.
        open_bytes_max: memory of those.
        keep_seconds: time for which a large answer is kept after its last part was pulled.
        waits_max: count of subscriptions.
        listings_bytes: memory of cached listings.
    """

    answer_bytes: int
    open_max: int
    open_bytes_max: int
    keep_seconds: float
    waits_max: int
    listings_bytes: int


class ReadExecutor:
    """Runs reads and returns their answers through `replies`; calls `wake` when there are some."""

    def __init__(
        self,
        datadir: DataDir,
        epochs: Epochs,
        limits: ReadLimits,
        wake: Callable[[], None],
        is_here: Callable[[RoutingId], bool],
    ) -> None:
        """Start the threads.

        Args:
            datadir: holds index and journal.
            epochs: of the journal.
            limits: bounds of answers, and of what is kept for clients.
            wake: called from the threads when answers are ready.
            is_here: whether a connection is still open.
        """
        self.is_here = is_here
        self._files = datadir.files
        self._path = datadir.index_path
        self._journal_dir = datadir.folders.journal
        self._epochs = epochs
        self._answer_bytes = answer_bytes = limits.answer_bytes
        self._listings_bytes = limits.listings_bytes
        self._wake = wake
        self._replies: deque[tuple[ReadRequest, bytes]] = deque()
        self._handing = threading.Lock()
        self._handed = 0  # bytes of all answers so far
        self._taken = 0
        self._room = threading.Event()
        self._admitted = ByteShares()  # reads that wait for the index or run
        self.pending = 0
        self._long_poll_counter = RequestCounter()
        self.open_reads = OpenReads(limits.open_max, limits.open_bytes_max, limits.keep_seconds)
        self.index_is_readable = False
        self._stopping = False
        self.faults = Faults(wake)
        self._readers: weakref.WeakSet[JournalReader] = weakref.WeakSet()
        self._readers_lock = threading.Lock()
        self._threads = {
            prefix: ReadThread(name, prefix, self, self.faults, self.open_reads, answer_bytes)
            for prefix, name in ((_POINT, "point"), (_LISTING, "listing"))
        }
        self.counters = [*(thread.counter for thread in self._threads.values()), self._long_poll_counter]
        self.long_polls = Subscriptions(
            self.open_source,
            self,
            waits_max=limits.waits_max,
            answer_bytes=min(answer_bytes, STRETCH_ANSWER_BYTES),
        )

    def admit(self, client: str, reads_max: int) -> None:
        """Count a read until it is answered (admission).

        Raises:
            Refusal: BUSY.
        """
        self._admitted.take_place(client, reads_max, "too many reads wait")

    def dismiss(self, client: str) -> None:
        """Release a read that was admitted; the caller answers it."""
        self._admitted.add(client, -1)

    def submit(self, request: ReadRequest) -> None:
        """Run a read that was admitted; the index has reached its position."""
        self.pending += 1
        self._thread_of(request).put(request)

    def _thread_of(self, request: ReadRequest) -> ReadThread:
        if request.op == "readPart":
            prefix = request.arguments["read"][:1]
            return self._threads[prefix if prefix in self._threads else _LISTING]
        # A time is looked up in some megabytes of the journal: no single value waits for that.
        by_time = isinstance(request.arguments.get("asOf"), dict)
        return self._threads[_POINT if request.op in _POINT_OPS and not by_time else _LISTING]

    def left(self, peer: RoutingId) -> None:
        """Free what is kept for a connection that ended, and drop the reads that it waits for."""
        self.open_reads.left(peer)
        self.long_polls.left(peer)

    @property
    def answered(self) -> bool:
        """Whether answers are ready."""
        return bool(self._replies)

    def refused(self) -> Counter[str]:
        """Count of reads that were refused, by error code."""
        counts: Counter[str] = Counter()
        for counter in self.counters:
            for (_op, outcome), count in counter.outcomes.copy().items():
                if outcome != "ok":
                    counts[outcome] += count
        return counts

    @property
    def failed(self) -> int:
        """Count of reads that failed by a fault of the daemon."""
        return self.faults.failed

    def take_replies(self) -> list[Reply]:
        """Return answers that are ready, at most what is sent quickly; wakes the loop again for the rest."""
        replies: list[Reply] = []
        size = 0
        while self._replies and size < _TAKE_BYTES_MAX:
            request, frame = self._replies.popleft()
            replies.append((request.envelope, frame))
            size += len(frame)
            if not request.has_waited:
                self.pending -= 1
                self._admitted.add(request.client, -1)
        self._taken += size
        self._room.set()
        if self._replies:
            self._wake()
        return replies

    def index_stopped(self) -> None:
        """Stop reading the index, which may be rebuilt: drop what is open of it, and open nothing for now."""
        self.index_is_readable = False
        self.faults.generation += 1
        self.long_polls.index_restarted()

    def index_started(self) -> None:
        """Read the index again: it has reported its position."""
        self.index_is_readable = True
        self.long_polls.index_restarted()

    def stop(self) -> None:
        """Let the threads end after their current step; reads that wait are not answered."""
        self._stopping = True
        self.long_polls.stop()
        for thread in self._threads.values():
            thread.stop()
        for thread in self._threads.values():
            thread.join()

    def drop_replaced(self) -> None:
        """Let go of files of segments that were packed. Called by the loop."""
        with self._readers_lock:
            readers = list(self._readers)
        for reader in readers:
            try:
                reader.chain.drop_replaced(closes=False)
            except OSError as error:  # it keeps the old file open, which has the same bytes
                _log.warning("segment_kept_open", reason=str(error))

    # --- in the threads ----------------------------------------------------------------------------

    def reply(self, request: ReadRequest, frame: bytes) -> None:
        """Hand over an answer. Waits while the loop has too many to collect (backpressure)."""
        with self._handing:
            self._handed += len(frame)
        self._replies.append((request, frame))
        self._wake()
        while self._handed - self._taken > _UNTAKEN_BYTES_MAX and not self._stopping:
            self._room.clear()
            self._room.wait(_UNTAKEN_WAIT_SECONDS)

    def fields(self, request: ReadRequest, answer: Answer) -> dict[str, object]:
        """Header fields of an answer besides its position; for `readAll` the epochs as well."""
        if request.op != "readAll":
            return answer.fields
        until, arguments = answer.fields["next"], request.arguments
        assert isinstance(until, int)
        after = arguments.get("waitedFrom", arguments.get("after", 0))
        begun = {"after": after} if "last" in arguments or "name" in arguments else {}
        return answer.fields | begun | self._epochs.between(after, until)

    def open_source(self) -> Source:
        """Open index and journal for the calling thread.

        Raises:
            Refusal: BUSY.
        """
        generation = self.faults.generation
        if self.index_is_readable:
            reader = JournalReader(self._files, self._journal_dir)
            with self._readers_lock:
                self._readers.add(reader)
            source = Source(
                connect(self._path, read_only=True),
                reader,
                ListingCache(self._listings_bytes),
                generation,
            )
            source.indexed()  # opens all of its files
            if generation == self.faults.generation:
                return source
            source.close()  # maybe some files of the old index, and some of the new one
        raise Refusal(ErrorCode.BUSY, "the index is being rebuilt")

    # --- in the subscriptions' thread --------------------------------------------------------------

    def answer(self, request: ReadRequest, answer: Answer, position: int) -> None:
        """Answer a subscription."""
        read, buffers = begin(request, answer), list[Buffer]()
        try:
            for _ in read.make_part(self._answer_bytes, buffers):
                pass
            fields = self.fields(request, answer)
            frame = frame_of(request, read, buffers, self.open_reads, _LISTING, position=position, **fields)
        except Refusal as refusal:
            self.refuse(request, refusal)
            return
        self._long_poll_counter.note(request.op)
        self.reply(request, frame)

    def refuse(self, request: ReadRequest, refusal: Refusal) -> None:
        """Answer a subscription with an error."""
        self._long_poll_counter.note(request.op, refusal.code.value)
        self.reply(request, frames.error_answer(request.id, refusal))

    def go_on(self, request: ReadRequest) -> None:
        """Answer a subscription as a read that does not wait."""
        self._threads[_LISTING].put(request)
