"""Reads the journal: entries in order between two places, and payloads by their address."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.errors import DamageError
from perstack_stored.model.kinds import Kind

from . import entry_format
from .chain import Chain
from .entry_format import NotAnEntryError
from .segment_names import segment_name
from .segment_walk import BadEntryError, Entry, walk, walk_some

_RECORDS = int(entry_format.EntryType.RECORDS)


class LogPosition(NamedTuple):
    """A place between two entries: `position` of the last record before it, `offset` of the next entry."""

    position: int
    segment: int
    offset: int


class JournalReader:
    """Reads entries in order up to a log position, and payloads by their address. One thread at a time."""

    def __init__(
        self, files: FileSystem, dir_fd: int, on_progress: Callable[[], None] = lambda: None
    ) -> None:
        """Open a journal for reading; `on_progress` is called as `entries` goes on, some times a MiB."""
        self._on_progress = on_progress
        self.chain = Chain(files, dir_fd)

    def start(self) -> LogPosition:
        """The place before the first record."""
        return LogPosition(0, 1, entry_format.SEGMENT_HEADER_BYTES)

    def seek(self, position: int, until: LogPosition) -> LogPosition:
        """Return the place of the entry that holds `position`+1, the first record that a worker has not seen.

        Raises:
            DamageError: an entry on the way is not valid.
        """
        self.chain.refresh()
        number = max(
            (n for n, h in self.chain.headers.items() if h.first_position <= position + 1), default=1
        )
        place = LogPosition(
            max(0, self.chain.headers[number].first_position - 1), number, entry_format.SEGMENT_HEADER_BYTES
        )
        for entry in self.entries(place, until):
            if entry.header.position + entry.header.count > position + 1:
                return LogPosition(position, entry.segment, entry.offset)
            place = self.place_after(entry)
        return place

    def entries(
        self, place: LogPosition, until: LogPosition, *, split_large: bool = False
    ) -> Iterator[Entry]:
        """Read the entries with records between two places; with `split_large`, only the heads of large ones.

        Raises:
            DamageError: an entry on the way is not valid.
        """
        for some in self._some(place, until, split_large=split_large):
            yield from some

    def slice(self, place: LogPosition, until: LogPosition, records_max: int, bytes_max: int) -> list[Entry]:
        """Read the first entries with records between two places, until they hold this many records or bytes.

        Raises:
            DamageError: an entry on the way is not valid.
        """
        taken: list[Entry] = []
        records = size = 0
        for some in self._some(place, until):
            for entry in some:
                header = entry.header
                taken.append(entry)
                records += header.count
                size += header.length
                if records >= records_max or size >= bytes_max:
                    return taken
        return taken

    def _some(
        self, place: LogPosition, until: LogPosition, *, split_large: bool = False
    ) -> Iterator[list[Entry]]:
        position, number, offset = place
        while number <= until.segment:
            if number not in self.chain.headers or (
                number < until.segment and self.chain.end_of(number) is None
            ):
                self.chain.refresh()
            end = until.offset if number == until.segment else self.chain.end_of(number)
            assert end is not None
            try:
                for some in walk_some(self.chain.file(number), offset, end, split_large=split_large):
                    self._on_progress()
                    found = [entry for entry in some if entry.header.type == _RECORDS]
                    if found:
                        position = self.place_after(found[-1]).position
                        yield found
            except BadEntryError as error:
                raise DamageError(segment_name(number), error.offset, position + 1, error.reason) from None
            number, offset = number + 1, entry_format.SEGMENT_HEADER_BYTES

    def place_after(self, entry: Entry) -> LogPosition:
        """Return the place after an entry."""
        last = entry.header.position + max(entry.header.count, 1) - 1
        return LogPosition(last, entry.segment, entry.offset + entry_format.padded(entry.header.length))

    def payload(self, segment: int, offset: int, length: int) -> bytes:
        """Return the bytes of a record by its address in a segment."""
        if segment not in self.chain.headers:
            self.chain.refresh()
        return self.chain.open(segment).read(length, offset)

    def has(self, segment: object, offset: object, length: object, until: LogPosition) -> bool:
        """Whether a record of this length can stand at an address before `until`; any value may be passed."""
        if not (isinstance(segment, int) and isinstance(offset, int) and isinstance(length, int)):
            return False
        return (
            offset >= entry_format.SEGMENT_HEADER_BYTES
            and 0 <= length <= (self._end(segment, until) or 0) - offset
        )

    def is_sound(self, segment: int, offset: int, until: LogPosition) -> bool:
        """Whether each entry of a segment is valid, from its head to the entry at this offset.

        A caller that finds unexpected bytes at an address learns from this that the address is wrong.
        """
        end = self._end(segment, until)
        if end is None:
            return False
        try:
            for entry in walk(self.chain.file(segment), entry_format.SEGMENT_HEADER_BYTES, end):
                if entry.offset + entry.header.length > offset:
                    break
        except BadEntryError:
            return False
        return True

    def is_erased(self, segment: int, offset: int, until: LogPosition) -> bool:
        """Whether the record with its payload at an address of a valid entry was erased."""
        end = self._end(segment, until)
        if end is None:
            return False
        try:
            for entry in walk(self.chain.file(segment), entry_format.SEGMENT_HEADER_BYTES, end):
                if entry.offset + entry.header.length > offset:
                    places = entry_format.record_places(entry.data, entry.header)
                    gone = [place for place in places if entry.offset + place.start == offset]
                    return bool(gone) and gone[0].kind == Kind.GAP
        except (BadEntryError, NotAnEntryError):
            pass
        return False

    def _end(self, segment: int, until: LogPosition) -> int | None:
        """End of a segment, or of `until` in it; None if the segment is missing or after `until`."""
        if segment not in self.chain.headers or (segment < until.segment and not self.chain.end_of(segment)):
            self.chain.refresh()
        if segment not in self.chain.headers or segment > until.segment:
            return None
        return until.offset if segment == until.segment else self.chain.end_of(segment)

    def close(self) -> None:
        """Close all files."""
        self.chain.close()
