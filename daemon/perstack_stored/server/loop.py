"""The serving loop: drain what came, commit the stores with one sync, answer; hand reads to those beside it.

One thread owns the sockets, the journal and the sessions. The way of a store: `_drain` → `_request` →
`_commit` → `Committer.commit` → `JournalWriter.write`, then its sync → `Endpoints.send`. What becomes of
index and tree is the concern of `ProjectionCoordinator`.
"""

import os
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import structlog

from perstack_storage.protocol import ErrorCode
from perstack_stored.access.curve_keys import Access
from perstack_stored.access.peers import Peers
from perstack_stored.config.settings import Settings
from perstack_stored.datadir.layout import STORED_NAME
from perstack_stored.errors import Refusal
from perstack_stored.journal.sessions import Sessions
from perstack_stored.journal.writer import JournalWriter
from perstack_stored.observe import log
from perstack_stored.observe.counters import ArrivalTimes, LoopCounters
from perstack_stored.observe.prometheus import MetricsSource
from perstack_stored.observe.systemd import Notifier
from perstack_stored.projection.process import ProjectionProcess
from perstack_stored.protocol import frames as wire
from perstack_stored.protocol.frames import RequestHeader
from perstack_stored.protocol.messages import Envelope, Reply
from perstack_stored.protocol.multipart import MultipartAssembler
from perstack_stored.read.arguments import ARGUMENTS, check_arguments, check_history
from perstack_stored.read.executor import ReadExecutor
from perstack_stored.read.requests import ReadRequest
from perstack_stored.read.window import RECORDS_MAX as NEAR_THE_END_RECORDS
from perstack_stored.store.commit import Committer
from perstack_stored.store.commit_queue import CommitQueue
from perstack_stored.store.large_values import LargeValueQueue
from perstack_stored.store.requests import Payload, StoreRequest, open_request
from perstack_stored.transport.endpoints import Endpoints
from perstack_stored.transport.wakeup import WakeupPipe

from .projections import ProjectionCoordinator
from .status import StatusReporter

_IDLE_SECONDS = 0.5
_HOUSEKEEPING_SECONDS = 0.01
_READS_WAIT_SECONDS = 0.0005
_INLINE_REQUESTS_MAX = 4
_INLINE_BYTES_MAX = 1 << 20
_LAST_DRAIN_SECONDS = 0.5

_log = structlog.get_logger()


