"""Rewrites segments for a repair: copies valid entries and fills holes. Each file is synced when complete."""

import secrets
from collections.abc import Sequence

from perstack_stored.datadir.filesystem import FILE_MODE, FileSystem
from perstack_stored.journal import entry_format
from perstack_stored.journal.entry_format import EntryHeader, EntryType, Record, SegmentHeader
from perstack_stored.journal.epochs import EPOCHS_MAX
from perstack_stored.journal.recovery import replay_entry
from perstack_stored.journal.segment_head import snapshots_of
from perstack_stored.journal.sessions import Sessions

from .fill import Filled, GapFiller
from .pieces import Hole, Segment, WholeEntries
from .survey import DamageSurvey

_COPY_BYTES = 1 << 20
_LATEST_MS = 2**62


class SegmentRewriter:
    """Rewrites segments into a folder, from the first that needs it to the last."""

    def __init__(
        self, files: FileSystem, folder: int | None, survey: DamageSurvey, filler: GapFiller, store: bytes
    ) -> None:
        """Prepare it. Without a folder it goes through all steps, and writes nothing.

        Args:
            files: the file system.
            folder: folder of the new files.
            survey: the survey, with holes found.
            filler: fills them.
            store: the journal's identity.
        """
        self._files = files
        self._folder = folder
        self._survey = survey
        self._filler = filler
        self._store = store
        self._fd = -1
        self._salt = 0
        self._offset = 0
        self._time_ms = 0
        self._epochs = list(survey.epochs)
        self._next_epoch = 0

    def rewrite(self, segment: Segment, previous_end: int, sessions: Sessions) -> int:
        """Rewrite a segment: its valid entries, with holes filled; return the offset of its end.

        Args:
            segment: the segment.
            previous_end: end of the segment before it.
            sessions: state at the beginning of the segment.
        """
        self._begin(segment.name)
        self._salt = secrets.randbits(32)
        self._time_ms = _first_time(self._survey, segment) or self._time_ms
        first = segment.first_position
        for type, data in snapshots_of(sessions):
            record = Record(0, 0, data)
            self._entry(Filled(first, self._time_ms, 0, entry_format.NO_SESSION, [record]), type)
        self._next_epoch = max(0, sum(e.first <= segment.first_position for e in self._epochs) - EPOCHS_MAX)
        self._begin_epochs(segment.first_position)
        for piece in segment.pieces:
            if isinstance(piece, Hole):
                until = _first_time(self._survey, segment, after=piece.end) or _LATEST_MS
                between = sorted((self._time_ms, until))  # the clock may have been put back
                for filled in self._filler.fill(segment, piece, between[0], between[1]):
                    self._begin_epochs(filled.position)
                    self._entry(filled)
                continue
            for entry in self._survey.entries(segment, piece):
                if entry.header.type == EntryType.RECORDS:
                    self._begin_epochs(entry.header.position)
                    self._entry(_as_filled(entry.header, entry.data))
                elif entry.header.type in {EntryType.CURSORS, EntryType.LOG}:
                    payload = entry.data[entry_format.ENTRY_HEADER_BYTES :]
                    head, record = entry.header, Record(0, 0, payload)
                    self._entry(
                        Filled(head.position, head.time_ms, 0, entry_format.NO_SESSION, [record]),
                        EntryType(head.type),
                    )
        end = self._offset
        self._finish(
            SegmentHeader(segment.number, self._store, segment.first_position, previous_end, end, self._salt)
        )
        return end

    def with_end_before(self, segment: Segment, previous_end: int) -> None:
        """Rewrite a valid segment with another end of the segment before it."""
        assert segment.header is not None
        assert segment.file is not None
        self._begin(segment.name)
        size = segment.file.size()
        while self._offset < size:
            self._write([segment.file.read(min(_COPY_BYTES, size - self._offset), self._offset)])
        self._finish(segment.header._replace(previous_end=previous_end))

    # --- the file ----------------------------------------------------------------------------------

    def _begin(self, name: str) -> None:
        self._offset = entry_format.SEGMENT_HEADER_BYTES
        if self._folder is not None:
            self._fd = self._files.create(name, FILE_MODE, dir_fd=self._folder)

    def _begin_epochs(self, position: int) -> None:
        """Write the epochs that begin at a position or before, and are not in this segment yet."""
        while self._next_epoch < len(self._epochs) and self._epochs[self._next_epoch].first <= position:
            first, number, id = self._epochs[self._next_epoch]
            self._entry(Filled(first - 1, self._time_ms, number, id, []), EntryType.MARK)
            self._next_epoch += 1

    def _entry(self, filled: Filled, type: EntryType = EntryType.RECORDS) -> None:
        self._time_ms = filled.time_ms
        buffers, _ = entry_format.encode_entry(
            self._salt,
            filled.records,
            entry_format.EntryFields(
                filled.position, self._time_ms, 0, filled.seq, filled.session, type, filled.flags
            ),
        )
        self._write(buffers)

    def _write(self, buffers: Sequence[bytes | bytearray | memoryview]) -> None:
        if self._folder is not None:
            self._files.write(self._fd, buffers, self._offset)
        self._offset += sum(map(len, buffers))

    def _finish(self, header: SegmentHeader) -> None:
        if self._folder is None:
            return
        self._files.write(self._fd, [entry_format.encode_segment_header(header)], 0)
        self._files.sync_data(self._fd)
        self._files.close(self._fd)


def _first_time(survey: DamageSurvey, segment: Segment, after: int = 0) -> int:
    """Time of the first entry after an offset, 0 if there is none."""
    run = next((p for p in segment.pieces if isinstance(p, WholeEntries) and p.start >= after), None)
    return 0 if run is None else next(survey.entries(segment, run)).header.time_ms


def _as_filled(header: EntryHeader, data: memoryview) -> Filled:
    records = [
        Record(place.kind, place.flags, data[place.start : place.start + place.length])
        for place in entry_format.record_places(data, header)
    ]
    return Filled(header.position, header.time_ms, header.seq, header.session, records, header.flags)


def sessions_before(survey: DamageSurvey, segment: Segment, sessions: Sessions) -> None:
    """Restore the sessions at the beginning of a segment, from its snapshot or from earlier segments."""
    if segment.has_snapshot:
        sessions.restore(survey.snapshot(segment))
        guards = survey.after_snapshot(segment, EntryType.GUARDS)
        if guards is not None:
            sessions.restore_guards(guards)
        cursors = survey.after_snapshot(segment, EntryType.CURSORS)
        if cursors is not None:
            sessions.cursors.replay(cursors)
        writers = survey.after_snapshot(segment, EntryType.WRITERS)
        if writers is not None:
            sessions.writers.restore(writers)
        log = survey.after_snapshot(segment, EntryType.LOG)
        if log is not None:
            sessions.replay_log(log, 0)
        return
    before = survey.segments[: segment.number - 1]
    start = max((earlier.number for earlier in before if earlier.has_snapshot), default=1)
    for earlier in before[start - 1 :]:
        for piece in earlier.pieces:
            if isinstance(piece, WholeEntries):
                for entry in survey.entries(earlier, piece):
                    replay_entry(entry, sessions)
