"""Fetches a mirror from its bucket: makes a backup folder of its pieces, from which a restore goes on.

Each piece is tested, and must join the one before it; segments must join by their headers. A complete segment
is packed as it comes in, so that the folder takes no more room than a packed journal.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, groupby
from typing import TYPE_CHECKING, NamedTuple

from perstack_stored.config.mirror_url import MirrorUrl
from perstack_stored.errors import ConfigError
from perstack_stored.journal import entry_format, packing
from perstack_stored.journal.entry_format import EntryType, NotAnEntryError, SegmentHeader
from perstack_stored.journal.epochs import Epochs
from perstack_stored.journal.segment_file import OpenSegment
from perstack_stored.journal.segment_walk import BadEntryError, SegmentFile, walk
from perstack_stored.mirror import generations, pieces
from perstack_stored.mirror.extra import require_library
from perstack_stored.mirror.generations import Generation, Generations, whole
from perstack_stored.mirror.listing import history_of
from perstack_stored.mirror.pieces import OBJECT_BYTES_MAX, NotAPieceError, Piece
from perstack_stored.model.checksum import crc32c

from . import manifest as backup_folder
from .manifest import COPY_BYTES, BackupDamagedError, Folder, Manifest, SegmentCopy, copy_name

if TYPE_CHECKING:
    from perstack_stored.mirror.bucket import Bucket

_PACK_BYTES = 64 << 10  # of a segment that is worth packing
_GENERATIONS_TRIED = 5


class Wanted(NamedTuple):
    """What is fetched.

    Attributes:
        history: id of the history, where the prefix holds several; None for the only one.
        to_position: segments after this position are left out; None for all.
    """

    history: str | None = None
    to_position: int | None = None


class _End(NamedTuple):
    """Where the entries of a segment end: offset, last position, and the time of the last entry in ms."""

    offset: int
    position: int
    time_ms: int


def fetch(bucket: "Bucket", wanted: Wanted, folder: Folder) -> Manifest:
    """Make a backup in an empty folder of what a mirror holds. It is not synced: a restore follows.

    Raises:
        ConfigError: there is no mirror, or there are several histories; the message names them.
        BackupDamagedError: a piece is missing or has changed.
        BucketError: the bucket does not answer.
        OSError: the folder can't be written.
    """
    store = history_of(bucket, bucket.place, wanted.history)
    made = _Made(folder)
    source = _Source(bucket, store)
    for number, starts in source.segments():
        made.add(source.receive(folder, number, starts))
        if wanted.to_position is not None and made.reaches(wanted.to_position):
            break  # what comes after may even be damaged
    made.finish()
    if not made.position:
        raise ConfigError(f"{bucket.place} holds no complete record yet")
    is_packed = any(copy.logicalBytes for copy in made.copies)
    manifest = Manifest(
        backup_folder.PACKED_FORMAT if is_packed else backup_folder.FORMAT,
        store.hex(),
        made.position,
        made.time_ms,
        made.copies,
        made.epochs.at(made.position) or "",
    )
    backup_folder.write_manifest(folder, manifest)
    return manifest


class _Source:
    """The segments of one history in a bucket: of each its first pieces, or its newest whole generation."""

    def __init__(self, bucket: "Bucket", store: bytes) -> None:
        self._bucket = bucket
        self._store = store
        self._folder = pieces.folder_of(bucket.place.prefix, store)
        self._generations = Generations(bucket, bucket.place.prefix, store)

    def segments(self) -> Iterator[tuple[int, list[int]]]:
        """Each segment up to the last, with the offsets of its first pieces; none if others replaced them."""
        names = (place for name in self._bucket.names(self._folder) if (place := pieces.parse_name(name)))
        due = 1
        for segment, group in groupby(names, lambda place: place[0]):
            for number in range(due, segment):
                yield number, []
            yield segment, [start for _, start in group]
            due = segment + 1

    def receive(self, folder: Folder, number: int, starts: list[int]) -> SegmentHeader:
        """Write a segment to a file, and return its header.

        Raises:
            BackupDamagedError: a piece is missing or has changed.
        """
        generation = whole(self._generations.of(number))
        for _ in range(_GENERATIONS_TRIED):
            try:
                return _receive(folder, self._pieces_of(number, starts, generation))
            except BackupDamagedError:
                # The mirror goes on meanwhile, and may have replaced the segment.
                newer = whole(self._generations.of(number))
                if newer is None or newer == generation:
                    raise
                generation = newer
        raise _damaged(f"segment {number} is replaced again and again")

    def _pieces_of(self, number: int, starts: list[int], generation: Generation | None) -> Iterator[Piece]:
        if generation is None:
            keys = {start: self._folder + pieces.name_of(number, start) for start in starts or [0]}
        else:
            keys = {
                start: self._generations.folder + generations.name_of(number, generation.number, start)
                for start in generation.starts
            }
        return _pieces(self._bucket, self._store, number, keys)


def _pieces(bucket: "Bucket", store: bytes, segment: int, keys: dict[int, str]) -> Iterator[Piece]:
    """The pieces of a segment, in order; each joins the one before it."""
    due = 0
    for start, key in keys.items():
        if start != due:
            missing = pieces.name_of(segment, due)
            raise _damaged(f"{missing} is missing, or {key} is too many")
        data = bucket.read(key, OBJECT_BYTES_MAX)
        try:
            if data is None:
                raise NotAPieceError("it is larger than a piece, or is missing")
            piece = pieces.decode(data)
        except NotAPieceError as error:
            raise _damaged(f"{key}: {error}") from None
        if (piece.store, piece.segment, piece.start) != (store, segment, start):
            raise _damaged(f"{key} holds another piece")
        due = piece.end
        yield piece


def _receive(folder: Folder, segment: Iterator[Piece]) -> SegmentHeader:
    """Write the pieces of a segment to a file, and return its header.

    Raises:
        BackupDamagedError: it does not begin with the header of this segment.
    """
    files = folder.files
    first = next(segment)
    try:
        header = entry_format.decode_segment_header(first.data)
    except NotAnEntryError as error:
        raise _damaged(f"segment {first.segment}: {error}") from None
    if (header.number, header.store) != (first.segment, first.store):
        raise _damaged(f"segment {first.segment} is another one")
    fd = files.create(_part(header), backup_folder.FILE_MODE, dir_fd=folder.fd)
    try:
        for piece in chain([first], segment):
            files.write(fd, [piece.data], piece.start)
    finally:
        files.close(fd)
    return header


def _part(header: SegmentHeader) -> str:
    return copy_name(header, 0) + ".part"


class _Made:
    """The segments that came in: the last one waits, as the next one says where it ends.

    Attributes:
        copies: the segments before the last one; after `finish` all of them.
        position: the last position in the copies.
        time_ms: when it was stored.
        epochs: of the copies.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._last: SegmentHeader | None = None
        self.copies: list[SegmentCopy] = []
        self.position = 0
        self.time_ms = 0
        self.epochs = Epochs()

    def add(self, header: SegmentHeader) -> None:
        """Take over a segment that came in; the one before it is complete then."""
        if self._last is not None:
            if header.number != self._last.number + 1:
                raise _damaged(f"segment {header.number - 1} is not complete, and another one follows")
            if self._lacks_records(self._last, header):
                return
            self._seal(self._last, header)
        self._last = header

    def reaches(self, position: int) -> bool:
        """Whether the segments that came in hold a position."""
        if self._last is None:
            return False
        with self._open(self._last) as source:
            return _walk(source, self._last, source.size(), Epochs(), is_last=True).position >= position

    def finish(self) -> None:
        """Take the last segment up to its last complete entry: of a large value some bytes may be missing."""
        if self._last is not None:
            self._seal(self._last, None)
            self._last = None

    def _lacks_records(self, header: SegmentHeader, following: SegmentHeader) -> bool:
        """Whether a segment does not have all records yet that recovery wrote again in its head.

        They stand in the segment before it, too, behind its end. The mirror was cut off there.
        """
        with self._open(header) as source:
            size = source.size()
            if size <= following.previous_end:
                return False
            reached = _walk(source, header, size, Epochs(), is_last=True).position
        with self._open(following) as source:
            return _walk(source, following, source.size(), Epochs(), is_last=True).position < reached

    def _seal(self, header: SegmentHeader, following: SegmentHeader | None) -> None:
        """Make the copy of a segment that came in.

        Raises:
            BackupDamagedError: an entry has changed, or the segments don't join.
        """
        folder, name = self._folder, _part(header)
        files = folder.files
        with self._open(header) as source:
            size = source.size()
            wanted = size if following is None else following.previous_end
            if wanted > size:
                raise _damaged(
                    f"{pieces.name_of(header.number, size)} is missing, of a segment of {wanted} bytes"
                )
            end = _walk(source, header, wanted, self.epochs, is_last=following is None)
            if following is not None and following.first_position != end.position + 1:
                raise _damaged(
                    f"segment {header.number} ends at position {end.position}, the next one begins at"
                    f" {following.first_position}"
                )
            files.truncate(source.fd, end.offset)
            if following is not None and end.offset >= _PACK_BYTES:
                self.copies.append(_pack(folder, source, header, end.offset))
                files.unlink(name, dir_fd=folder.fd)
            else:
                done = copy_name(header, end.offset)
                crc = _crc(source, end.offset)
                files.rename(name, done, source_dir=folder.fd, target_dir=folder.fd)
                self.copies.append(SegmentCopy(header.number, done, end.offset, crc, header.first_position))
        self.position, self.time_ms = end.position, max(self.time_ms, end.time_ms)

    @contextmanager
    def _open(self, header: SegmentHeader) -> Iterator[OpenSegment]:
        folder = self._folder
        source = OpenSegment(folder.files, folder.files.open(_part(header), dir_fd=folder.fd, write=True))
        try:
            yield source
        finally:
            source.close()


