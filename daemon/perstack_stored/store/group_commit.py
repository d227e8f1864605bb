"""Group commit: stores wait in queues, a batch is written, one sync covers it, then they are answered.

The write path reads from here: `admit`, `commit_batch`, `Committer.commit`, `JournalWriter.write`, a sync,
`answer_synced`. One thread calls all of it.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import structlog

from perstack_stored.config.settings import Settings
from perstack_stored.journal.entry_format import Buffer
from perstack_stored.journal.last_writers import Expectation
from perstack_stored.journal.reader import LogPosition
from perstack_stored.journal.writer import Append
from perstack_stored.model.shares import Client
from perstack_stored.observe.counters import ArrivalTimes, LoopCounters
from perstack_stored.protocol.messages import Envelope, Reply, ReplySink

from .commit import Committer
from .commit_queue import CommitQueue
from .cursor_requests import CursorQueue, CursorRequest
from .large_values import LargeValueQueue
from .requests import Payload, StoreRequest

# A sync in the loop costs less processor time than one in a thread: the two would take the interpreter's lock
# from each other. In a thread, the loop decodes the next stores while the disk works on a long sync.
_INLINE_SECONDS_MAX = 0.001  # of the sync before
_INLINE_BYTES_MAX = 40 << 10
_FEW_REQUESTS = 4  # so few sync in the loop even after a longer sync, and with more bytes
_FEW_BYTES_MAX = 1 << 20
# While the disk syncs, fewer stores than these wait until it has ended: each write has a cost of its own.
_GATHERED_REQUESTS_MAX = 8
_GATHERED_BYTES_MAX = 32 << 10

_log = structlog.get_logger()


class HeldRead(NamedTuple):
    """A read that waits for what other daemons have stored.

    Attributes:
        start: starts it.
        deadline: a monotonic time, or None.
    """

    envelope: Envelope
    id: int
    op: str
    client: Client
    deadline: float | None
    start: Callable[[], None]


class LoopContext(NamedTuple):
    """What the serving loop gives to the write path.

    Attributes:
        counters: counts commits and syncs.
        settings: bounds of a batch, and of the stores that wait.
        sink: sends the answers.
        wake: called from another thread when a sync has ended.
    """

    counters: LoopCounters
    settings: Settings
    sink: ReplySink
    wake: Callable[[], None]


DeletionStored = Callable[[int | None], None]
"""Called with the position of a deletion, or None: somebody has stored for the job meanwhile."""


class PendingBatch(NamedTuple):
    """A batch that is written and not synced yet.

    Attributes:
        end: the end of what was written. Cursors take no position: a position alone does not tell it.
        replies: what is sent once that is synced.
        arrivals: when its requests came in, and how many at each time.
    """

    end: LogPosition
    replies: list[Reply]
    arrivals: list[tuple[float, int]]


class GroupCommit:
    """Writes stores in batches, and answers a batch when a sync covers it."""

    def __init__(self, committer: Committer, large_values: LargeValueQueue, context: LoopContext) -> None:
        """Prepare it; no store waits yet.

        Args:
            committer: writes a batch to the journal.
            large_values: queue of the stores that are checked outside of the calling thread.
            context: of the loop.
        """
        self.committer = committer
        self._journal = committer.journal
        self._queue = CommitQueue()
        self._cursors = CursorQueue()
        self._large_values = large_values
        self._counters, self._settings, self._sink, self._wake = context
        self._pending: deque[PendingBatch] = deque()
        self._arrivals = ArrivalTimes()
        self._arrivals_noted = 0
        self._evicted = 0  # since the last noted arrivals
        self._syncs_noted = 0
        self._gathers = True
        self.request_bytes_max = 2**40  # no bound besides those of the settings
        self.holds = False  # whether reads wait for stores at other daemons

    def __len__(self) -> int:
        return len(self._queue) + len(self._large_values) + len(self._cursors)

    def __iter__(self) -> Iterator[StoreRequest | CursorRequest | HeldRead]:
        yield from self._queue
        yield from self._large_values
        yield from self._cursors

    @property
    def bytes(self) -> int:
        """Memory of the stores that wait to be written."""
        return self._queue.bytes + self._large_values.bytes

    @property
    def has_work(self) -> bool:
        """Whether `commit_batch` may have something to do."""
        return bool(self._queue or self._large_values or self._cursors)

    @property
    def has_unanswered(self) -> bool:
        """Whether written batches wait for a sync before they are answered."""
        return bool(self._pending)

    @property
    def syncs_late(self) -> bool:
        """Whether something is written whose sync is due within milliseconds, though nobody waits for it."""
        return False

    def apply_settings(self, settings: Settings) -> None:
        """Apply changed bounds."""
        self._settings = settings

    # --- admission ---------------------------------------------------------------------------------

    def admit(self, request: StoreRequest) -> list[StoreRequest]:
        """Admit a store, which then waits for a commit.

        Returns:
            The stores that give way to it. They belong to a client that has more waiting; the caller refuses
            them.

        Raises:
            Refusal: BUSY.
        """
        if request.expect is not None:
            self.committer.fences.begin()
        if self._large_values.has(request):
            self._large_values.admit(request, self._settings, self._queue.came)
            return []
        evicted = self._queue.admit(request, self._settings)
        self._evicted += len(evicted)
        return evicted

    def admit_cursor(self, request: CursorRequest) -> None:
        """Admit a request to set or delete a cursor; raises Refusal (BUSY)."""
        self._cursors.admit(request)

    def note_arrivals(self, since: float) -> None:
        """Set the arrival of the stores admitted since the last call to `since`, a monotonic time."""
        count = self._queue.came - self._arrivals_noted
        if count:
            self._arrivals_noted = self._queue.came
            self._arrivals.came(since, count)
            if self._evicted:
                self._arrivals.take(self._evicted)
                self._evicted = 0

    def describe(self) -> dict[str, Any]:
        """The fields `replication` of `stats`: this machine alone orders the records."""
        return {
            "enabled": False,
            "sequence": 0,
            "lagMessages": 0,
            "connected": False,
            "fault": "",
            "inFlight": 0,
            "resent": 0,
            "heldReads": 0,
        }

    def hold(self, read: HeldRead) -> None:
        """Start a request once all is here that other daemons have stored: here at once."""
        read.start()

    def take_expired(self, now: float) -> list[HeldRead]:
        """Take out the requests that waited so until their deadline; the caller refuses them."""
        del now
        return []

    # --- commit ------------------------------------------------------------------------------------

    def commit_batch(self) -> bool:
        """Write the next batch, of what waits, and start its sync. Returns whether there was one.

        Raises:
            JournalFailedError: no store may be answered; the process must end.
        """
        journal = self._journal
        if journal.unsynced_bytes > 2 * self._settings.commit_bytes_max:
            return False
        if journal.syncing and self._gathers_more():
            return False
        batch = self._queue.next_batch(self._settings)
        arrivals = self._arrivals.take(len(batch))
        if self._large_values:
            self._large_values.collect_check()
            for since, request in self._large_values.next_batch(self._settings, self._queue.passed()):
                batch.append(request)
                arrivals.append((since, 1))
            if not batch and not self._cursors:
                return False
        replies = self.committer.commit(batch, self._cursors.take())
        self._counters.commit_records.add(sum([len(request.items) for request in batch]))
        self._answer_when_synced(replies, arrivals, len(batch))
        return True

    def _answer_when_synced(
        self, replies: list[Reply], arrivals: list[tuple[float, int]], requests: int
    ) -> None:
        """Send answers once what is written is synced: at once, or in the thread."""
        journal = self._journal
        written = journal.written
        self._pending.append(PendingBatch(written, replies, arrivals))
        if journal.mark == written:
            self.answer_synced()  # only repeats and refusals: no sync will come for them
        elif self._syncs_inline(requests):
            journal.sync()
            self.answer_synced()
        else:
            journal.sync_soon(self._wake)

    def store_deletion(self, payload: Payload, unchanged: Expectation, stored: DeletionStored) -> None:
        """Store a deletion of the daemon's own, of a job that nobody has stored for.

        Args:
            payload: of the deletion.
            unchanged: the job, and the position up to which it was looked at; the caller has seen to that.
            stored: called when it is written.

        Raises:
            StorageFullError: there is no room; nothing was written.
            JournalFailedError: the process must end.
        """
        del unchanged
        position = self.committer.delete(payload)
        self._pending.append(PendingBatch(self._journal.written, [], []))
        self._journal.sync_soon(self._wake)
        stored(position)

    def store_copied(self, batch: Sequence[Append], cursors: Buffer) -> None:
        """Write what was copied of another journal, which nobody waits for.

        Raises:
            StorageFullError: there is no room; nothing was written.
            JournalFailedError: the process must end.
        """
        self.committer.note_copied(batch, self._journal.write(batch, cursors))
        self._pending.append(PendingBatch(self._journal.written, [], []))
        self._journal.sync_soon(self._wake)

    def collect_sync(self) -> bool:
        """Answer the batches that a finished sync covers; returns whether there was one.

        The caller commits what waits, and then calls `sync_written`.
        """
        if not self._journal.collect_sync():
            return False
        self.answer_synced()
        return True

    def sync_written(self) -> None:
        """Start a sync of what is written, unless one runs."""
        self._journal.sync_soon(self._wake)

    def stop_gathering(self) -> None:
        """Write each store at once from now on."""
        self._gathers = False

    def complete(self) -> None:
        """Sync what is written, and answer it."""
        self._journal.sync()
        self.answer_synced()

    def answer_synced(self) -> None:
        """Send the answers of the batches that are synced."""
        self._note_sync()
        synced = self._journal.mark
        while self._pending and self._pending[0].end <= synced:
            batch = self._pending.popleft()
            for envelope, frame in batch.replies:
                self._sink.send(envelope, frame)
            now = time.monotonic()
            for since, count in batch.arrivals:
                self.committer.answers.counter.seconds.add(now - since, count)
        self._sink.flush()

    def stop(self) -> None:
        """End the thread and the process that check large values."""
        self._large_values.stop()
        self.committer.fences.stop()

    def _gathers_more(self) -> bool:
        """Whether what waits is so little that it is written with what comes until the sync has ended."""
        return (
            self._gathers
            and len(self._queue) < _GATHERED_REQUESTS_MAX
            and self._queue.bytes < _GATHERED_BYTES_MAX
            and not self._large_values
            and not self._cursors
        )

    def _syncs_inline(self, requests: int) -> bool:
        journal = self._journal
        if journal.syncing:
            return False
        if requests <= _FEW_REQUESTS:
            return journal.unsynced_bytes <= _FEW_BYTES_MAX
        return journal.unsynced_bytes <= _INLINE_BYTES_MAX and journal.sync_seconds <= _INLINE_SECONDS_MAX

    def _note_sync(self) -> None:
        if self._journal.syncs == self._syncs_noted:
            return
        self._syncs_noted = self._journal.syncs
        seconds = self._journal.sync_seconds
        self._counters.syncs.add(seconds)
        if seconds * 1000 > self._settings.slow_sync_ms:
            self._counters.slow_syncs += 1
            _log.warning("slow_sync", ms=round(seconds * 1000, 1))
