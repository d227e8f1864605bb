"""Checks each entry of each segment, and the chain of segments, for `check`. Reads only."""

from typing import NamedTuple

import msgspec

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.errors import DamageError, NewerFormatError
from perstack_stored.journal import entry_format
from perstack_stored.journal.entry_format import EntryType, NotAnEntryError, SegmentHeader
from perstack_stored.journal.reader import LogPosition
from perstack_stored.journal.recovery import Recovered, recover
from perstack_stored.journal.segment_file import OpenSegment, open_segment
from perstack_stored.journal.segment_names import segment_name, segment_numbers
from perstack_stored.journal.segment_walk import BadEntryError, Entry, SegmentFile, find_entry, walk
from perstack_stored.journal.sessions import Sessions
from perstack_stored.model import gaps
from perstack_stored.model.gaps import GapRange
from perstack_stored.model.kinds import Kind
from perstack_stored.offline.findings import Report
from perstack_stored.offline.locked import Advance, progress


class JournalEnd(NamedTuple):
    """A valid journal: its identity, the log position up to which it can be read, and what was erased."""

    store: bytes
    mark: LogPosition
    erased: list[GapRange]


def recover_only(files: FileSystem, journal_dir: int) -> Recovered:
    """Find the end of the journal as the next start does. Writes nothing.

    Raises:
        DamageError: the last segment is damaged, or the chain of segments is.
    """
    return recover(files, journal_dir, Sessions(sessions_max=1, session_seconds=1, remembered_records_max=1))


def check_journal(files: FileSystem, journal_dir: int, report: Report) -> JournalEnd | None:
    """Report what is wrong with the journal; None if it is too damaged to compare with."""
    before = report.findings
    numbers = segment_numbers(files.list_dir(journal_dir))
    if not numbers:
        return None
    headers = _headers(files, journal_dir, numbers, report)
    ends = {number - 1: header.previous_end for number, header in headers.items()}
    found = None
    if report.findings == before:
        try:
            found = recover_only(files, journal_dir)
        except DamageError as error:
            _damage(report, error.segment, error.offset, error.reason, error.position or None)
        else:
            ends[found.number] = found.end
            _tell_tail(report, found)
    lost: list[GapRange] = []
    erased: list[GapRange] = []
    with progress("journal (bytes)", sum(ends.values())) as advance:
        last: dict[int, int | None] = {0: 0}  # last position of each segment that could be read
        for number, header in headers.items():
            position = last.get(number - 1)
            if position is not None and header.first_position != position + 1:
                reason = f"it begins with position {header.first_position}, not {position + 1}"
                _damage(report, segment_name(number), 0, reason, position + 1)
            if number in ends:
                last[number] = _Segment(files, journal_dir, header, report, (lost, erased)).check(
                    ends[number], advance
                )
    for gap in lost:
        report.add("journal_gap", first=gap.first, last=gap.last)
    if report.findings != before or found is None or found.store is None:
        return None
    report.compared["records"] = found.position
    if erased:
        report.compared["erased records"] = sum(last + 1 - first for first, last in erased)
    return JournalEnd(found.store, LogPosition(found.position, found.number, found.end), erased)


def _damage(report: Report, segment: str, offset: int, reason: str, position: int | None = None) -> None:
    report.add("journal_damage", segment=segment, offset=offset, position=position, reason=reason)


def _tell_tail(report: Report, found: Recovered) -> None:
    segment = segment_name(found.number)
    if found.torn_bytes:
        report.add("journal_torn_tail", segment=segment, offset=found.end, bytes=found.torn_bytes)
    if found.kept:
        records = sum(len(entry.records) for entry in found.kept)
        report.add("journal_unproven", segment=segment, position=found.kept[0].position, records=records)


def _headers(
    files: FileSystem, journal_dir: int, numbers: list[int], report: Report
) -> dict[int, SegmentHeader]:
    headers: dict[int, SegmentHeader] = {}
    store: bytes | None = None
    expected = 1
    for number in numbers:
        if number > expected:
            missing = segment_name(expected) + (
                f" to {segment_name(number - 1)}" if number - 1 > expected else ""
            )
            _damage(report, missing, 0, "it is missing")
        expected = number + 1
        name = segment_name(number)
        try:
            file = open_segment(files, name, dir_fd=journal_dir)
            try:
                header = entry_format.decode_segment_header(file.read(entry_format.SEGMENT_HEADER_BYTES, 0))
            finally:
                file.close()
        except OSError as error:
            _damage(report, name, 0, f"it can't be read: {error.strerror}")
            continue
        except (NotAnEntryError, NewerFormatError) as error:
            _damage(report, name, 0, str(error))
            continue
        if header.number != number:
            _damage(report, name, 0, f"it says that it is number {header.number}", header.first_position)
        elif header.store != (store or header.store):
            _damage(report, name, 0, "it belongs to another store", header.first_position)
        else:
            store = header.store
            headers[number] = header
    return headers


class _Segment:
    """The entries of one segment, up to its logical end: later bytes are void."""

    def __init__(
        self,
        files: FileSystem,
        journal_dir: int,
        header: SegmentHeader,
        report: Report,
        gaps_found: tuple[list[GapRange], list[GapRange]],
    ) -> None:
        """`gaps_found`: lost positions, and erased ones; found ones are added."""
        self._files = files
        self._dir = journal_dir
        self._header = header
        self._report = report
        self._lost, self._erased = gaps_found
        self._name = segment_name(header.number)
        self._position: int | None = header.first_position - 1

    def check(self, end: int, advance: Advance) -> int | None:
        """Check every entry; return the last position, None if it is unknown."""
        offset: int | None = entry_format.SEGMENT_HEADER_BYTES
        file = open_segment(self._files, self._name, dir_fd=self._dir)
        try:
            for bad in file.bad_places():
                _damage(self._report, self._name, bad.start, bad.reason)
            while offset is not None:
                offset = self._walk(file, offset, end, advance)
        except OSError as error:
            _damage(self._report, self._name, 0, f"it can't be read: {error.strerror}")
            return None
        finally:
            file.close()
        return self._position

    def _walk(self, file: OpenSegment, offset: int, end: int, advance: Advance) -> int | None:
        """Check entries from `offset` on; return where to go on after a bad place."""
        segment = SegmentFile(file, self._header.salt, self._header.number)
        try:
            for entry in walk(segment, offset, end):
                self._entry(entry)
                advance(entry_format.padded(entry.header.length))
        except BadEntryError as error:
            position = None if self._position is None else self._position + 1
            _damage(self._report, self._name, error.offset, error.reason, position)
            self._position = None
            following = next(find_entry(segment, error.offset, end), None)
            return None if following is None else following[0]
        return None

    def _entry(self, entry: Entry) -> None:
        found = entry.header
        if found.type != EntryType.RECORDS:
            return
        if self._position is not None and found.position != self._position + 1:
            reason = f"position {found.position} stands there"
            _damage(self._report, self._name, entry.offset, reason, self._position + 1)
        self._position = found.position + found.count - 1
        try:
            for i, place in enumerate(entry_format.record_places(entry.data, found)):
                if place.kind == Kind.GAP:
                    gap = gaps.decode(entry.data[place.start : place.start + place.length])
                    gaps.add(self._erased if gap.removed else self._lost, found.position + i)
        except (NotAnEntryError, NewerFormatError, msgspec.MsgspecError) as error:
            _damage(self._report, self._name, entry.offset, str(error), found.position)