def _damaged(what: str) -> BackupDamagedError:
    return BackupDamagedError(f"the mirror is damaged: {what}")


def _walk(source: OpenSegment, header: SegmentHeader, end: int, epochs: Epochs, *, is_last: bool) -> _End:
    """Test the entries of a segment, and find where they end; the last one of `is_last` may be cut."""
    found = _End(entry_format.SEGMENT_HEADER_BYTES, header.first_position - 1, 0)
    try:
        for entry in walk(
            SegmentFile(source, header.salt, header.number), found.offset, end, split_large=True
        ):
            of = entry.header
            epochs.apply(of)
            position = found.position
            if of.type == EntryType.RECORDS:
                if of.position != position + 1:
                    raise _damaged(f"segment {header.number}: position {position + 1} is missing")
                position += of.count
            found = _End(entry.offset + entry_format.padded(of.length), position, of.time_ms)
    except BadEntryError as error:
        if not is_last or not _is_cut(source, error.offset, end):
            raise _damaged(f"segment {header.number}, offset {error.offset}: {error.reason}") from None
    return found


def _is_cut(source: OpenSegment, offset: int, end: int) -> bool:
    """Whether an entry begins at an offset whose end is after that of the bytes that came in."""
    head = source.read(min(entry_format.ENTRY_HEADER_BYTES, end - offset), offset)
    if len(head) < entry_format.ENTRY_HEADER_BYTES:
        return True
    try:
        return offset + entry_format.decode_header(head).length > end
    except NotAnEntryError:
        return False


def _pack(folder: Folder, source: OpenSegment, header: SegmentHeader, end: int) -> SegmentCopy:
    files, name = folder.files, copy_name(header, end, packed=True)
    fd = files.create(name, backup_folder.FILE_MODE, dir_fd=folder.fd)
    packed = OpenSegment(files, fd)
    try:
        block_bytes = packing.choose_block_bytes(source, end)
        size = packing.pack_into(files, fd, source, end, block_bytes, lambda _size: None)
        crc = _crc(packed, size)
    finally:
        packed.close()
    return SegmentCopy(header.number, name, size, crc, header.first_position, end)


def _crc(source: OpenSegment, size: int) -> int:
    crc = offset = 0
    while offset < size:
        data = source.read(min(COPY_BYTES, size - offset), offset)
        crc = crc32c(data, crc)
        offset += len(data)
    return crc


def open_bucket(url: MirrorUrl, endpoint: str, credentials: str) -> "Bucket":
    """The bucket of a mirror.

    Raises:
        ConfigError: the library is missing, or the settings can't be used.
    """
    require_library()
    from perstack_stored.mirror.bucket import Access, Bucket  # noqa: PLC0415 - an extra, which may be missing

    return Bucket(url, Access(endpoint, credentials))
