"""Begins segments: the first of a start, and the one after a segment that is full."""

import os
import secrets
from typing import NamedTuple

from perstack_stored.datadir.filesystem import FILE_MODE, FileSystem
from perstack_stored.errors import JournalFailedError, StorageFullError

from . import entry_format
from .clock import JournalClock, LogClock
from .entry_format import SegmentHeader
from .epochs import Epochs
from .preallocation import NEXT_NAME, Prepared, write_zeros
from .reader import LogPosition
from .recovery import Recovered
from .segment_file import open_segment
from .segment_head import encode_head
from .segment_names import segment_name
from .sessions import Sessions
from .write_errors import DISK_FULL

NEW_NAME = "new.segment.part"


class WritableSegment(NamedTuple):
    """A segment that is open for writing.

    Attributes:
        fd: its file.
        header: its header.
        offset: where the next entry goes, in bytes.
        capacity: end of the bytes that are allocated.
    """

    fd: int
    header: SegmentHeader
    offset: int
    capacity: int


class SegmentBeginnings:
    """Begins the segments of a journal."""

    def __init__(
        self,
        files: FileSystem,
        dir_fd: int,
        store: bytes,
        clock: JournalClock | LogClock,
        sessions: Sessions,
        epochs: Epochs,
    ) -> None:
        """Write into the folder `dir_fd`; each segment begins with `sessions` and `epochs`."""
        self._files = files
        self._dir = dir_fd
        self._store = store
        self._clock = clock
        self._sessions = sessions
        self._epochs = epochs

    def after(self, end: LogPosition, prepared: Prepared) -> WritableSegment:
        """Begin the segment after the one that ends at a place, in a prepared file.

        It is named when it is complete, and used when the name is synced.

        Raises:
            OSError: it is not begun.
            JournalFailedError: the process must end.
        """
        fd = prepared.fd
        try:
            header = self._next_header(prepared, end)
            start = self._write_head(fd, header, b"")
            self._files.rename(
                NEXT_NAME, segment_name(header.number), source_dir=self._dir, target_dir=self._dir
            )
        except OSError:
            self._files.close(fd)
            raise
        try:
            self._files.sync(self._dir)
        except OSError as error:
            # The file has its name: appends to the segment before it would be void at the next start.
            raise JournalFailedError(f"syncing the journal's folder failed: {error}") from error
        return WritableSegment(fd, header, start, max(prepared.size, start))

    def _next_header(self, prepared: Prepared, end: LogPosition) -> SegmentHeader:
        """The header of the segment after this one.

        Old entries in a recycled file must not match their checksums: with another salt, none does.
        """
        salt, flags = secrets.randbits(32), 0
        if prepared.is_recycled:
            head = self._files.read(prepared.fd, entry_format.SEGMENT_HEADER_BYTES, 0)
            flags = entry_format.SEGMENT_RECYCLED
            while salt == entry_format.salt_of(head):
                salt = secrets.randbits(32)
        number, first = end.segment + 1, end.position + 1
        return SegmentHeader(number, self._store, first, end.offset, 0, salt, flags)

    def _write_head(self, fd: int, header: SegmentHeader, kept: bytes) -> int:
        """Write a segment's head and kept entries, synced; returns the end offset."""
        head, end = encode_head(header, self._sessions, self._epochs, self._clock.latest_ms, kept)
        self._files.write(fd, head, 0)
        self._files.sync_data(fd)
        return end

    def at_start(self, found: Recovered, size: int) -> WritableSegment:
        """Begin a segment of some bytes with the records whose sync is not proven, written again.

        Raises:
            StorageFullError: there is no room.
            OSError: the folder can't be read or written.
        """
        header = SegmentHeader(
            found.number + 1,
            self._store,
            found.proven_position + 1,
            found.proven_end,
            0,
            secrets.randbits(32),
        )
        if NEW_NAME in self._files.list_dir(self._dir):
            self._files.unlink(NEW_NAME, dir_fd=self._dir)
        try:
            fd = self._files.create(NEW_NAME, FILE_MODE, dir_fd=self._dir)
            capacity = write_zeros(self._files, fd, size)
            # The snapshot is from after the kept entries; replaying them once more changes nothing.
            end = self._write_head(fd, header, found.kept_entries(header.salt))
            self._files.rename(
                NEW_NAME, segment_name(header.number), source_dir=self._dir, target_dir=self._dir
            )
            self._files.sync(self._dir)
        except OSError as error:
            if error.errno in DISK_FULL:
                raise StorageFullError(
                    f"no room to begin a journal segment: {os.strerror(error.errno)}"
                ) from error
            raise
        if found.number:
            self._cut_zeros(found)
        return WritableSegment(fd, header, end, max(capacity, end))

    def _cut_zeros(self, found: Recovered) -> None:
        """Free the zeros of a segment that is not continued; its other bytes, void ones too, stay."""
        name = segment_name(found.number)
        file = open_segment(self._files, name, dir_fd=self._dir)
        is_packed = file.is_packed  # the segments after it are lost
        file.close()
        if is_packed:
            return
        fd = self._files.open(name, dir_fd=self._dir, write=True)
        try:
            self._files.truncate(fd, found.end + found.torn_bytes)
        finally:
            self._files.close(fd)
