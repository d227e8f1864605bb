"""Erasing, as the loop sees it: tells the keeper what is pending, and begins a segment where one is needed.

The index counts the deletions that are not erased. The keeper erases in complete segments only. If something
to be erased stands in the open one, that is completed early, at most once in `erase-within-seconds`.
"""

import structlog

from perstack_stored.config.settings import Settings
from perstack_stored.errors import StorageFullError
from perstack_stored.keeper.channel import ALL_SEGMENTS, JournalState
from perstack_stored.store.group_commit import GroupCommit

from .parts import ServerParts
from .projections import ProjectionCoordinator

_log = structlog.get_logger()


class Erasing:
    """Follows the keeper. `follow` is called by the loop, about once a second."""

    def __init__(
        self, parts: ServerParts, group_commit: GroupCommit, projections: ProjectionCoordinator
    ) -> None:
        self._journal, self._keeper, self._mirror = parts.journal, parts.keeper, parts.mirror
        self._group_commit = group_commit
        self._projections = projections
        self._is_mirrored = parts.settings.mirrors_journal
        self._within = parts.settings.erase_within_seconds
        self._begun: float | None = None

    def apply_settings(self, settings: Settings) -> None:
        """Apply a changed bound."""
        self._within = settings.erase_within_seconds

    def follow(self, now: float) -> None:
        """Tell keeper and index what the other has done; `now` is a monotonic time.

        Raises:
            JournalFailedError: the journal can't be written; the process must end.
        """
        index = self._projections.index
        is_pending = index.pending > 0
        self._allow_spares(allowed=not is_pending)
        mark, projected = self._journal.mark, self._projections.slowest()
        state = JournalState(mark.segment, projected, is_pending, self._free_below())
        self._keeper.follow(state)
        index.send_erased(self._keeper.erased_to)
        if is_pending and self._keeper.wants_segment and self._is_due(now):
            self._begin_segment(now)

    def _free_below(self) -> int:
        """Segments before this one are in the mirror, if there is one, and so is a piece of a later one."""
        if not self._is_mirrored:
            return ALL_SEGMENTS
        place = self._mirror.place
        if place is None:
            return 0
        return place.segment if place.offset else place.segment - 1

    def _allow_spares(self, *, allowed: bool) -> None:
        try:
            self._journal.allow_spares(allowed=allowed)
        except OSError as error:
            _log.error("spare_not_removed", reason=str(error))

    def _is_due(self, now: float) -> bool:
        return self._begun is None or now - self._begun >= self._within

    def _begin_segment(self, now: float) -> None:
        try:
            has_begun = self._journal.begin_segment()
        except StorageFullError as error:
            _log.warning("erasing_waits", reason=str(error))
            return
        if has_begun:
            self._begun = now
            self._group_commit.answer_synced()
            _log.info("segment_begun", reason="deleted records stand in the one before")
