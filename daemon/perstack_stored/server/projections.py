"""Coordinates the workers of index and tree: collects progress, sends the synced position, restarts them.

All of it runs in the loop's thread, some times a second: `follow`. `projection/process.py` handles one worker
process; this module knows what one worker means for the other, for reads and for stores.
"""

import time
from typing import NamedTuple

import structlog

from perstack_stored.projection.worker import INDEX_STATUS

from .parts import ServerParts
from .status import StatusReporter

_SAY_SO_SECONDS = 2.0
_SEND_SECONDS = 0.04
_SEND_RECORDS = 1024
_TREE_STUCK_SECONDS = 10.0
_INDEX_STUCK_SECONDS = 10.0

_log = structlog.get_logger()


class Awaited(NamedTuple):
    """Position that the tree must reach, and since when; on time.monotonic."""

    position: int
    since: float


class ProjectionCoordinator:
    """Coordinates index and tree.

    Attributes:
        both: index and tree.
        polled: descriptors of their channels; readable when one of them has a report.
    """

    def __init__(self, parts: ServerParts, status: StatusReporter) -> None:
        self.both = parts.projections
        self.index, self.tree = parts.projections
        self._journal = parts.journal
        self._reads = parts.reads
        self._endpoints = parts.endpoints
        self._notifier = parts.notifier
        self._status = status
        self._tree_from = 0
        self._sent_at = 0.0
        self._channels: list[tuple[int, int | None]] = []
        self._counters = parts.counters
        self._awaited: Awaited | None = None
        self._said_so = 0.0
        self.polled: set[int] = set()

    # --- progress ----------------------------------------------------------------------------------

    def indexed(self, position: int) -> bool:
        """Whether the index has reached a position."""
        return self.index.place is not None and self.index.place.position >= position

    def slowest(self) -> int:
        """Position that both have reached; 0 until both have reported."""
        return min(0 if item.place is None else item.place.position for item in self.both)

    def tree_lags_beyond(self, bytes_max: int) -> bool:
        """Whether stores wait for the tree (backpressure). A tree that is blocked delays no store."""
        tree = self.tree
        if tree.fault or tree.place is None or time.monotonic() - tree.heard > _TREE_STUCK_SECONDS:
            return False
        return self._journal.bytes_between(tree.place) > bytes_max

    def await_tree(self, position: int) -> None:
        """The tree is not whole until it has reached a position, or can't; earlier files may be torn."""
        self._awaited = Awaited(position, time.monotonic())
        self._counters.tree_is_whole = False

    def _watch_tree(self) -> None:
        """Look whether the tree is whole now."""
        tree, now, awaited = self.tree, time.monotonic(), self._awaited
        if awaited is None:
            return
        place = tree.place
        self._notifier.working(f"tree catching up to position {awaited.position}: {place and place.position}")
        stuck = self.index.fault and now - awaited.since > _INDEX_STUCK_SECONDS
        if stuck:
            _log.warning("tree_not_awaited", reason=f"the index: {self.index.fault}")
        if stuck or tree.fault or (place is not None and place.position >= awaited.position):
            self._awaited = None
            self._counters.tree_is_whole = True
        elif now - self._said_so > _SAY_SO_SECONDS and now - awaited.since > _SAY_SO_SECONDS:
            self._said_so = now
            _log.info("tree_catching_up", to=awaited.position, stats=self._status.projection(tree))

    # --- feed and restart --------------------------------------------------------------------------

    def follow(self, *, hurry: bool = False) -> None:
        """Collect reports, send the synced position to the workers, restart those that ended.

        `hurry`: a read waits for the index.
        """
        self._hear()
        if self.index.due():
            self.index.start()
        if self.index.place is not None:
            if not self._reads.index_is_readable:
                self._reads.index_started()
            self._reads.long_polls.on_indexed(self.index.place.position)
            if self.tree.due():
                self.tree.start()
                self._tree_from = self._journal.mark.position
            # A rebuilt index, or one that a power cut took back, may not know all that the tree holds.
            # A tree fed too early would replace newer versions of files by older ones.
            if self.index.place.position >= self._tree_from:
                clock = self._journal.clock
                self.tree.send_aged(clock.aged_ms(clock.now_ms()))  # first: it is known before any record
                self.tree.send(self.index.place)
        self._send_index(hurry=hurry)
        self._watch_tree()
        # Compared with the start too: the channel of a new process may reuse the old descriptor.
        channels = [(projection.starts, projection.fileno()) for projection in self.both]
        if channels != self._channels:
            self._watch(channels)

    def _hear(self) -> None:
        """Collect reports; handle workers that ended, and an index that can't be used."""
        for projection in self.both:
            if projection.receive():
                status = projection.reap()
                if projection is self.index:
                    self._index_stopped()
                elif status == INDEX_STATUS:
                    self.index.rebuild_index(projection.fault)
                    self._index_stopped()
        damage = self._reads.faults.index_damage()
        if damage:
            self.index.rebuild_index(damage)
            self._index_stopped()

    def _index_stopped(self) -> None:
        """Stop tree and reads while the index may be rebuilt."""
        self.tree.stop()
        self._reads.index_stopped()

    def _send_index(self, *, hurry: bool) -> None:
        """Send the synced position to the index: at intervals, or at once if a read waits.

        A transaction of the index for a few records costs many times more per record than one for many.
        """
        mark, sent, now = self._journal.mark, self.index.sent, time.monotonic()
        if (
            sent is None
            or now - self._sent_at >= _SEND_SECONDS
            or mark.position - sent.position >= _SEND_RECORDS
            or hurry
            or len(self._reads.long_polls)
        ):
            self._sent_at = now
            self.index.send(mark)

    def _watch(self, channels: list[tuple[int, int | None]]) -> None:
        for fd in self.polled:
            self._endpoints.unwatch(fd)
        self._channels = channels
        self.polled = {fd for _, fd in channels if fd is not None}
        for fd in self.polled:
            self._endpoints.watch(fd)
