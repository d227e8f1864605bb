"""The serving loop: receive requests, commit stores with one sync, answer, and sleep.

One thread owns the sockets, the journal and the sessions. A request goes through `RequestDispatcher`, a store
from there through `GroupCommit`. `ProjectionCoordinator` looks after the workers of index and tree.
"""

import os
import time
from collections.abc import Callable
from typing import Any

import structlog

from perstack_storage.protocol import ErrorCode
from perstack_stored.datadir.layout import STORED_NAME
from perstack_stored.errors import Refusal
from perstack_stored.observe.counters import MetricsSource
from perstack_stored.protocol.frames import OPERATIONS
from perstack_stored.read.waiting import ReadsAwaitingIndex
from perstack_stored.store.group_commit import GroupCommit

from .dispatch import RequestDispatcher
from .erasing import Erasing
from .parts import ServerParts
from .projections import ProjectionCoordinator
from .status import StatusReporter

_IDLE_SECONDS = 0.5
_HOUSEKEEPING_SECONDS = 0.01
_READS_WAIT_SECONDS = 0.0005
_LAST_DRAIN_SECONDS = 0.5

_log = structlog.get_logger()


class Server:
    """Serves requests of all endpoints until `stop` is called. `assembly.assemble` builds one."""

    def __init__(
        self,
        parts: ServerParts,
        dispatcher: RequestDispatcher,
        group_commit: GroupCommit,
        waiting: ReadsAwaitingIndex,
        projections: ProjectionCoordinator,
        status: StatusReporter,
    ) -> None:
        self.counters = parts.counters
        self._base = parts.base
        self._journal = parts.journal
        self._sessions = parts.sessions
        self._peers = parts.peers
        self._endpoints = parts.endpoints
        self._reads = parts.reads
        self._wakeup = parts.wakeup
        self._notifier = parts.notifier
        self._mirror = parts.mirror
        self._tree_mirror = parts.tree_mirror
        self._copying = parts.copying
        self._retention = parts.retention
        self._read_settings = parts.read_settings
        self._settings = parts.settings
        self._dispatcher = dispatcher
        self._group_commit = group_commit
        self._waiting = waiting
        self._projections = projections
        self._status = status
        self._erasing = Erasing(parts, group_commit, projections)
        self._on_ready: Callable[[], None] | None = None
        self._reloading = False
        self._stopping = False
        self._evicted_sessions = 0  # last logged
        self._housekept = 0.0
        self._next_tick = 0.0
        self._next_expiry = 0.0

    def stop(self) -> None:
        """Make `run` return after it has answered what arrived. May be called from a signal handler."""
        self._stopping = True
        self._wakeup.wake()

    def reload(self) -> None:
        """Make the loop read the settings again. May be called from a signal handler."""
        self._reloading = True
        self._wakeup.wake()

    def await_tree(self, position: int) -> None:
        """Be ready when the tree has reached a position; after a crash, earlier files may be torn."""
        self._projections.await_tree(position)

    def run(self, on_ready: Callable[[], None]) -> None:
        """Serve until stopped.

        Args:
            on_ready: called once, when the tree is whole. Clients are served before that too.

        Raises:
            JournalFailedError: the journal can't be written; no store in flight was acknowledged.
            GateFailedError: the ZAP handler failed, so connections can't be authenticated.
        """
        self._endpoints.watch(self._wakeup.fd)
        self._on_ready = on_ready
        self._look_whether_ready()
        while not self._stopping:
            self.drain()
            while self.commit_next():
                pass
            if self._copying.is_on:
                self._copy()
            self.collect_sync()
            self._housekeeping()
            self._endpoints.flush()
            self._wait()
        self.finish()

    def drain(self) -> bool:
        """Dispatch some of the requests that arrived. Returns whether there were any; never blocks."""
        now = time.monotonic()
        messages = self._endpoints.take(self._settings.drain_messages_max, self._settings.commit_bytes_max)
        dispatch = self._dispatcher.dispatch
        for envelope, frame in messages:
            dispatch(envelope, frame)
        self.counters.messages += len(messages)
        self._group_commit.note_arrivals(now)
        return bool(messages)

    def commit_next(self) -> bool:
        """Commit the next batch. Returns whether there was one; a tree that lags too far delays it."""
        return (
            self._group_commit.has_work
            and not self._projections.tree_lags_beyond(self._settings.tree_lag_bytes_max)
            and self._group_commit.commit_batch()
        )

    def collect_sync(self) -> None:
        """Answer what a finished sync covers; write what came meanwhile, and start the next sync."""
        if self._group_commit.collect_sync():
            while self.commit_next():
                pass
            self._group_commit.sync_written()

    def _copy(self) -> None:
        """Append what was fetched of a mirror, some of it in each round, as far as disk and tree keep up."""
        if self._journal.unsynced_bytes > self._settings.commit_bytes_max or (
            self._projections.index.out_of_space
            or self._projections.tree_lags_beyond(self._settings.tree_lag_bytes_max)
        ):
            return
        if self._copying.follow(self._group_commit):
            self._wakeup.wake()  # there may be more

    def finish(self) -> None:
        """Answer the requests that arrived before the stop."""
        deadline = time.monotonic() + _LAST_DRAIN_SECONDS
        self._group_commit.stop_gathering()
        while time.monotonic() < deadline:
            drained = self.drain()
            while self.commit_next():
                pass
            if not drained and self._endpoints.wait(0) is None:
                break
        self._group_commit.complete()
        while self._reads.pending and time.monotonic() < deadline:
            self._projections.follow(hurry=bool(self._waiting))
            self._release_reads()
            self._send_read_answers()
            time.sleep(0.001)
        stopping = Refusal(ErrorCode.STOPPING, "the daemon is stopping")
        waiting = (*self._waiting.ahead, *self._waiting, *self._reads.long_polls.release())
        for request in (*self._group_commit, *waiting):
            self._dispatcher.refuse(request.envelope, request.id, stopping, request.op)
        self._group_commit.stop()
        self._endpoints.flush()

    def _wait(self) -> None:
        """Sleep until something happens."""
        projections = self._projections
        hurry = (
            self._endpoints.retry()
            or self._waiting
            or projections.index.sent != self._journal.mark
            or self._group_commit.syncs_late
        )
        woken = self._endpoints.wait(_HOUSEKEEPING_SECONDS if hurry else _IDLE_SECONDS)
        if woken is None:
            self._housekept = 0.0
        elif woken:
            if self._wakeup.fd in woken:
                self._wakeup.clear()
            if not projections.polled.isdisjoint(woken):
                self._housekept = 0.0

    def _housekeeping(self) -> None:
        """Collect finished reads and reports of the workers.

        Runs at intervals, not after each commit: it would cost more than the commits.
        """
        if self._reads.answered:
            self._send_read_answers()
        now = time.monotonic()
        if self._waiting.ahead:
            self._release_ahead(now)
        pause = _READS_WAIT_SECONDS if self._waiting else _HOUSEKEEPING_SECONDS
        if now - self._housekept < pause and not self._reloading:
            return
        self._housekept = now
        self._notifier.beat(now, self._status.line)
        if self._reloading:
            self._reload()
        self._projections.follow(hurry=bool(self._waiting))
        self._look_whether_ready()
        self.counters.seen = now
        self.counters.course.note(now, self._journal.mark.position, self._projections.slowest())
        self._release_reads()
        if now >= self._next_tick:
            self._next_tick = now + 1.0
            self._tick(now)

    def _look_whether_ready(self) -> None:
        if self._on_ready is not None and self.counters.tree_is_whole:
            tell, self._on_ready = self._on_ready, None
            tell()

    def _tick(self, now: float) -> None:
        self._endpoints.on_tick(now)
        self._peers.on_tick()
        self._journal.clock.watch()
        self._dispatcher.on_tick()
        self._erasing.follow(now)
        self._mirror.follow(self._journal.mark)
        indexed = self._projections.index.place
        if indexed is not None:
            self._tree_mirror.follow(indexed)
            tree = self._projections.tree.place
            self._retention.follow(now, self._group_commit, 0 if tree is None else tree.position)
        evicted = self._sessions.gave_way - self._evicted_sessions
        if evicted:
            self._evicted_sessions = self._sessions.gave_way
            _log.warning(
                "sessions_gave_way", sessions=evicted, reason="one client has most, others needed places"
            )

    def _reload(self) -> None:
        self._reloading = False
        self._settings = self._read_settings()
        self._endpoints.apply_settings(self._settings)
        self._dispatcher.apply_settings(self._settings)
        self._group_commit.apply_settings(self._settings)
        self._retention.apply_settings(self._settings)
        self._erasing.apply_settings(self._settings)

    def _send_read_answers(self) -> None:
        for envelope, frame in self._reads.take_replies():
            self._endpoints.send(envelope, frame)

    def _release_reads(self) -> None:
        """Start the reads that the index is ready for, and refuse those that waited too long."""
        now = time.monotonic()
        if self._group_commit.holds and now >= self._next_expiry:
            unanswered = Refusal(ErrorCode.DEADLINE, "the replicated log did not answer in time")
            for held in self._group_commit.take_expired(now):
                self._dispatcher.refuse(held.envelope, held.id, unanswered, held.op)
        if not self._waiting:
            return
        self._waiting.release(self._projections.indexed)
        if now >= self._next_expiry:
            self._next_expiry = now + _HOUSEKEEPING_SECONDS
            late = Refusal(ErrorCode.DEADLINE, "the index did not reach the needed position in time")
            for request in self._waiting.take_expired(now):
                self._dispatcher.refuse(request.envelope, request.id, late, request.op)

    def _release_ahead(self, now: float) -> None:
        """Start the reads whose position has come, and refuse those that waited too long for it."""
        self._waiting.ahead.release(self._journal.mark.position)
        late = Refusal(ErrorCode.DEADLINE, "this daemon has not come to the position of atLeast in time")
        for read in self._waiting.ahead.take_expired(now):
            self._dispatcher.refuse(read.envelope, read.id, late, read.op)

    # --- read from other threads -------------------------------------------------------------------

    def metrics_source(self) -> MetricsSource:
        """Return the sources of the metrics."""
        return MetricsSource(
            journal=os.path.join(self._base, STORED_NAME, "journal"),
            store=self._journal.store.hex(),
            loop=self.counters,
            stats=self.stats,
            requests=[self._group_commit.committer.answers.counter, *self._reads.counters],
            projections=self._projections.both,
            connections=self._endpoints.connections,
            operations=OPERATIONS,
        )

    def stats(self) -> dict[str, Any]:
        """Return the body of the answer to `stats`."""
        return self._status.stats()
