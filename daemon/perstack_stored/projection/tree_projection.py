"""The tree as a projection: how a worker brings it up to date, alone or with a helper."""

import structlog

from perstack_stored.journal.reader import Entry, JournalReader, LogPosition
from perstack_stored.tree.blocked_sync import BlockedRecords
from perstack_stored.tree.helper import HELPED_LAG_RECORDS, ParallelWriter
from perstack_stored.tree.helper import IDLE_SECONDS as HELPER_IDLE_SECONDS
from perstack_stored.tree.write import Write
from perstack_stored.tree.writer import TreeWriter

_log = structlog.get_logger()

TREE_SLICE = (256, 4 << 20)


class TreeProjection:
    """The tree. It follows the index, which numbers the events that would share a file."""

    rebuilt = False

    def __init__(
        self, tree: TreeWriter, helper: ParallelWriter | None = None, passing: BlockedRecords | None = None
    ) -> None:
        self._tree = tree
        self._helper = helper
        self._passing = passing or BlockedRecords(tree, lambda _records: None)
        self._lags = False
        tree.on_blocked = log_blocked

    def name_records(self, *, wanted: bool) -> None:
        """Whether each record is named before it is written."""
        self._tree.names_records = wanted

    def start(self, reader: JournalReader, mark: LogPosition) -> LogPosition:
        """The place from which to go on."""
        self._passing.begin(mark)
        place = reader.seek(self._tree.position, mark)
        self._tree.plan_replay(reader.entries(place, mark))
        return place

    def slice(self, lag: int) -> tuple[int, int]:
        """Records and bytes to take up at a time, where it lags so many records behind."""
        self._lags = lag > HELPED_LAG_RECORDS
        return TREE_SLICE_HELPED if self._lags else TREE_SLICE

    def apply(self, entries: list[Entry]) -> None:
        """Take up a slice of entries; raises OSError or OperationalError where trying again may help."""
        self._tree.apply(entries, self._helper if self._lags else None)
        self._passing.keep()

    def idle(self, seconds: float) -> None:
        """There has been nothing to do for so long."""
        if seconds >= TREE_IDLE_SECONDS:
            self._tree.sync(clean=True)
        if self._helper is not None and seconds >= HELPER_IDLE_SECONDS:
            self._helper.stop()

    def blocked(self) -> int:
        """How many files could not be had."""
        helped = 0 if self._helper is None else self._helper.blocked
        return self._tree.blocked + helped + len(self._tree.passed_over)

    def out_of_space(self) -> bool:
        """Of the tree nobody waits for room."""
        return False

    def close(self) -> None:
        """Make durable what was done, and end."""
        if self._helper is not None:
            self._helper.stop()
        self._tree.sync(clean=True)
        self._tree.close()


def log_blocked(write: Write, error: OSError) -> None:
    """Say which file of the tree could not be had."""
    _log.error(
        "tree_file_blocked",
        position=write.position,
        file="/".join((*write.folders, write.name)),
        reason=str(error),
    )


TREE_SLICE_HELPED = (1024, 16 << 20)

TREE_IDLE_SECONDS = 0.5
