"""The pieces of a damaged segment: runs of valid entries, and holes between them."""

from typing import NamedTuple

from perstack_stored.errors import ConfigError
from perstack_stored.journal import entry_format
from perstack_stored.journal.entry_format import EntryHeader, EntryType, SegmentHeader
from perstack_stored.journal.segment_file import BadPlace, OpenSegment
from perstack_stored.journal.segment_names import segment_name


class WholeEntries(NamedTuple):
    """Consecutive valid entries between two offsets."""

    start: int
    end: int


class Hole(NamedTuple):
    """Bytes between two offsets without valid entries; the positions `first` to `last` are missing.

    None may be missing (last < first): the damaged entry held no records.
    """

    start: int
    end: int
    first: int
    last: int
    reason: str


class Item(NamedTuple):
    """A valid entry, or other bytes, with None as header."""

    start: int
    end: int
    header: EntryHeader | None
    reason: str


class Segment:
    """A place in the sequence of segments, and what was found there; the file may be missing."""

    def __init__(self, number: int, file: OpenSegment | None) -> None:
        self.number = number
        self.name = segment_name(number)
        self.file = file
        self.header: SegmentHeader | None = None
        self.salt: int | None = None
        self.reason = "the segment is missing" if file is None else ""  # what is wrong with the header
        self.first_position = 0
        self.pieces: list[WholeEntries | Hole] = []
        self.items: list[Item] = []
        self.torn: list[Item] = []  # what a start would leave out
        self.has_snapshot = False
        self.end = entry_format.SEGMENT_HEADER_BYTES
        self.is_scanned = False
        self.bad_packing: BadPlace | None = None

    @property
    def holes(self) -> list[Hole]:
        """Its holes in order."""
        return [piece for piece in self.pieces if isinstance(piece, Hole)]

    @property
    def is_damaged(self) -> bool:
        """Whether its header, its snapshot, its packing or any entry is damaged or missing."""
        return (
            self.header is None or not self.has_snapshot or bool(self.holes) or self.bad_packing is not None
        )

    @property
    def stated_first(self) -> int | None:
        """Its first position according to its header, or else to its first entry."""
        if self.header is not None:
            return self.header.first_position
        first = self.items[0].header if self.items else None
        return None if first is None or first.type == EntryType.MARK else first.position


class Pieces:
    """Builds runs and holes from items, in order."""

    def __init__(self, segment: Segment, position: int) -> None:
        self._segment = segment
        self._bad: Item | None = None
        self._run: WholeEntries | None = None
        self.position = position
        self.pieces: list[WholeEntries | Hole] = []

    @property
    def bad_bytes(self) -> int:
        """Bytes without entries after the last one."""
        return 0 if self._bad is None else self._bad.end - self._bad.start

    def bad(self, item: Item) -> None:
        """Add bytes without entries."""
        self._end_run()
        self._bad = item

    def entry(self, item: Item, header: EntryHeader) -> None:
        """Add a valid entry."""
        if header.type == EntryType.RECORDS:
            before, last = header.position - 1, header.position + header.count - 1
            if last <= self.position:
                self._end_run()  # recovery wrote it again: the segment before has it
                return
        else:
            before = last = header.position - (header.type in entry_format.BEFORE_NEXT)
        if before < self.position and header.type == EntryType.RECORDS:
            raise ConfigError(
                f"position {header.position} stands at offset {item.start} of {self._segment.name}, after"
                f" position {self.position}: which one is right is unknown"
            )
        if self._bad is not None or before > self.position:
            self._hole(before, item.start)
        self.position = max(self.position, last)
        self._run = WholeEntries(item.start if self._run is None else self._run.start, item.end)

    def finish(self, last: int) -> None:
        """End the segment, which should reach the position `last`."""
        if self._bad is not None or last > self.position:
            self._hole(last, self._segment.end)
        self._end_run()

    def _hole(self, last: int, offset: int) -> None:
        self._end_run()
        bad = self._bad or Item(offset, offset, None, self._segment.reason or "records are missing")
        self.pieces.append(Hole(bad.start, bad.end, self.position + 1, max(last, self.position), bad.reason))
        self.position = max(last, self.position)
        self._bad = None

    def _end_run(self) -> None:
        if self._run is not None:
            self.pieces.append(self._run)
            self._run = None
