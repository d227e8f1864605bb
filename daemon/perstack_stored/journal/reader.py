"""Reads segments: walks the entries of a file, follows the chain of files, and finds a position."""

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.errors import DamageError
from perstack_stored.model.checksum import crc32c
from perstack_stored.model.kinds import Kind

from . import entry_format
from .entry_format import EntryHeader, NotAnEntryError, SegmentHeader
from .segment_file import OpenSegment, drop_blocks, open_segment

READ_BYTES = 1 << 20
LARGE_BYTES = 1 << 20  # of an entry whose value is read in pieces
_PROBE_BYTES = 4096
_PROGRESS_ENTRIES = 64
_RECORDS = int(entry_format.EntryType.RECORDS)
SUFFIX = ".segment"
_NAME = re.compile(r"[0-9]{10}\.segment")


class LogPosition(NamedTuple):
    """A place between two entries: `position` of the last record before it, `offset` of the next entry."""

    position: int
    segment: int
    offset: int


class Entry(NamedTuple):
    """An entry whose checksum was tested, with its place. `data` is the whole entry without padding.

    Of a large entry that is read with `split_large`, `data` is the part before the payload of its only
    record; `payload_crc` is the checksum of the payload.
    """

    segment: int
    offset: int
    header: EntryHeader
    data: memoryview
    payload_crc: int | None = None


class BadEntryError(Exception):
    """The bytes at `offset` are no valid entry; found while walking a segment."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(reason)
        self.offset = offset
        self.reason = reason


def is_large(header: EntryHeader) -> bool:
    """Whether an entry's value may be read separately (`split_large`)."""
    return header.count == 1 and header.length > LARGE_BYTES


def segment_name(number: int) -> str:
    """File name of a segment."""
    return f"{number:010d}{SUFFIX}"


def segment_number(name: str) -> int:
    """The number in the file name of a segment."""
    return int(name.removesuffix(SUFFIX))


def is_segment_name(name: str) -> bool:
    """Whether a name is exactly that of a segment."""
    return _NAME.fullmatch(name) is not None and segment_number(name) > 0


def segment_numbers(names: Iterable[str]) -> list[int]:
    """The numbers of the segments among some names, in order; other names are ignored."""
    return sorted(segment_number(name) for name in names if is_segment_name(name))


class SegmentFile(NamedTuple):
    """A segment that is open for reading, with what its entries' checksums need."""

    file: OpenSegment
    salt: int
    number: int


def walk(
    segment: SegmentFile, start: int, end: int, *, read_bytes: int = READ_BYTES, split_large: bool = False
) -> Iterator[Entry]:
    """Read the entries of a segment in order, and test the checksum of each.

    Args:
        segment: the segment.
        start: offset of the first entry.
        end: every entry ends at or before this offset.
        read_bytes: bytes that are read at a time.
        split_large: of a large entry only the head is returned; its value is not held in memory.

    Raises:
        BadEntryError: the first place before `end` holds no valid entry.
    """
    file, salt, number = segment
    data = b""
    base = offset = start
    while offset < end:
        try:
            if offset + entry_format.ENTRY_HEADER_BYTES > base + len(data):
                data = file.read(min(read_bytes, end - offset), offset)
                base = offset
            header = entry_format.decode_header(data, offset - base)
            if offset + header.length > end:
                raise NotAnEntryError("it runs past the end")
            if split_large and is_large(header):
                yield _tested_large(segment, Entry(number, offset, header, memoryview(b"")))
                offset += entry_format.padded(header.length)
                continue
            if offset + header.length > base + len(data):
                data = file.read(max(min(read_bytes, end - offset), header.length), offset)
                base = offset
            if not entry_format.entry_matches(data, header, salt, offset - base):
                raise NotAnEntryError("its checksum does not match")
        except NotAnEntryError as error:
            raise BadEntryError(offset, str(error)) from None
        start_in_data = offset - base
        yield Entry(number, offset, header, memoryview(data)[start_in_data : start_in_data + header.length])
        offset += entry_format.padded(header.length)


def _tested_large(segment: SegmentFile, entry: Entry) -> Entry:
    """Test a large entry of one record, read in pieces.

    Raises:
        NotAnEntryError: its checksum does not match.
    """
    file, salt, _ = segment
    header, start = entry.header, entry_format.ENTRY_HEADER_BYTES + entry_format.RECORD_BYTES
    head = file.read(start, entry.offset)
    crc, payload_crc = entry_format.crc_of_head(head, salt), 0
    piece = b""
    while start < header.length:
        crc = crc32c(piece, crc)
        piece = file.read(min(READ_BYTES, header.length - start), entry.offset + start)
        if not piece:
            raise NotAnEntryError("it runs past the end of the file")
        payload_crc = crc32c(piece, payload_crc)
        start += len(piece)
    if crc32c(piece, crc) != header.crc:
        raise NotAnEntryError("its checksum does not match")
    return entry._replace(data=memoryview(head), payload_crc=payload_crc)


