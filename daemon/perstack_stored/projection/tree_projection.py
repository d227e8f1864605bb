"""The tree as a projection: how a worker brings it up to date, alone or with a helper process."""

import structlog

from perstack_stored.index.deletions import Pending
from perstack_stored.journal.reader import JournalReader, LogPosition
from perstack_stored.journal.segment_walk import Entry
from perstack_stored.tree.blocked_sync import BlockedRecords
from perstack_stored.tree.helper import HELPED_LAG_RECORDS, ParallelWriter
from perstack_stored.tree.helper import IDLE_SECONDS as HELPER_IDLE_SECONDS
from perstack_stored.tree.sweep import Sweep
from perstack_stored.tree.write import Write
from perstack_stored.tree.writer import TreeWriter

_log = structlog.get_logger()

TREE_SLICE = (256, 4 << 20)


class TreeProjection:
    """The tree as a projection. It follows the index, which numbers the events that would share a file."""

    rebuilt = False

    def __init__(
        self,
        tree: TreeWriter,
        helper: ParallelWriter | None = None,
        passing: BlockedRecords | None = None,
        sweep: Sweep | None = None,
    ) -> None:
        self._tree = tree
        self._helper = helper
        self._passing = passing or BlockedRecords(tree, lambda _records: None)
        self._sweep = sweep
        self._lags = False
        tree.on_blocked = log_blocked

    def name_records(self, *, wanted: bool) -> None:
        """Name each record before it is written, or don't."""
        self._tree.names_records = wanted

    def start(self, reader: JournalReader, mark: LogPosition) -> LogPosition:
        """Return the log position from which to go on."""
        self._passing.begin(mark)
        if self._sweep is not None and not self._tree.position:
            self._sweep.prepare_whole()
        place = reader.seek(self._tree.position, mark)
        self._tree.plan_replay(reader.entries(place, mark))
        return place

    def slice(self, lag: int) -> tuple[int, int]:
        """Records and bytes per slice at a lag of this many records."""
        self._lags = lag > HELPED_LAG_RECORDS
        return TREE_SLICE_HELPED if self._lags else TREE_SLICE

    def apply(self, entries: list[Entry]) -> None:
        """Write a slice of entries; raises OSError or OperationalError if a retry may help."""
        self._tree.apply(entries, self._helper if self._lags else None)
        self._passing.keep()
        if self._sweep is not None:
            self._sweep.step()

    def idle(self, seconds: float) -> None:
        """Sync when idle, and let old jobs leave; `seconds` is how long it has been."""
        if seconds >= TREE_IDLE_SECONDS:
            self._tree.sync(clean=True)
        if self._sweep is not None:
            self._sweep.step()
        if self._helper is not None and seconds >= HELPER_IDLE_SECONDS:
            self._helper.stop()

    def blocked(self) -> int:
        """Count of files that can't be written."""
        helped = 0 if self._helper is None else self._helper.blocked
        return self._tree.blocked + helped + len(self._tree.passed_over.records)

    def pending(self) -> Pending:
        """None: the index knows them."""
        return Pending()

    def note_erased(self, position: int) -> None:
        """Nothing to note: files went with the deletion."""

    def out_of_space(self) -> bool:
        """Never: no store waits for room for the tree."""
        return False

    def close(self) -> None:
        """Sync, and close the tree."""
        if self._helper is not None:
            self._helper.stop()
        self._tree.sync(clean=True)
        self._tree.close()


def log_blocked(write: Write, error: OSError) -> None:
    """Log a file of the tree that can't be written."""
    _log.error(
        "tree_file_blocked",
        position=write.position,
        file="/".join((*write.folders, write.name)),
        reason=str(error),
    )


TREE_SLICE_HELPED = (1024, 16 << 20)

TREE_IDLE_SECONDS = 0.5
