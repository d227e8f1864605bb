"""The journal: the append-only record of truth. One writer; a batch is one write and one fdatasync.

`proto/journal.md` and `journal/entry_format.py` describe the format; `journal/recovery.py` distinguishes a
torn tail from damage.
"""

import time
import uuid
from collections.abc import Callable, Sequence
from typing import NamedTuple

from perstack_stored.datadir.background_sync import BackgroundSync
from perstack_stored.datadir.filesystem import FILE_MODE, FileSystem
from perstack_stored.errors import ConfigError
from perstack_stored.progress import Working, no_progress

from . import entry_format
from .clock import JournalClock, LogClock
from .entry_format import EntryFields, EntryType, Record
from .epochs import Epoch
from .log_place import NO_STREAM
from .options import History, JournalOptions
from .preallocation import SPARE_NAME, Prepared, SegmentPreallocator, fill
from .reader import JournalReader, LogPosition
from .recovery import Recovered, recover, refuse_lost_end
from .segment_beginning import SegmentBeginnings, WritableSegment
from .segment_names import segment_name
from .sessions import Sessions
from .write_errors import no_room, write_failed

GROWTH_BYTES = 1 << 20
_RECORDS, _CURSORS, _LOG = EntryType.RECORDS, EntryType.CURSORS, EntryType.LOG


class Append(NamedTuple):
    """The records of one client frame; `seq` numbers the first of them, 0 without a session.

    `flags` are those of the entry. `time_ms` is that of a copied entry, 0 for now.
    """

    session: bytes
    seq: int
    records: Sequence[Record]
    flags: int = 0
    time_ms: int = 0


