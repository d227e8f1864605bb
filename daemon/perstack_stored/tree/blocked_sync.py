"""Keeps the list of records that the tree passes over in step with what the tree does."""

from collections.abc import Callable

import structlog

from perstack_stored.journal.reader import LogPosition

from .blocked import BlockedList, BlockedRecord
from .writer import TreeWriter

_log = structlog.get_logger()


class BlockedRecords:
    """What a tree passes over: the records of the list, and those that the server has told in addition."""

    def __init__(
        self,
        tree: TreeWriter,
        save: Callable[[tuple[BlockedRecord, ...]], None],
        listed: BlockedList | None = None,
        reported: tuple[BlockedRecord, ...] = (),
    ) -> None:
        """Nothing is written yet.

        Args:
            tree: passes over all of them already.
            save: writes the list down.
            listed: what the list says.
            reported: records at which a worker died since.
        """
        self._tree = tree
        self._save = save
        self._listed = listed or BlockedList()
        self._reported = {one.position for one in reported}

    def begin(self, mark: LogPosition) -> None:
        """Write down what is new; take up again what only an older version has tried.

        Raises:
            OSError: the file system refuses.
            TreeUnsyncedError: what was written may not be on disk.
        """
        tree, listed = self._tree, self._listed
        if not listed.is_current:
            self._retry_blocked(mark)
        if not listed.is_current or self._reported - {one.position for one in listed.records}:
            tree.passed_over_changed = True
        self.keep()

    def _retry_blocked(self, mark: LogPosition) -> None:
        tree = self._tree
        tree.names_records = True
        for one in self._listed.records:
            if one.position in self._reported or one.position > mark.position:
                continue
            _log.info("record_taken_up_again", position=one.position, kind=one.kind, file=one.file)
            if one.position > tree.position:
                del tree.passed_over[one.position]  # its turn comes
            else:
                tree.retry_blocked(one.position, mark)
        tree.sync_files()

    def keep(self) -> None:
        """Write the list down if it has changed.

        Raises:
            OSError: it can't be written.
        """
        if self._tree.passed_over_changed:
            self._save(tuple(self._tree.passed_over.values()))
            self._tree.passed_over_changed = False
