"""Keeps the list of blocked records in step with the tree."""

from collections.abc import Callable

import structlog

from perstack_stored.journal.reader import LogPosition

from .blocked import BlockedList, BlockedRecord
from .writer import TreeWriter

_log = structlog.get_logger()


class BlockedRecords:
    """The records that a tree passes over: those of the list, and later ones that the server reported."""

    def __init__(
        self,
        tree: TreeWriter,
        save: Callable[[tuple[BlockedRecord, ...]], None],
        listed: BlockedList | None = None,
        reported: tuple[BlockedRecord, ...] = (),
    ) -> None:
        """Prepare it; nothing is written yet.

        Args:
            tree: passes over all of these records already.
            save: writes the list.
            listed: content of the list.
            reported: records at which a worker died since.
        """
        self._tree = tree
        self._save = save
        self._listed = listed or BlockedList()
        self._reported = {one.position for one in reported}

    def begin(self, mark: LogPosition) -> None:
        """Save new records; retry those that only an older version has tried.

        Raises:
            OSError: the file system refuses the write.
            TreeUnsyncedError: what was written may not be on disk.
        """
        tree, listed = self._tree, self._listed
        if not listed.is_current:
            self._retry_blocked(mark)
        if not listed.is_current or self._reported - {one.position for one in listed.records}:
            tree.passed_over.changed = True
        self.keep()

    def _retry_blocked(self, mark: LogPosition) -> None:
        tree = self._tree
        tree.names_records = True
        for one in self._listed.records:
            if one.position in self._reported or one.position > mark.position:
                continue
            _log.info("record_taken_up_again", position=one.position, kind=one.kind, file=one.file)
            if one.position > tree.position:
                del tree.passed_over.records[one.position]  # it is written in its turn
            else:
                tree.retry_blocked(one.position, mark)
        tree.sync_files()

    def keep(self) -> None:
        """Save the list if it has changed.

        Raises:
            OSError: it can't be written.
        """
        if self._tree.passed_over.changed:
            self._save(tuple(self._tree.passed_over.records.values()))
            self._tree.passed_over.changed = False
