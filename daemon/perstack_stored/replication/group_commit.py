"""Group commit into a replicated log: batches are published, and answered when they have been applied here.

A message goes out when stores wait; several are in flight. What the log brings, own and others', is applied
in its order, written to this daemon's journal, and answered after the sync.
"""

import dataclasses
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from typing import Any

import structlog

from perstack_storage.protocol import ErrorCode
from perstack_stored.config.settings import Settings
from perstack_stored.errors import Refusal, StorageFullError, StreamFailedError
from perstack_stored.journal.last_writers import Expectation
from perstack_stored.journal.log_place import LogPlace
from perstack_stored.model.portions import ByteShares
from perstack_stored.protocol.messages import Reply
from perstack_stored.store.cursor_requests import CursorRequest
from perstack_stored.store.group_commit import DeletionStored, GroupCommit, HeldRead, LoopContext
from perstack_stored.store.large_values import LargeValueQueue
from perstack_stored.store.requests import Payload, StoreRequest

from . import message as log_message
from .apply import LogCommitter
from .message import BadMessageError, Message, MessageType
from .own_deletions import OwnDeletions
from .pieces import Assembler
from .pipeline import InFlight, Pipeline, Waiting
from .publication import Entered, OwnSession, enter, enter_cursor
from .stream import LoggedMessage, Stream

MESSAGE_RECORDS_MAX = 1024
MESSAGE_BYTES_MAX = 256 << 10
"""Values that share a message; a larger one goes alone."""
_ENVELOPE_BYTES = 64 << 10  # of a message besides the values: room that is left free
_BEACON_SECONDS = 60.0
_DIGESTS_KEPT = 4096
_FULL_PAUSE_SECONDS = 1.0
_HELD_READS_MAX = 4096
_LATE_SYNC_SECONDS = 0.01  # until what nobody here waits for is synced; the index is fed no more often
_LATE_BYTES_MAX = 1 << 20

_log = structlog.get_logger()