class Server:
    """Serves what comes in by the doors until `stop` is called."""

    def __init__(  # noqa: PLR0913, PLR0917 - the parts that it joins
        self,
        doors: Endpoints,
        journal: JournalWriter,
        sessions: Sessions,
        reads: ReadExecutor,
        followers: tuple[ProjectionProcess, ProjectionProcess],
        waker: WakeupPipe,
        settings: Settings,
        base: str,
        read_settings: Callable[[], Settings],
        peers: Peers,
        notifier: Notifier | None = None,
    ) -> None:
        self._doors = doors
        self._journal = journal
        self._stores = Committer(journal, sessions)
        self._sessions = sessions
        self._reads = reads
        self._waker = waker
        self._settings = settings
        self._base = base
        self._read_settings = read_settings
        self._peers = peers
        self._reloading = False
        self._parts = MultipartAssembler(
            value_bytes_max=settings.value_bytes_max,
            budget_bytes=settings.parts_bytes_max,
            silence_seconds=settings.parts_seconds,
        )
        peers.on_leaving(self._parts.forget)
        self._held = CommitQueue()
        self._gave_up = 0  # of those, to be taken off the arrivals
        self._apart = LargeValueQueue(waker.wake, peers.client)
        # Answers of batches that are written: the last position of the batch, what is to be sent, and since
        # when it has been waited for.
        self._unsynced: deque[tuple[int, list[Reply], list[tuple[float, int]]]] = deque()
        self._arrivals = ArrivalTimes()
        self._waiting: deque[ReadRequest] = deque()
        self._stopping = False
        self.figures = LoopCounters()
        self._telling = StatusReporter(
            settings, base, journal, sessions, self._stores, self._parts, reads, doors, followers
        )
        self._notifier = notifier or Notifier()
        peers.on_leaving(reads.left)
        self._care = ProjectionCoordinator(followers, journal, reads, doors, self._telling, self._notifier)
        self._syncs_noted = 0
        self._gave_way = (0, 0)  # values in parts, and sessions
        self._housekept = 0.0
        self._next_tidy = 0.0
        self._next_expiry = 0.0

    def stop(self) -> None:
        """Make `run` return, after what has arrived was answered. May be called from a signal handler."""
        self._stopping = True
        self._waker.wake()

    def reload(self) -> None:
        """Make the loop take up new settings. May be called from a signal handler."""
        self._reloading = True
        self._waker.wake()

    def await_tree(self, position: int) -> None:
        """Wait until the tree is whole again up to a position; after a crash, files may be torn before."""
        self._care.await_tree(position, until=lambda: self._stopping)

    def run(self) -> None:
        """Serve until stopped.

        Raises:
            JournalFailedError: the journal can't be written; nobody was told otherwise.
            GateFailedError: nobody watches who connects.
        """
        self._doors.watch(self._waker.fd)
        while not self._stopping:
            self._drain()
            while self._commit():
                pass
            self._settle()
            self._housekeeping()
            self._doors.flush()
            self._wait()
        self._last_round()

    # --- the loop ----------------------------------------------------------------------------------

    def _drain(self) -> bool:
        """Take in some of what has arrived; whether there was something. Never blocks."""
        now, came = time.monotonic(), self._held.came
        messages = self._doors.take(self._settings.drain_messages_max, self._settings.commit_bytes_max)
        for envelope, frame in messages:
            if frame is None:
                self._refuse(
                    envelope, None, Refusal(ErrorCode.BAD_FRAME, "the message has too many frames"), ""
                )
            else:
                self._request(envelope, frame)
        self.figures.messages += len(messages)
        if self._held.came > came:
            self._arrivals.came(now, self._held.came - came)
            if self._gave_up:
                self._arrivals.take(self._gave_up)
                self._gave_up = 0
        return bool(messages)

    def _wait(self) -> None:
        """Sleep until something happens."""
        hurry = self._doors.retry() or self._waiting or self._care.index.sent != self._journal.mark
        woken = self._doors.wait(_HOUSEKEEPING_SECONDS if hurry else _IDLE_SECONDS)
        if woken is None:
            self._housekept = 0.0
        elif woken:
            if self._waker.fd in woken:
                self._waker.clear()
            if not self._care.polled.isdisjoint(woken):
                self._housekept = 0.0

    def _housekeeping(self) -> None:
        """What other threads and processes have for us.

        Not after each commit: it would cost more than the commits.
        """
        if self._reads.answered:
            for envelope, frame in self._reads.take_replies():
                self._doors.send(envelope, frame)
        now = time.monotonic()
        pause = _READS_WAIT_SECONDS if self._waiting else _HOUSEKEEPING_SECONDS
        if now - self._housekept < pause and not self._reloading:
            return
        self._housekept = now
        self._notifier.beat(now, self._telling.line)
        if self._reloading:
            self._reload()
        self._care.follow(hurry=bool(self._waiting))
        self._note_course(now)
        self._release_reads()
        if now >= self._next_tidy:
            self._next_tidy = now + 1.0
            self._doors.on_tick(now)
            self._peers.on_tick()
            self._journal.watch_clock()
            silent = self._parts.forget_silent()
            if silent:
                _log.warning("parts_forgotten", values=silent, reason="their senders fell silent")
            self._tell_who_gave_way()

    def _tell_who_gave_way(self) -> None:
        gave_way = self._parts.gave_way, self._sessions.gave_way
        values, sessions = (now - before for now, before in zip(gave_way, self._gave_way, strict=True))
        self._gave_way = gave_way
        if values:
            _log.warning("parts_forgotten", values=values, reason="others needed their room")
        if sessions:
            _log.warning(
                "sessions_gave_way", sessions=sessions, reason="one client has most, others needed places"
            )

    def _reload(self) -> None:
        self._reloading = False
        self._settings = self._read_settings()
        self._doors.apply_settings(self._settings)

    def _last_round(self) -> None:
        """Answer what had arrived before the stop."""
        deadline = time.monotonic() + _LAST_DRAIN_SECONDS
        while time.monotonic() < deadline:
            drained = self._drain()
            while self._commit():
                pass
            if not drained and self._doors.wait(0) is None:
                break
        self._journal.sync()
        self._answer_synced()
        stopping = Refusal(ErrorCode.STOPPING, "the daemon is stopping")
        while self._reads.pending and time.monotonic() < deadline:
            self._care.follow(hurry=bool(self._waiting))
            self._release_reads()
            for envelope, frame in self._reads.take_replies():
                self._doors.send(envelope, frame)
            time.sleep(0.001)
        for request in (*self._held, *self._apart):
            self._refuse(request.envelope, request.id, stopping, request.op)
        for read in (*self._waiting, *self._reads.tail.release()):
            self._refuse(read.envelope, read.id, stopping, read.op)
        self._apart.stop()
        self._doors.flush()

    # --- requests ----------------------------------------------------------------------------------

    def _request(self, envelope: Envelope, frame: bytes) -> None:
        """Look at a request: hold a store for the next commit, pass on a read, or answer."""
        id, op = None, ""
        try:
            head, body = wire.split(frame)
            if len(frame) > self._settings.frame_bytes_max:
                id = wire.rescue_id(head)
                raise Refusal(
                    ErrorCode.TOO_LARGE,
                    f"the frame is larger than limits.frameBytes ({self._settings.frame_bytes_max})",
                )
            try:
                header = wire.decode_header(head)
            except Refusal:
                id = wire.rescue_id(head)
                raise
            id, op = header.id, header.op
            stores = op in wire.STORE_KINDS or op == wire.BATCH_OP
            if self._peers.strict:
                self._peers.authorize(envelope[0], Access.WRITE if stores else Access.READ, op, id)
            if stores:
                self._store(envelope, header, body)
            elif header.op in ARGUMENTS:
                self._read(envelope, header, body)
            else:
                self._other(envelope, header)
        except Refusal as refusal:
            self._refuse(envelope, id, refusal, op)
        except Exception:  # noqa: BLE001 - a fault of ours in one request must not end everybody's daemon
            _log.exception("request_failed", id=id)
            fault = Refusal(ErrorCode.INTERNAL, "a fault of the daemon; its log says more")
            self._refuse(envelope, id, fault, op)

    def _refuse(self, envelope: Envelope, id: int | None, refusal: Refusal, op: str) -> None:
        if log.is_debug():
            peer = self._peers.of(envelope[0])
            who = peer.as_log_fields() if peer else {}
            _log.debug("refused", op=op, request=id, code=refusal.code.value, field=refusal.field, **who)
        self._doors.send(envelope, self._stores.refuse(id, refusal, op if op in wire.OPERATIONS else "?"))

    def _store(self, envelope: Envelope, header: RequestHeader, body: bytes) -> None:
        payload: Payload = body
        client = self._peers.client(envelope[0])
        if header.parts:
            if header.op == wire.BATCH_OP:
                raise Refusal(ErrorCode.BAD_REQUEST, "a batch can't come in parts", "parts")
            whole = self._parts.take(envelope[0], header, body, client)
            if whole is None:
                assert header.id is not None
                self._doors.send(envelope, wire.part_answer(header.id, header.part))
                return
            payload = whole
        elif header.part or header.bytes:
            raise Refusal(ErrorCode.BAD_REQUEST, "a part of a value needs parts, their count", "parts")
        request = open_request(
            envelope, header, payload, items_max=self._settings.batch_items_max, client=client
        )
        if self._peers.rates.active:
            self._peers.rates.charge(client, len(request.items), request.size)
        if self._care.index.short:
            raise Refusal(
                ErrorCode.STORAGE_FULL, "the disk is full: there is no room to index what is stored"
            )
        if self._apart.has(request):
            self._apart.hold(request, self._settings, self._held.came)
        else:
            self._hold(request)

    def _hold(self, request: StoreRequest) -> None:
        """Let a store wait for the next commit; it may take the place of others of a client that has most."""
        for other in self._held.hold(request, self._settings):
            self._gave_up += 1
            busy = Refusal(ErrorCode.BUSY, "many stores of this client wait, and others have fewer")
            self._refuse(other.envelope, other.id, busy, other.op)

    def _commit(self) -> bool:
        """Write held stores, up to a bounded batch, and see that they get synced."""
        if not (self._held or self._apart) or self._care.tree_lags_beyond(self._settings.tree_lag_bytes_max):
            return False
        if self._journal.unsynced_bytes > 2 * self._settings.commit_bytes_max:
            return False
        batch = self._held.take(self._settings)
        arrived = self._arrivals.take(len(batch))
        if self._apart:
            self._apart.settle()
            for since, request in self._apart.take(self._settings, self._held.passed()):
                batch.append(request)
                arrived.append((since, 1))
            if not batch:
                return False
        replies = self._stores.commit(batch)
        self.figures.commit_records.add(sum([len(request.items) for request in batch]))
        self._unsynced.append((self._journal.written.position, replies, arrived))
        if self._journal.mark == self._journal.written:
            self._answer_synced()  # repeats and refusals only: no sync will come for them
        elif (
            len(batch) <= _INLINE_REQUESTS_MAX
            and not self._journal.syncing
            and self._journal.unsynced_bytes <= _INLINE_BYTES_MAX
        ):
            self._journal.sync()  # a thread would cost more than it saves
            self._answer_synced()
        else:
            self._journal.sync_soon(self._waker.wake)
        return True

    def _settle(self) -> None:
        """Answer what a sync that has ended covers, and begin the next one."""
        if self._journal.settle():
            self._answer_synced()
            self._journal.sync_soon(self._waker.wake)

    def _answer_synced(self) -> None:
        self._note_sync()
        synced = self._journal.mark.position
        while self._unsynced and self._unsynced[0][0] <= synced:
            _, replies, arrived = self._unsynced.popleft()
            for envelope, frame in replies:
                self._doors.send(envelope, frame)
            now = time.monotonic()
            for since, count in arrived:
                self._stores.tally.seconds.add(now - since, count)
        self._doors.flush()

    def _note_sync(self) -> None:
        if self._journal.syncs == self._syncs_noted:
            return
        self._syncs_noted = self._journal.syncs
        seconds = self._journal.sync_seconds
        self.figures.syncs.add(seconds)
        if seconds * 1000 > self._settings.slow_sync_ms:
            self.figures.slow_syncs += 1
            _log.warning("slow_sync", ms=round(seconds * 1000, 1))

    def _read(self, envelope: Envelope, header: RequestHeader, body: bytes) -> None:
        assert header.id is not None
        arguments = check_arguments(header.op, wire.decode_arguments(body))
        if self._peers.must_mask(envelope[0]):
            arguments["masked"] = True
        if header.op == "readAll":
            check_history(
                arguments, self._journal.store.hex(), self._journal.mark.position, self._journal.epochs
            )
        deadline = None
        if header.timeoutMs is not None:
            deadline = time.monotonic() + max(0, min(header.timeoutMs, 2**31)) / 1000
        # What is held was not acknowledged: what is synced now is all that the read must see.
        position = self._journal.mark.position
        peer, client = self._peers.of(envelope[0]), self._peers.client(envelope[0])
        waits = bool(arguments.get("waitMs")) and position - arguments.get("after", 0) <= NEAR_THE_END_RECORDS
        now = time.monotonic()
        request = ReadRequest(
            envelope, header.id, header.op, arguments, position, deadline, now, peer, client, waits
        )
        if waits:
            other = self._reads.tail.add(request)
            if other is not None:
                busy = Refusal(ErrorCode.BUSY, "a read that waits gave way to those of other clients")
                self._refuse(other.envelope, other.id, busy, other.op)
            return
        self._reads.admit(client, self._settings.reads_max)
        if header.op == "readPart" or self._care.indexed(position):
            self._reads.submit(request)
        else:
            self._waiting.append(request)
            self._care.index.send(self._journal.mark)

    def _release_reads(self) -> None:
        """Run the reads that the index has come far enough for."""
        waiting = self._waiting
        while waiting and self._care.indexed(waiting[0].position):
            self._reads.submit(waiting.popleft())
        now = time.monotonic()
        if waiting and now >= self._next_expiry:
            self._next_expiry = now + _HOUSEKEEPING_SECONDS
            late = Refusal(ErrorCode.DEADLINE, "the index has not come so far in time")
            for request in [r for r in waiting if r.deadline is not None and r.deadline < now]:
                self._reads.dismiss(request.client)
                self._refuse(request.envelope, request.id, late, request.op)
            self._waiting = deque([r for r in waiting if r.deadline is None or r.deadline >= now])

    def _other(self, envelope: Envelope, header: RequestHeader) -> None:
        assert header.id is not None
        if header.op == "ping":
            body = b"{}"
        elif header.op == "hello":
            body = wire.encode(
                self._telling.hello(
                    header, "read-only" if self._peers.must_mask(envelope[0]) else "read-write"
                )
            )
        elif header.op == "stats":
            body = wire.encode(self.stats())
        else:
            raise Refusal(ErrorCode.UNKNOWN_OPERATION, "there is no such operation", "op")
        self._stores.tally.note(header.op)
        frame = wire.read_answer(header.id, body, position=self._journal.mark.position)
        self._doors.send(envelope, frame)

    def _note_course(self, now: float) -> None:
        self.figures.seen = now
        self.figures.course.note(now, self._journal.mark.position, self._care.slowest())

    def watched(self) -> MetricsSource:
        """What metrics are made of."""
        return MetricsSource(
            journal=os.path.join(self._base, STORED_NAME, "journal"),
            store=self._journal.store.hex(),
            figures=self.figures,
            stats=self.stats,
            tallies=[self._stores.tally, *self._reads.tallies],
            followers=self._care.followers,
            connections=self._doors.connections,
        )

    def stats(self) -> dict[str, Any]:
        """The answer to `stats`. May be called from another thread."""
        return self._telling.stats(self._look())

    def _look(self) -> LoopCounters:
        figures = self.figures
        figures.held_requests = len(self._held) + len(self._apart)
        figures.held_bytes = self._held.bytes + self._apart.bytes
        figures.reads_waiting = len(self._waiting)
        return figures