class JournalWriter:
    """The writing end of the journal. Opening it recovers the state after the last stop."""

    def __init__(
        self,
        files: FileSystem,
        dir_fd: int,
        sessions: Sessions,
        options: JournalOptions,
        *,
        known_position: Callable[[bytes], int] = lambda _store: 0,
        working: Working = no_progress,
    ) -> None:
        """Open the journal in `dir_fd`, or create one there.

        Args:
            files: the file system.
            dir_fd: the journal's folder.
            sessions: filled from the journal; its snapshot heads each new segment.
            options: sizes of segments, and how they are preallocated.
            known_position: the highest position that index or tree have seen of the journal.
            working: called at each entry of the recovery.

        Raises:
            ConfigError: the journal belongs to another history.
            DamageError: bytes that were proven to be on disk have changed.
            LostEndError: the journal ends before `known_position`; nothing was changed.
            StorageFullError: there is no room to begin.
            OSError: the folder can't be read or written.
        """
        self._files = files
        self._dir = dir_fd
        self._sessions = sessions
        self.sync_seconds = 0.0
        self.syncs = 0
        self._syncer: BackgroundSync[LogPosition] = BackgroundSync(files.sync_data)
        self._fd = -1
        self._number = self._salt = self._offset = self._capacity = 0
        self.is_recycled = False  # the open segment's file held an older one
        self._synced = LogPosition(0, 0, 0)
        history = options.history
        found = recover(files, dir_fd, sessions, working)
        self.recovered: Recovered = found
        refuse_lost_end(found, known_position)
        self.store = found.store or (uuid.uuid4().bytes if history is None else history.store)
        self.clock = JournalClock(found.time_ms) if history is None else LogClock(found.time_ms)
        self._position: int = found.position
        self._ends = dict(found.ends)
        self.epochs = found.epochs
        self.is_shared = history is not None
        if history is None:
            if sessions.log.stream != NO_STREAM:
                raise ConfigError("this base is part of a replicated log: it needs the setting journal")
            self.epochs.begin(found.position)
        else:
            self._join(history)
        self._beginnings = SegmentBeginnings(files, dir_fd, self.store, self.clock, sessions, self.epochs)
        self._preparer = SegmentPreallocator(
            files, dir_fd, options.segment_bytes, FILE_MODE, ahead=options.ahead
        )
        if SPARE_NAME in files.list_dir(dir_fd):
            files.unlink(SPARE_NAME, dir_fd=dir_fd)  # nobody vouches for what an earlier process left
        if found.resume is None:
            begun = self._beginnings.at_start(found, options.first_segment_bytes)
            if found.number:
                self._ends[found.number] = found.proven_end
            self._use(begun)
        else:
            self._resume(found)
        self._preparer.start()

    @property
    def mark(self) -> LogPosition:
        """Log position up to which everything is synced."""
        return self._synced

    @property
    def written(self) -> LogPosition:
        """Log position up to which everything is written, if not yet synced."""
        return LogPosition(self._position, self._number, self._offset)

    @property
    def syncing(self) -> bool:
        """Whether the thread runs a sync."""
        return self._syncer.busy

    @property
    def unsynced_bytes(self) -> int:
        """Bytes that are written and not synced."""
        return self._offset - self._synced.offset

    def bytes_between(self, place: LogPosition) -> int:
        """Bytes of the journal from a place to the end."""
        number, offset = place.segment, place.offset
        total = -offset
        while number < self._number:
            total += self._ends[number]
            number += 1
        return total + self._offset

    def open_reader(self) -> JournalReader:
        """Return a reader of this journal, which may be used in another thread; the caller closes it."""
        return JournalReader(self._files, self._dir)

    def append(self, batch: Sequence[Append]) -> list[int]:
        """`write` and `sync`."""
        firsts = self.write(batch)
        self.sync()
        return firsts

    def write(
        self,
        batch: Sequence[Append],
        cursors: entry_format.Buffer = b"",
        log: entry_format.Buffer = b"",
    ) -> list[int]:
        """Write a batch; its records get the positions after the last one. It is not synced yet.

        Args:
            batch: the records.
            cursors: changes of named cursors, encoded; they go with the batch.
            log: the place in a replicated log after the batch, encoded; it is written after the batch.

        Returns:
            the position of the first record of each item of the batch.

        Raises:
            StorageFullError: no room; nothing was written.
            JournalFailedError: writing failed; the process must end.
        """
        room = sum([entry_format.entry_size(item.records) for item in batch])
        states = [(type, data) for type, data in ((_CURSORS, cursors), (_LOG, log)) if data]
        for _, data in states:
            room += entry_format.padded(entry_format.ENTRY_HEADER_BYTES + len(data))
        self._make_room(room)
        time_ms = self.clock.now_ms()
        synced = self._synced.offset
        offset = self._offset
        position = self._position
        buffers: list[bytes | bytearray | memoryview] = []
        firsts = []
        salt, encode = self._salt, entry_format.encode_entry
        for session, seq, records, flags, copied_ms in batch:
            firsts.append(position + 1)
            encoded, size = encode(
                salt,
                records,
                EntryFields(position + 1, copied_ms or time_ms, synced, seq, session, _RECORDS, flags),
            )
            buffers += encoded
            offset += size
            position += len(records)
        for type, data in states:
            encoded, size = entry_format.encode_entry(
                self._salt, [Record(0, 0, data)], EntryFields(position + 1, time_ms, synced, type=type)
            )
            buffers += encoded
            offset += size
        self._write(buffers)
        self._offset = offset
        self._position = position
        return firsts

    def sync(self) -> None:
        """Sync what is written.

        Raises:
            JournalFailedError: the sync failed; the process must end.
        """
        if self._syncer.busy:
            self._collect(wait=True)
        end = self.written
        if self._synced == end:
            return
        before = time.perf_counter()
        try:
            self._files.sync_data(self._fd)
        except OSError as error:
            raise write_failed(error) from error
        self._note_synced(end, time.perf_counter() - before)

    def sync_soon(self, notify: Callable[[], None]) -> None:
        """Start a sync of what is written, unless one runs; `notify` is called when it has ended."""
        if not self._syncer.busy and self._synced != self.written:
            self._syncer.notify = notify
            self._syncer.start(self._fd, self.written)

    def collect_sync(self) -> bool:
        """Collect a finished sync of the thread; return whether there was one.

        Raises:
            JournalFailedError: the sync failed; the process must end.
        """
        return self._syncer.busy and self._collect(wait=False)

    def close(self) -> None:
        """Write a mark that all is synced (clean stop), and close the journal."""
        self._preparer.stop()
        self.sync()
        self._syncer.stop()
        self._write_mark()
        if self.is_recycled:
            # The next start goes on only where nothing old stands after the mark.
            self._files.truncate(self._fd, self._offset)
            self._files.sync_data(self._fd)
        self._files.close(self._fd)

    def offer_spare(self) -> None:
        """Note that the file of a packed segment may become the next one (`preallocation.SPARE_NAME`)."""
        self._preparer.offer_spare()

    def allow_spares(self, *, allowed: bool) -> None:
        """Say whether the next segment may have old bytes in its file: not while some must go.

        Raises:
            OSError: the folder can't be read or written; it can be called again.
        """
        self._preparer.allow_spares(allowed=allowed)

    def begin_segment(self) -> bool:
        """Complete the open segment, and begin the next one, if its file is ready; returns whether it was.

        Raises:
            StorageFullError: there is no room.
            JournalFailedError: writing failed; the process must end.
        """
        try:
            prepared = self._preparer.take()
            if prepared is None:
                return False
            self._rotate(prepared)
        except OSError as error:
            raise no_room(error) from error
        return True

    # --- writing -----------------------------------------------------------------------------------

    def _write(self, buffers: Sequence[bytes | bytearray | memoryview]) -> None:
        try:
            self._files.write(self._fd, buffers, self._offset)
        except OSError as error:
            raise write_failed(error) from error

    def _collect(self, *, wait: bool) -> bool:
        try:
            done = self._syncer.finished(wait=wait)
        except OSError as error:
            raise write_failed(error) from error
        if done is not None:
            self._note_synced(*done)
        return done is not None

    def _note_synced(self, mark: LogPosition, seconds: float) -> None:
        self._synced = mark
        self.sync_seconds = seconds
        self.syncs += 1

    def _write_mark(self, begins: Epoch | None = None) -> None:
        """Append an entry without records; the next append follows it."""
        buffers, size = entry_format.encode_entry(
            self._salt,
            [],
            EntryFields(
                self._position,
                self.clock.now_ms(),
                self._offset,
                begins.number if begins else 0,
                begins.id if begins else entry_format.NO_SESSION,
                EntryType.MARK,
            ),
        )
        self._write(buffers)
        self._offset += size
        self.sync()

    # --- room --------------------------------------------------------------------------------------

    def _make_room(self, size: int) -> None:
        if self._offset + size <= self._capacity:
            return
        try:
            prepared = self._preparer.take()
            if prepared is not None:
                self._rotate(prepared)
            end = self._offset + size
            if end > self._capacity:
                # The next segment is not ready, or the batch is larger than one. Allocated room can't meet a
                # full disk; the zeros reach the disk with the batch, and keep the following syncs short.
                capacity = max(end, self._capacity + GROWTH_BYTES)
                self._files.allocate(self._fd, self._capacity, capacity - self._capacity)
                fill(self._files, self._fd, end, capacity)
                self._capacity = capacity
        except OSError as error:
            raise no_room(error) from error

    def _rotate(self, prepared: Prepared) -> None:
        """Switch to a prepared file. It is named when it is complete, and used when the name is synced."""
        self.sync()  # of the segment that ends here; its file is closed below
        begun = self._beginnings.after(self.written, prepared)
        self._files.close(self._fd)
        self._ends[self._number] = self._offset
        self._use(begun)
        self._preparer.start()

    def _use(self, segment: WritableSegment) -> None:
        self._fd, header, offset, capacity = segment
        self._number = header.number
        self._salt = header.salt
        self._offset = offset
        self._capacity = capacity
        self.is_recycled = bool(header.flags & entry_format.SEGMENT_RECYCLED)
        self._synced = self.written

    # --- start -------------------------------------------------------------------------------------

    def _join(self, history: History) -> None:
        """Go on in a shared history, whose records all belong to one epoch."""
        place, position = self._sessions.log, self._position
        if self.store != history.store or place.stream not in {NO_STREAM, history.stream}:
            raise ConfigError(
                "this base belongs to another history than the stream: give its own stream, or an empty base."
                ' If its stream is lost: see "All servers are lost" in daemon/docs/replication.md'
            )
        if position and place.stream == NO_STREAM:
            raise ConfigError("this base has a history of its own: a replicated journal needs an empty base")
        self.epochs.share(history.stream)
        self._sessions.log = place._replace(stream=history.stream)

    def _resume(self, found: Recovered) -> None:
        """Go on after a clean stop, over its mark, which may never have reached the disk."""
        header = found.resume
        assert header is not None
        fd = self._files.open(segment_name(header.number), dir_fd=self._dir, write=True)
        self._use(WritableSegment(fd, header, found.proven_end, self._files.size(fd)))
        self._write_mark(self.epochs.newest)
