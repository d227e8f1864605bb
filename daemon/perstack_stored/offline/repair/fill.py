"""Fills holes in the journal with records for which there is evidence, and with gaps. Reads only.

An entry is restored whole if its own checksum matches after bytes with evidence are put in.
Otherwise each of its records is judged alone.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from perstack_stored.errors import NewerFormatError
from perstack_stored.journal import entry_format
from perstack_stored.journal.entry_format import EntryHeader, EntryType, NotAnEntryError, Record, RecordPlace
from perstack_stored.model import gaps
from perstack_stored.model.checksum import crc32c
from perstack_stored.model.kinds import Kind

from .evidence import IndexEvidence, Known
from .pieces import Hole, Segment
from .survey import DamageSurvey

_BATCH_RECORDS_MAX = 4096
_BATCH_BYTES_MAX = 4 << 20
FROM_JOURNAL = "journal"
FROM_TREE = "tree"


class Filled(NamedTuple):
    """An entry to write in place of a hole, or of a part of it."""

    position: int
    time_ms: int
    seq: int
    session: bytes
    records: list[Record]
    flags: int = 0  # of the entry


class FillCounts(Protocol):
    """Counts each position of a hole, in order."""

    def restored(self, position: int, known: Known, kind: int, source: str) -> None:
        """Count a restored record."""

    def gone(self, position: int, known: Known) -> None:
        """Count a lost record."""


class _Damaged(NamedTuple):
    """An entry in a hole whose header looks valid: each record with its place."""

    header: EntryHeader
    data: bytes
    places: list[RecordPlace]


class GapFiller:
    """Fills holes."""

    def __init__(self, survey: DamageSurvey, vouchers: IndexEvidence, counts: FillCounts) -> None:
        self._survey = survey
        self._vouchers = vouchers
        self._counts = counts

    def fill(self, segment: Segment, hole: Hole, from_ms: int, to_ms: int) -> Iterator[Filled]:
        """Entries for all positions of a hole; `from_ms` and `to_ms` are times of the entries around it."""
        touched = self._vouchers.touched(from_ms, to_ms)
        position, offset = hole.first, hole.start
        while position <= hole.last and (found := self._damaged(segment, offset, position, hole)) is not None:
            yield self._mend(segment, found, from_ms, to_ms, touched)
            touched = []
            position += found.header.count
            offset += entry_format.padded(found.header.length)
        records: list[Record] = []
        size = 0
        for number in range(position, hole.last + 1):
            records.append(self._single(number, None, touched))
            touched = []
            size += len(records[-1].payload)
            if number == hole.last or len(records) >= _BATCH_RECORDS_MAX or size >= _BATCH_BYTES_MAX:
                yield Filled(number + 1 - len(records), from_ms, 0, entry_format.NO_SESSION, records)
                records, size = [], 0

    # --- entries -----------------------------------------------------------------------------------

    def _damaged(self, segment: Segment, offset: int, position: int, hole: Hole) -> _Damaged | None:
        """A damaged entry with a plausible header at this place; None if there is none."""
        if segment.file is None or offset + entry_format.ENTRY_HEADER_BYTES > hole.end:
            return None
        head = entry_format.ENTRY_MAGIC + segment.file.read(entry_format.ENTRY_HEADER_BYTES, offset)[4:]
        try:
            header = entry_format.decode_header(head)
            if header.length > hole.end - offset:
                return None
            data = entry_format.ENTRY_MAGIC + segment.file.read(header.length, offset)[4:]
            if len(data) < header.length:
                return None  # the file was truncated
            places = entry_format.record_places(data, header)
        except (NotAnEntryError, NewerFormatError):
            return None
        is_right = header.type == EntryType.RECORDS and header.position == position
        is_right &= 1 <= header.count <= hole.last + 1 - position
        return _Damaged(header, data, places) if is_right else None

    def _mend(
        self,
        segment: Segment,
        found: _Damaged,
        from_ms: int,
        to_ms: int,
        touched: list[tuple[str, str, float]],
    ) -> Filled:
        header = found.header
        payloads, sources = self._best(found)
        if segment.salt is not None and _crc(found, payloads, segment.salt) == header.crc:
            records = []
            for i, (place, payload) in enumerate(zip(found.places, payloads, strict=True)):
                known = self._vouchers.known(header.position + i)
                self._counts.restored(header.position + i, known, place.kind, sources[i])
                records.append(Record(place.kind, place.flags, payload))
            return Filled(header.position, header.time_ms, header.seq, header.session, records, header.flags)
        time_ms = header.time_ms if from_ms <= header.time_ms <= to_ms else from_ms
        records = []
        for i, payload in enumerate(payloads):
            records.append(self._single(header.position + i, payload, touched))
            touched = []
        return Filled(header.position, time_ms, header.seq, header.session, records)

    def _best(self, found: _Damaged) -> tuple[list[bytes], list[str]]:
        """The payloads of an entry and their sources: the tree where the index says that they are wrong."""
        payloads, sources = [], []
        for i, place in enumerate(found.places):
            payload, source = found.data[place.start : place.start + place.length], FROM_JOURNAL
            known = self._vouchers.known(found.header.position + i)
            if known.kind and not known.is_vouched(payload):
                better = self._vouchers.in_tree(known)
                if better is not None and len(better) == place.length:
                    payload, source = better, FROM_TREE
            payloads.append(payload)
            sources.append(source)
        return payloads, sources

    # --- records -----------------------------------------------------------------------------------

    def _single(self, position: int, payload: bytes | None, touched: list[tuple[str, str, float]]) -> Record:
        """A single record: from its place, from elsewhere in the journal, or from the tree; else a gap."""
        known = self._vouchers.known(position)
        if known.kind:
            if payload is None or not known.is_vouched(payload):
                payload = self._in_journal(known)
            source = FROM_JOURNAL
            if payload is None:
                payload, source = self._vouchers.in_tree(known), FROM_TREE
            if payload is not None:
                self._counts.restored(position, known, known.kind, source)
                return Record(known.kind, entry_format.FLAG_RESTORED, payload)
        self._counts.gone(position, known)
        gap = known.gap
        if touched:
            gap = gaps.decode(gaps.encode(gap))
            gap.touched = touched
        return Record(Kind.GAP, 0, gaps.encode(gap))

    def _in_journal(self, known: Known) -> bytes | None:
        """The bytes at the address in the index: recovery may have left a copy there, now void."""
        number, offset, length, _ = known.place
        if not 1 <= number <= len(self._survey.segments):
            return None
        file = self._survey.segments[number - 1].file
        if file is None or not 0 <= offset <= offset + length <= file.size():
            return None
        payload = file.read(length, offset)
        return payload if known.is_vouched(payload) else None


def _crc(found: _Damaged, payloads: list[bytes], salt: int) -> int:
    """The checksum that the entry would have with these payloads."""
    start = found.places[0].start
    crc = crc32c(found.data[8:start], salt)
    for payload in payloads:
        crc = crc32c(payload, crc)
    return crc