class ReplicatedGroupCommit(GroupCommit):
    """Publishes stores, and applies what the log brings."""

    def __init__(
        self,
        committer: LogCommitter,
        large_values: LargeValueQueue,
        context: LoopContext,
        stream: Stream,
        message_bytes_max: int,
    ) -> None:
        """Prepare it.

        Args:
            committer: applies messages.
            large_values: see `GroupCommit`.
            context: see `GroupCommit`.
            stream: the log, open after what the committer's journal has applied.
            message_bytes_max: largest message that the log takes.
        """
        super().__init__(committer, large_values, context)
        settings = context.settings
        self._log_committer = committer
        self.stream = stream
        self.request_bytes_max = message_bytes_max - _ENVELOPE_BYTES
        self.holds = settings.strict_reads
        self._daemon = secrets.token_bytes(16)  # of this process: its numbers begin with 1
        self._own_session = secrets.token_bytes(16)  # for stores without one
        self._own_seq = 0
        self._own_guard = 0  # the newest deletion when it began
        self._number = 0
        self._pipeline = Pipeline(stream)
        self._deletions = OwnDeletions()
        self._assembler = Assembler()
        self._unapplied: deque[LoggedMessage] = deque()
        self._full_until = 0.0
        self._held: list[HeldRead] = []
        self._held_shares = ByteShares()
        self._released: deque[tuple[int, list[HeldRead]]] = deque()  # each with what must be synced for it
        self._sync_by: float | None = None  # of what is written, and nobody here waits for
        self._digests: OrderedDict[int, LogPlace] = OrderedDict()
        self._beacon_at = time.monotonic() + _BEACON_SECONDS
        self._bound_batches(settings)

    def __len__(self) -> int:
        return super().__len__() + len(self._pipeline)

    def __iter__(self) -> Iterator[StoreRequest | CursorRequest | HeldRead]:
        yield from super().__iter__()
        yield from self._held
        for message in self._pipeline:
            yield from message.reads

    @property
    def has_work(self) -> bool:
        """The log may have brought something at any time."""
        return True

    @property
    def place(self) -> LogPlace:
        """What this daemon has applied."""
        return self._log_committer.place

    def describe(self) -> dict[str, Any]:
        """The fields `replication` of `stats`. May be called from another thread."""
        applied = self.place.sequence
        return {
            "enabled": True,
            "sequence": applied,
            "lagMessages": max(0, self.stream.last - applied),
            "connected": self.stream.connected,
            "fault": self.stream.fault,
            "inFlight": len(self._pipeline),
            "resent": self._pipeline.resent,
            "heldReads": len(self._held),
        }

    def apply_settings(self, settings: Settings) -> None:
        """Apply changed bounds."""
        super().apply_settings(settings)
        self._bound_batches(settings)

    def _bound_batches(self, settings: Settings) -> None:
        self._message_bounds = dataclasses.replace(
            settings,
            commit_records_max=min(settings.commit_records_max, MESSAGE_RECORDS_MAX),
            commit_bytes_max=min(settings.commit_bytes_max, MESSAGE_BYTES_MAX),
        )

    # --- admission ---------------------------------------------------------------------------------

    def admit(self, request: StoreRequest) -> list[StoreRequest]:
        """Admit a store, which then waits for a message."""
        if request.size > self.request_bytes_max:
            raise Refusal(
                ErrorCode.TOO_LARGE,
                f"a replicated journal takes at most {self.request_bytes_max} bytes in one request",
            )
        return super().admit(request)

    def hold(self, read: HeldRead) -> None:
        """Let a read wait until all is applied that other daemons have acknowledged before it came.

        Raises:
            Refusal: BUSY.
        """
        busy = "too many reads wait for the replicated log"
        self._held_shares.take_place(read.client, _HELD_READS_MAX, busy)
        self._held.append(read)

    # --- commit ------------------------------------------------------------------------------------

    def commit_batch(self) -> bool:
        """Apply what the log has brought, and publish what waits. Returns whether there was anything."""
        now = time.monotonic()
        self._pipeline.on_tick(now)
        applied = self._apply_next(now)
        self._sync_late(now)
        self._release()
        return self._publish_next(now) or applied

    def answer_synced(self) -> None:
        """Send the answers of what is synced, and start the reads that waited for it."""
        super().answer_synced()
        self._release()

    @property
    def syncs_late(self) -> bool:
        """Whether something is written whose sync is due within milliseconds."""
        return self._sync_by is not None

    def sync_written(self) -> None:
        """Start a sync of what is written, unless one runs, or nobody here waits for it yet."""
        if self.has_unanswered:
            super().sync_written()
        else:
            self._sync_late(time.monotonic())

    def _sync_late(self, now: float) -> None:
        """Start the sync of what other daemons have stored, when it is due."""
        if self._sync_by is None or self._journal.syncing:
            return
        if now >= self._sync_by or self._journal.unsynced_bytes > _LATE_BYTES_MAX:
            self._sync_by = None
            self._journal.sync_soon(self._wake)

    def complete(self) -> None:
        """Wait a moment for what is in flight; sync and answer what is written."""
        until = time.monotonic() + min(1.0, self._settings.stop_seconds)
        while self._pipeline and time.monotonic() < until:
            if not self.commit_batch():
                super().complete()
                time.sleep(0.002)
        super().complete()

    def stop(self) -> None:
        """End the threads."""
        super().stop()
        self.stream.stop()

    def store_deletion(self, payload: Payload, unchanged: Expectation, stored: DeletionStored) -> None:
        """Publish a deletion of the daemon's own; `stored` is called when it is applied, or refused."""
        self._deletions.add(payload, unchanged, stored)

    # --- publishing --------------------------------------------------------------------------------

    def _publish_next(self, now: float) -> bool:
        if not self._pipeline.has_room:
            return False
        batch = self._queue.next_batch(self._message_bounds)
        arrivals = self._arrivals.take(len(batch))
        cursors = self._cursors.take()
        large: list[tuple[float, StoreRequest]] = []
        if self._large_values:
            self._large_values.collect_check()
            large = self._large_values.next_batch(self._message_bounds, self._queue.passed())
        batch += self._deletions.take()
        if batch or cursors:
            self._publish(batch, cursors, arrivals)
        for since, request in large:
            self._publish([request], (), [(since, 1)])
        if self._held:
            self._send(MessageType.BARRIER, [], [])
        elif now >= self._beacon_at:
            self._beacon_at = now + _BEACON_SECONDS
            self._send(MessageType.BEACON, [], [])
        return bool(batch or cursors or large)

    def _publish(
        self,
        batch: Sequence[StoreRequest],
        cursors: Sequence[CursorRequest],
        arrivals: list[tuple[float, int]],
    ) -> None:
        entered: list[Entered] = []
        guard = self.committer.guards.newest
        if guard > self._own_guard:
            # A store without a session is newer than any deletion: its session must be, too.
            self._own_session, self._own_seq, self._own_guard = secrets.token_bytes(16), 0, guard
        settled = self._own_settled() if any(request.key is None for request in batch) else 0
        for request in batch:
            given = None
            if request.key is None:
                given = OwnSession(self._own_session, self._own_seq + 1, settled)
                self._own_seq += len(request.items)
            entered.append(enter(request, given))
        entered += [enter_cursor(request) for request in cursors]
        self._counters.commit_records.add(sum([len(request.items) for request in batch]))
        self._send(MessageType.STORES, entered, arrivals)

    def _own_settled(self) -> int:
        """The number up to which all stores of this daemon's own session are answered."""
        seqs = [
            waiting.seq
            for message in self._pipeline
            for waiting in message.waiting.values()
            if waiting.session == self._own_session
        ]
        return min(seqs, default=self._own_seq + 1) - 1

    def _send(self, type: MessageType, entered: list[Entered], arrivals: list[tuple[float, int]]) -> None:
        self._number += 1
        place = self.place if type is MessageType.BEACON else None
        logged = [one.logged for one in entered]
        body = log_message.encode(type, self._daemon, self._number, logged, place)
        waiting = {i: Waiting(one.own, one.logged.session, one.logged.seq) for i, one in enumerate(entered)}
        reads, self._held = self._held, []
        self._pipeline.send(self._number, InFlight(body, waiting, arrivals, reads))

    # --- applying ----------------------------------------------------------------------------------

    def _apply_next(self, now: float) -> bool:
        journal = self._journal
        if now < self._full_until or journal.unsynced_bytes > 2 * self._settings.commit_bytes_max:
            return False
        while not self._unapplied and self._take_from_log(now):
            pass  # pieces of a message that is not whole yet
        if not self._unapplied:
            return False
        replies: list[Reply] = []
        arrivals: list[tuple[float, int]] = []
        count = 0
        while self._unapplied:
            try:
                found, came = self._apply(self._unapplied[0], now)
            except StorageFullError as error:
                _log.error("storage_full", reason=str(error))
                self._full_until = now + _FULL_PAUSE_SECONDS
                break
            self._unapplied.popleft()
            replies += found
            arrivals += came
            count += 1
        self._release()
        if replies or arrivals or self._released:
            self._sync_by = None
            self._answer_when_synced(replies, arrivals, len(replies))
        elif count and self._sync_by is None:
            self._sync_by = now + _LATE_SYNC_SECONDS
        return count > 0

    def _take_from_log(self, now: float) -> bool:
        """Take what has come, put together where it came in pieces. Returns whether something has."""
        taken = self.stream.take(self._settings.commit_bytes_max)
        for logged in taken:
            whole = self._assembler.take(logged)
            if whole is not None:
                self._unapplied.append(whole)
        for daemon, number in self._assembler.dropped:
            _log.warning("stream_message_incomplete", own=daemon == self._daemon)
            if daemon == self._daemon:
                self._pipeline.send_again(number, now)
        self._assembler.dropped.clear()
        return bool(taken)

    def _apply(self, logged: LoggedMessage, now: float) -> tuple[list[Reply], list[tuple[float, int]]]:
        try:
            message = log_message.decode(logged.body)
        except BadMessageError as error:
            _log.warning("stream_foreign_message", sequence=logged.sequence, reason=str(error))
            message = Message(MessageType.BARRIER, b"", 0, 0, [], None)
        flying = self._pipeline.find(message.number) if message.daemon == self._daemon else None
        own = {} if flying is None else {i: one.request for i, one in flying.waiting.items()}
        applied = self._log_committer.apply(logged, message, own)
        self._note_place(message)
        if flying is None:
            return applied.replies, []
        replies = applied.replies
        gaps = self._pipeline.settle(message.number, applied.gaps, now)
        for index, refusal in gaps.items():
            mine = own[index]
            replies.append((mine.envelope, self.committer.answers.refuse(mine.id, refusal, mine.op)))
        if flying.reads:
            self._released.append((self._journal.written.position, flying.reads))
            flying.reads = []
        arrivals, flying.arrivals = flying.arrivals, []
        return self._deletions.settle(replies), arrivals

    def _note_place(self, message: Message) -> None:
        """Remember a place, and compare it with a beacon.

        Raises:
            StreamFailedError: another daemon has come to another history.
        """
        theirs = message.place
        if theirs is not None:
            mine = self._digests.get(theirs.sequence)
            if mine is not None and (mine.position, mine.digest) != (theirs.position, theirs.digest):
                raise StreamFailedError(
                    f"DIVERGED: after message {theirs.sequence} of the stream this daemon is at position"
                    f" {mine.position} and another one at {theirs.position}, or their records differ. One of"
                    " them is wrong: compare both with `perstack-stored dump`, and restore that one"
                )
        place = self.place
        self._digests[place.sequence] = place
        while len(self._digests) > _DIGESTS_KEPT:
            self._digests.popitem(last=False)

    # --- reads that wait ---------------------------------------------------------------------------

    def _release(self) -> None:
        synced = self._journal.mark.position
        while self._released and self._released[0][0] <= synced:
            _, reads = self._released.popleft()
            for read in reads:
                self._held_shares.add(read.client, -1)
                read.start()

    def take_expired(self, now: float) -> list[HeldRead]:
        """Take out the reads whose deadline has passed; the caller refuses them."""
        expired: list[HeldRead] = []
        lists = [self._held, *[message.reads for message in self._pipeline]]
        for reads in lists:
            late = [read for read in reads if read.deadline is not None and read.deadline < now]
            if late:
                reads[:] = [read for read in reads if read.deadline is None or read.deadline >= now]
                expired += late
        for read in expired:
            self._held_shares.add(read.client, -1)
        return expired
