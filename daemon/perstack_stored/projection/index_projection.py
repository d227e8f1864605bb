"""The index as a projection: how a worker brings it up to date, and when it is built again."""

from typing import NamedTuple

import structlog

from perstack_stored.errors import (
    IndexUnusableError,
)
from perstack_stored.index.connection import remove
from perstack_stored.index.disk_reserve import DiskReserve
from perstack_stored.index.file_watch import FileWatch
from perstack_stored.index.page_checksums import verify_at_rest
from perstack_stored.index.writer import IndexWriter
from perstack_stored.journal.reader import Entry, JournalReader, LogPosition
from perstack_stored.process.worker_status import WorkerStatus

_log = structlog.get_logger()

_log = structlog.get_logger()

INDEX_SLICE = (2048, 4 << 20)  # records, bytes


class IndexOpening(NamedTuple):
    """What is known of an index before it is opened.

    Attributes:
        at_rest: no process has had it open since the last daemon ended.
        rebuild_reason: why the index that is there is not used; empty if it is.
    """

    at_rest: bool = False
    rebuild_reason: str = ""


class IndexProjection:
    """The index. What makes it unusable makes it be built anew."""

    def __init__(
        self,
        path: str,
        reader: JournalReader,
        store: bytes,
        opening: IndexOpening = IndexOpening(),  # noqa: B008 - it can't be changed
        reserve: DiskReserve | None = None,
        status: WorkerStatus | None = None,
    ) -> None:
        """Open the index, or build it.

        Args:
            path: of the index.
            reader: of the journal.
            store: the journal's identity.
            opening: what is known of the index that is there.
            reserve: room that is kept for it.
            status: where this process shows its progress.
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
        """Whether each record is named before it is taken up."""
        self._index.names_records = wanted

    def start(self, reader: JournalReader, mark: LogPosition) -> LogPosition:
        """The place from which to go on."""
        place = self._index.place
        end = reader.chain.end_of(place.segment)
        # Recovery wrote records again, and the place lies in what is void now.
        return place if end is None or place.offset <= end else reader.seek(place.position, mark)

    def slice(self, _lag: int, /) -> tuple[int, int]:
        """Records and bytes to take up at a time, where it lags so many records behind."""
        return INDEX_SLICE

    def apply(self, entries: list[Entry]) -> None:
        """Take up a slice of entries; raises OSError or OperationalError where trying again may help."""
        with self._watch.writing():
            if self._reserve is not None:
                self._reserve.keep()
            # Tried again, maybe, because only what came behind the transaction failed.
            position = self._index.place.position
            self._index.apply([entry for entry in entries if entry.header.position > position])

    def idle(self, _seconds: float, /) -> None:
        """Nothing to write: each transaction is complete."""
        with self._watch.writing():
            if self._reserve is not None:
                self._reserve.keep()

    def out_of_space(self) -> bool:
        """Whether the disk has no room for more."""
        return self._reserve is not None and self._reserve.out_of_space

    def blocked(self) -> int:
        """How many files could not be had."""
        return 0

    def close(self) -> None:
        """Make durable what was done, and end."""
        self._watch.check()
        self._index.close()