def find_entry(
    segment: SegmentFile, start: int, end: int, *, least_position: int = 0
) -> Iterator[tuple[int, EntryHeader]]:
    """Find valid entries at any offset from `start` on, which a walk can't reach after a bad place.

    Entries with a position below `least_position` are passed over without a look at their checksum.
    """
    offset = start
    overlap = len(entry_format.ENTRY_MAGIC) - 1
    while offset < end:
        data = segment.file.read(min(READ_BYTES + overlap, end - offset), offset)
        found = data.find(entry_format.ENTRY_MAGIC)
        while found >= 0:
            place = offset + found
            if place % entry_format.ALIGNMENT == 0 and not _is_before(data, found, least_position):
                try:
                    entry = next(walk(segment, place, end, read_bytes=_PROBE_BYTES))
                except (BadEntryError, StopIteration):
                    pass
                else:
                    yield place, entry.header
            found = data.find(entry_format.ENTRY_MAGIC, found + 1)
        offset += READ_BYTES


def _is_before(data: bytes, offset: int, position: int) -> bool:
    """Whether the whole header of an entry at an offset states a position below this one."""
    if not position or offset + entry_format.ENTRY_HEADER_BYTES > len(data):
        return False
    try:
        return entry_format.decode_header(data, offset).position < position
    except NotAnEntryError:
        return False


class Chain:
    """The segments of a journal, in order. Later ones are found by `refresh`.

    A segment logically ends where the next one says that it does; bytes after that are void: a torn
    tail, or records that recovery wrote again at the head of the next segment.
    """

    def __init__(self, files: FileSystem, dir_fd: int, *, open_files_max: int = 64) -> None:
        self._files = files
        self._dir = dir_fd
        self._open: OrderedDict[int, OpenSegment] = OrderedDict()
        self._open_max = open_files_max
        self._lock = threading.Lock()
        self.headers: dict[int, SegmentHeader] = {}
        self.refresh()

    def refresh(self) -> None:
        """Add segments that are new.

        Raises:
            DamageError: a header is damaged, or a segment of the chain is missing.
        """
        for number in segment_numbers(self._files.list_dir(self._dir)):
            if number in self.headers:
                continue
            previous = self.headers.get(number - 1)
            if previous is None and number > 1:
                raise DamageError(segment_name(number - 1), 0, 0, "the segment is missing")
            header = self._read_header(number)
            if previous is not None and header.store != previous.store:
                raise DamageError(
                    segment_name(number), 0, header.first_position, "it belongs to another store"
                )
            self.headers[number] = header

    def _read_header(self, number: int) -> SegmentHeader:
        file = open_segment(self._files, segment_name(number), dir_fd=self._dir)
        try:
            header = entry_format.decode_segment_header(file.read(entry_format.SEGMENT_HEADER_BYTES, 0))
        except NotAnEntryError as error:
            raise DamageError(segment_name(number), 0, 0, str(error)) from None
        finally:
            file.close()
        if header.number != number:
            raise DamageError(
                segment_name(number), 0, header.first_position, f"it says it is number {header.number}"
            )
        return header

    @property
    def last(self) -> int:
        """Number of the last segment, 0 if there is none."""
        return len(self.headers)

    def end_of(self, number: int) -> int | None:
        """Logical end of a segment in bytes; None for the last one, which has none yet."""
        following = self.headers.get(number + 1)
        return None if following is None else following.previous_end

    def file(self, number: int) -> SegmentFile:
        """The segment for reading; it is kept open for the next call."""
        file = self.open(number)
        return SegmentFile(file, self.headers[number].salt if file.salt is None else file.salt, number)

    def open(self, number: int) -> OpenSegment:
        """The open file of a segment, kept for the next call."""
        with self._lock:
            file = self._open.get(number)
            if file is not None:
                self._open.move_to_end(number)
                return file
        file = open_segment(self._files, segment_name(number), dir_fd=self._dir)
        try:
            head = file.read(entry_format.SEGMENT_HEADER_BYTES, 0)
            file.salt = entry_format.decode_segment_header(head).salt
        except NotAnEntryError:  # damaged since: the entries are tested against the earlier header
            file.salt = None
        except BaseException:
            file.close()
            raise
        oldest = None
        with self._lock:
            self._open[number] = file
            if len(self._open) > self._open_max:
                _, oldest = self._open.popitem(last=False)
        if oldest is not None:
            oldest.close()
        return file

    def drop_replaced(self, *, closes: bool = True) -> None:
        """Let go of files that have another one under their name: their segment was packed or erased.

        Another thread calls it with `closes` false: a file that is read at the moment stays open until then.
        """
        with self._lock:
            held = list(self._open.items())
        for number, file in held:
            if not self._files.is_at(file.fd, segment_name(number), dir_fd=self._dir):
                with self._lock:
                    self._open.pop(number, None)
                if file.is_packed:
                    drop_blocks()
                if closes:
                    file.close()
                else:
                    file.closes_itself = True

    def close(self) -> None:
        """Close all files."""
        with self._lock:
            files = list(self._open.values())
            self._open.clear()
        for file in files:
            file.close()


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
        position, number, offset = place
        while number <= until.segment:
            if number not in self.chain.headers or (
                number < until.segment and self.chain.end_of(number) is None
            ):
                self.chain.refresh()
            end = until.offset if number == until.segment else self.chain.end_of(number)
            assert end is not None
            try:
                for count, entry in enumerate(
                    walk(self.chain.file(number), offset, end, split_large=split_large)
                ):
                    header = entry.header
                    if not count % _PROGRESS_ENTRIES or header.length > LARGE_BYTES:
                        self._on_progress()
                    if header.type == _RECORDS:
                        position = header.position + header.count - 1
                        yield entry
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
