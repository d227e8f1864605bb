"""The index as a projection: how a worker brings it up to date, and when it rebuilds it."""

from typing import NamedTuple

import structlog

from perstack_stored.errors import (
    IndexUnusableError,
)
from perstack_stored.index.connection import remove
from perstack_stored.index.deletions import Pending
from perstack_stored.index.disk_reserve import DiskReserve
from perstack_stored.index.file_watch import FileWatch
from perstack_stored.index.page_checksums import verify_at_rest
from perstack_stored.index.writer import IndexWriter
from perstack_stored.journal.reader import JournalReader, LogPosition
from perstack_stored.journal.segment_walk import Entry
from perstack_stored.process.worker_status import WorkerStatus

_log = structlog.get_logger()

_log = structlog.get_logger()

INDEX_SLICE = (2048, 4 << 20)  # records, bytes


class IndexOpening(NamedTuple):
    """State of an index before it is opened.

    Attributes:
        at_rest: no process has had it open since the last daemon ended.
        rebuild_reason: why the existing index is not used; empty if it is.
    """

    at_rest: bool = False
    rebuild_reason: str = ""


class IndexProjection:
    """The index as a projection. An index that can't be used is rebuilt."""

    def __init__(
        self,
        path: str,
        reader: JournalReader,
        store: bytes,
        opening: IndexOpening = IndexOpening(),  # noqa: B008 - it can't be changed
        reserve: DiskReserve | None = None,
        status: WorkerStatus | None = None,
    ) -> None:
        """Open the index, or rebuild it.

        Args:
            path: of the index.
            reader: of the journal.
            store: the journal's identity.
            opening: state of the existing index.
            reserve: disk space reserved for the index.
            status: shows the worker's progress.
        """
        self._reserve = reserve
        beat = (status or WorkerStatus()).beat
        self.rebuilt = False
        try:
            if opening.rebuild_reason:
                raise IndexUnusableError(opening.rebuild_reason)
            if opening.at_rest:
                verify_at_rest(path, beat)
            self._index = IndexWriter(path, reader, store, status)
        except IndexUnusableError as error:
            _log.warning("index_rebuilt", reason=str(error))
            remove(path)
            self._index = IndexWriter(path, reader, store, status)
            self.rebuilt = True
        self._watch = FileWatch(path, lambda: self._index.checkpoints)

    def name_records(self, *, wanted: bool) -> None:
        """Name each record before it is indexed, or don't."""
        self._index.names_records = wanted

    def start(self, reader: JournalReader, mark: LogPosition) -> LogPosition:
        """Return the log position from which to go on."""
        place = self._index.place
        end = reader.chain.end_of(place.segment)
        # Recovery wrote records again, and this position lies in bytes that are void now.
        return place if end is None or place.offset <= end else reader.seek(place.position, mark)

    def slice(self, _lag: int, /) -> tuple[int, int]:
        """Records and bytes per slice at a lag of this many records."""
        return INDEX_SLICE

    def apply(self, entries: list[Entry]) -> None:
        """Index a slice of entries; raises OSError or OperationalError if a retry may help."""
        with self._watch.writing():
            if self._reserve is not None:
                self._reserve.keep()
            # Maybe a retry, because only a step after the transaction failed.
            position = self._index.place.position
            if entries and entries[0].header.position <= position:
                entries = [entry for entry in entries if entry.header.position > position]
            self._index.apply(entries)

    def idle(self, _seconds: float, /) -> None:
        """Nothing to sync: each transaction is complete."""
        with self._watch.writing():
            if self._reserve is not None:
                self._reserve.keep()

    def pending(self) -> Pending:
        """The deletions that are not erased."""
        return self._index.pending

    def note_erased(self, position: int) -> None:
        """Note that deletions up to a position are erased; while a reader prevents it, nothing changes."""
        with self._watch.writing():
            self._index.note_erased(position)

    def out_of_space(self) -> bool:
        """Whether the disk has no room for the index."""
        return self._reserve is not None and self._reserve.out_of_space

    def blocked(self) -> int:
        """Count of files that can't be written."""
        return 0

    def close(self) -> None:
        """Checkpoint and close the index."""
        self._watch.check()
        self._index.close()
