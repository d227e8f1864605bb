"""The serving loop's care for index and tree: hears them, says how far they may go, starts them again.

All of it in the loop's thread, and only some times a second: `follow`. What a process of theirs is and how it
ends is in `followers`; here is what one of them means for the other, for reads and for stores.
"""

import time
from collections.abc import Callable

import structlog

from perstack_stored.journal.writer import JournalWriter
from perstack_stored.observe.systemd import Notifier
from perstack_stored.projection.process import ProjectionProcess
from perstack_stored.projection.worker import INDEX_STATUS
from perstack_stored.read.executor import ReadExecutor
from perstack_stored.transport.endpoints import Endpoints

from .status import StatusReporter

_CATCH_UP_POLL_SECONDS = 0.005
_SAY_SO_SECONDS = 2.0
_TELL_SECONDS = 0.04
_TELL_RECORDS = 1024
_TREE_STUCK_SECONDS = 10.0
_INDEX_STUCK_SECONDS = 10.0

_log = structlog.get_logger()


class ProjectionCoordinator:
    """Cares for the followers of a journal.

    Attributes:
        polled: descriptors of their lines; readable when one of them has something to say.
    """

    def __init__(
        self,
        followers: tuple[ProjectionProcess, ProjectionProcess],
        journal: JournalWriter,
        reads: ReadExecutor,
        doors: Endpoints,
        telling: StatusReporter,
        notifier: Notifier,
    ) -> None:
        self.followers = followers
        self.index, self.tree = followers
        self._journal = journal
        self._reads = reads
        self._doors = doors
        self._telling = telling
        self._notifier = notifier
        self._tree_from = 0
        self._told = 0.0
        self._lines: list[tuple[int, int | None]] = []
        self.polled: set[int] = set()

    # --- how far they are --------------------------------------------------------------------------

    def indexed(self, position: int) -> bool:
        """Whether the index has come so far."""
        return self.index.place is not None and self.index.place.position >= position

    def slowest(self) -> int:
        """How far both have come; 0 while one of them has not said."""
        return min(0 if item.place is None else item.place.position for item in self.followers)

    def tree_lags_beyond(self, bytes_max: int) -> bool:
        """Whether stores wait for the tree. One that is stuck, rather than slow, holds up nobody."""
        tree = self.tree
        if tree.fault or tree.place is None or time.monotonic() - tree.heard > _TREE_STUCK_SECONDS:
            return False
        return self._journal.bytes_between(tree.place) > bytes_max

    def await_tree(self, position: int, *, until: Callable[[], bool]) -> None:
        """Wait until the tree has come so far, or can't, or `until` says that nobody wants it any more."""
        began = said = time.monotonic()
        before = None
        while not until():
            self.follow()
            place = self.tree.place
            if place != before:
                before = place
                self._notifier.working(f"tree catching up to position {position}: {place and place.position}")
            if (place is not None and place.position >= position) or self.tree.fault:
                return
            if self.index.fault and time.monotonic() - began > _INDEX_STUCK_SECONDS:
                _log.warning("tree_not_awaited", reason=f"the index: {self.index.fault}")
                return
            if time.monotonic() - said > _SAY_SO_SECONDS:
                said = time.monotonic()
                _log.info("tree_catching_up", to=position, stats=self._telling.follower(self.tree))
            time.sleep(_CATCH_UP_POLL_SECONDS)

    # --- what they are told ------------------------------------------------------------------------

    def follow(self, *, hurry: bool = False) -> None:
        """Take in how far they are, pass on how far they may go, start again what has ended.

        `hurry`: a read waits for the index.
        """
        self._hear()
        if self.index.due():
            self.index.start()
        if self.index.place is not None:
            if not self._reads.index_is_there:
                self._reads.index_started()
            self._reads.tail.moved(self.index.place.position)
            if self.tree.due():
                self.tree.start()
                self._tree_from = self._journal.mark.position
            # An index that fell behind, by a power cut or built anew, doesn't name all that the tree may hold
            # already: told too early, the tree would put older versions in the place of newer ones.
            if self.index.place.position >= self._tree_from:
                self.tree.send(self.index.place)
        self._tell_index(hurry=hurry)
        # By start too: the line of a new process may have the descriptor of the old one's.
        lines = [(follower.starts, follower.fileno()) for follower in self.followers]
        if lines != self._lines:
            self._poll_anew(lines)

    def _hear(self) -> None:
        """Take in reports; what has ended is gone, and so is an index that can't be used."""
        for follower in self.followers:
            if follower.receive():
                status = follower.reap()
                if follower is self.index:
                    self._index_stopped()
                elif status == INDEX_STATUS:
                    self.index.start_anew(follower.fault)
                    self._index_stopped()
        damage = self._reads.faults.index_damage()
        if damage:
            self.index.start_anew(damage)
            self._index_stopped()

    def _index_stopped(self) -> None:
        """Neither the tree nor reads go on with an index that may be made anew."""
        self.tree.stop()
        self._reads.index_stopped()

    def _tell_index(self, *, hurry: bool) -> None:
        """Pass on how far the index may go: every so often only, unless somebody waits for new records.

        A transaction of the index for a few records costs many times more than one for many.
        """
        mark, sent, now = self._journal.mark, self.index.sent, time.monotonic()
        if (
            sent is None
            or now - self._told >= _TELL_SECONDS
            or mark.position - sent.position >= _TELL_RECORDS
            or hurry
            or len(self._reads.tail)
        ):
            self._told = now
            self.index.send(mark)

    def _poll_anew(self, lines: list[tuple[int, int | None]]) -> None:
        for fd in self.polled:
            self._doors.unwatch(fd)
        self._lines = lines
        self.polled = {fd for _, fd in lines if fd is not None}
        for fd in self.polled:
            self._doors.watch(fd)
