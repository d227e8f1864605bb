"""Survey of a damaged journal: runs of valid entries, and holes between them. Reads only.

If a valid header of the next segment states the end of a segment, all before it was on disk. Otherwise the
end is judged as at a start: bytes after the proven offset may be a torn tail, which is no damage.
"""

from collections.abc import Iterator

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.errors import ConfigError, NewerFormatError
from perstack_stored.journal import entry_format
from perstack_stored.journal.entry_format import (
    SEGMENT_RECYCLED,
    EntryType,
    NotAnEntryError,
)
from perstack_stored.journal.epochs import Epoch, epoch_of
from perstack_stored.journal.segment_file import open_segment
from perstack_stored.journal.segment_names import segment_name, segment_numbers
from perstack_stored.journal.segment_walk import BadEntryError, Entry, SegmentFile, find_entry, walk

from .pieces import Item, Pieces, Segment, WholeEntries
from .salt import solve_salt

# Minimum size of a stored value with its place in the table.
_RECORD_BYTES_MIN = 64
_SALT_OFFSET = 56
_HEAD_ITEMS = 5  # sessions, guards, cursors, last writers, log


class DamageSurvey:
    """All segments of a journal, walked from the first to the last."""

    def __init__(self, files: FileSystem, dir_fd: int) -> None:
        """Open the segments and read their headers.

        Raises:
            ConfigError: there are none, or they can't belong together.
            NewerFormatError: a newer version wrote them.
        """
        numbers = set(segment_numbers(files.list_dir(dir_fd)))
        if not numbers:
            raise ConfigError("there is no journal to repair")
        self.segments = [
            Segment(n, open_segment(files, segment_name(n), dir_fd=dir_fd) if n in numbers else None)
            for n in range(1, max(numbers) + 1)
        ]
        for segment in self.segments:
            self._read_header(segment)
        stores = {segment.header.store for segment in self.segments if segment.header is not None}
        if len(stores) > 1:
            raise ConfigError(
                "the segments of the journal belong to different stores; put the right ones back"
            )
        self.store = stores.pop() if stores else None
        self.position = 0
        self._epochs: dict[bytes, Epoch] = {}

    @property
    def epochs(self) -> list[Epoch]:
        """The epochs that marks begin, in order."""
        return sorted(self._epochs.values())

    def close(self) -> None:
        """Close the segments."""
        for segment in self.segments:
            if segment.file is not None:
                segment.file.close()

    def entries(self, segment: Segment, run: WholeEntries) -> Iterator[Entry]:
        """The entries of a run."""
        assert segment.salt is not None
        return walk(self._file(segment, segment.salt), run.start, run.end)

    def _file(self, segment: Segment, salt: int) -> SegmentFile:
        assert segment.file is not None
        return SegmentFile(segment.file, salt, segment.number)

    def snapshot(self, segment: Segment) -> memoryview:
        """The sessions at the beginning of a segment; it must have a snapshot."""
        start = entry_format.SEGMENT_HEADER_BYTES
        entry = next(self.entries(segment, WholeEntries(start, segment.items[0].end)))
        return entry.data[entry_format.ENTRY_HEADER_BYTES :]

    def after_snapshot(self, segment: Segment, type: EntryType) -> memoryview | None:
        """Guards or cursors at the beginning of a segment, which has a snapshot; None if there are none."""
        for item in segment.items[1:_HEAD_ITEMS]:
            if item.header is not None and item.header.type == type:
                entry = next(self.entries(segment, WholeEntries(item.start, item.end)))
                return entry.data[entry_format.ENTRY_HEADER_BYTES :]
        return None

    def find_holes(self, known_position: int) -> Iterator[Segment]:
        """Determine the pieces of all segments; yields each segment when it is done.

        Args:
            known_position: highest position known to index or tree: missing positions up to there were lost.
        """
        for segment in self.segments:
            self._scan(segment)
            self._cut_into_pieces(segment, known_position)
            del segment.items[_HEAD_ITEMS:], segment.torn[:]  # may be many, in a long history
            yield segment

    # --- headers -----------------------------------------------------------------------------------

    def _read_header(self, segment: Segment) -> None:
        if segment.file is None:
            return
        data = segment.file.read(entry_format.SEGMENT_HEADER_BYTES, 0)
        try:
            header = entry_format.decode_segment_header(data)
        except NewerFormatError as error:
            raise NewerFormatError(f"{segment.name}: {error}") from None
        except NotAnEntryError as error:
            segment.reason = str(error)
            segment.salt = self._salvage_salt(segment, data)
            return
        if header.number != segment.number:
            segment.reason = f"it says that it is number {header.number}"
            return
        segment.header, segment.salt = header, header.salt

    def _salvage_salt(self, segment: Segment, head: bytes) -> int | None:
        """The salt of a damaged header, if entries confirm it by their checksums.

        It is the one in the header, or the one that the first entry requires.
        """
        file = segment.file
        assert file is not None
        start, size = entry_format.SEGMENT_HEADER_BYTES, file.size()
        stands_there = int.from_bytes(head[_SALT_OFFSET : _SALT_OFFSET + 4].ljust(4, b"\0"), "little")
        if next(find_entry(self._file(segment, stands_there), start, size), None) is not None:
            return stands_there
        try:
            header = entry_format.decode_header(file.read(entry_format.ENTRY_HEADER_BYTES, start))
        except NotAnEntryError:
            return None
        if start + header.length > size:
            return None
        salt = solve_salt(file.read(header.length, start)[8:], header.crc)
        others = find_entry(self._file(segment, salt), start + entry_format.padded(header.length), size)
        return None if next(others, None) is None else salt

    # --- entries -----------------------------------------------------------------------------------

    def _scan(self, segment: Segment) -> None:
        """List the items up to the first bad bytes after the proven end; the others are torn."""
        if segment.is_scanned:
            return
        segment.is_scanned = True
        if segment.file is not None:
            segment.bad_packing = next(segment.file.bad_places(), None)
        proven = self._proven_end(segment)
        limit = proven
        if segment.file is not None and limit is None:
            limit = segment.file.size()
        start = entry_format.SEGMENT_HEADER_BYTES
        if segment.salt is not None:
            segment.items = list(self._items(segment, start, limit or start))
        elif segment.file is not None:
            size = len(segment.file.read(segment.file.size(), 0).rstrip(b"\0"))
            segment.items = [Item(start, max(start, size), None, segment.reason)]
            proven = max(start, size)
        if proven is None:
            proven = max(
                segment.header.proven if segment.header is not None else start,
                max((item.header.synced for item in segment.items if item.header is not None), default=0),
            )
        is_recycled = segment.header is not None and segment.header.flags & SEGMENT_RECYCLED
        if is_recycled and segment.items and segment.items[-1].header is None:
            # Up to the proven end something is missing; after it old bytes stand, which are no records.
            last = segment.items.pop()
            if last.start < proven:
                segment.items.append(last._replace(end=min(last.end, proven)))
        torn = next(
            (i for i, item in enumerate(segment.items) if item.header is None and item.start >= proven), None
        )
        if torn is not None:
            segment.items, segment.torn = segment.items[:torn], segment.items[torn:]
        end = segment.items[-1].end if segment.items else start
        if segment.file is not None and end < proven:
            segment.items.append(Item(end, proven, None, "the segment is shorter than it was"))
        segment.has_snapshot = bool(segment.items) and _is_snapshot(segment.items[0])
        segment.end = max(end, proven) if segment.file is not None else start

    def _proven_end(self, segment: Segment) -> int | None:
        """The end of a segment as stated by the next one, if any."""
        header = self.segments[segment.number].header if segment.number < len(self.segments) else None
        return None if header is None else header.previous_end

    def _items(self, segment: Segment, offset: int, limit: int) -> Iterator[Item]:
        assert segment.salt is not None
        file = self._file(segment, segment.salt)
        while offset < limit:
            try:
                for entry in walk(file, offset, limit):
                    following = entry.offset + entry_format.padded(entry.header.length)
                    yield Item(entry.offset, following, entry.header, "")
                    offset = following
            except BadEntryError as error:
                found = next(find_entry(file, error.offset, limit), None)
                offset = limit if found is None else found[0]
                yield Item(error.offset, offset, None, error.reason)

    def _cut_into_pieces(self, segment: Segment, known_position: int) -> None:
        segment.first_position = self.position + 1
        builder = Pieces(segment, self.position)
        for item in segment.items:
            self._take_item(item, builder)
        if segment.number == len(self.segments):
            for item in segment.torn:
                # Records known to index or tree were on disk, and are no torn tail.
                if builder.position >= known_position:
                    break
                self._take_item(item, builder)
            last = max(known_position, builder.position + builder.bad_bytes // _RECORD_BYTES_MIN)
        else:
            last = self._last_of(segment, builder)
        builder.finish(last)
        segment.pieces = builder.pieces
        self.position = builder.position

    def _take_item(self, item: Item, builder: Pieces) -> None:
        if item.header is None:
            builder.bad(item)
            return
        builder.entry(item, item.header)
        epoch = epoch_of(item.header)
        if epoch is not None:
            self._epochs[epoch.id] = epoch

    def _last_of(self, segment: Segment, builder: Pieces) -> int:
        """The last position of a segment, as stated by later ones."""
        for following in self.segments[segment.number :]:
            if following.header is None:
                self._scan(following)
            if following.stated_first is not None:
                return following.stated_first - 1
            has_entries = any(item.header is not None for item in following.items)
            if has_entries or (builder.bad_bytes == 0 and segment.file is not None):
                break  # the missing positions belong to that segment
        return builder.position


def _is_snapshot(item: Item) -> bool:
    is_first = item.start == entry_format.SEGMENT_HEADER_BYTES
    return is_first and item.header is not None and item.header.type in entry_format.SNAPSHOTS
