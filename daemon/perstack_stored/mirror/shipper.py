"""Decides which piece of the journal is shipped next, and what a piece that is there already means.

The journal is read up to a log position that is synced. The last mark of the open segment waits until an
entry follows it: a start writes over it. So nothing is shipped while nothing is stored.
"""

from collections import deque
from typing import NamedTuple, Protocol

from perstack_stored.errors import DamageError, StoredError
from perstack_stored.journal import entry_format
from perstack_stored.journal.chain import Chain
from perstack_stored.journal.entry_format import EntryType
from perstack_stored.journal.reader import LogPosition
from perstack_stored.journal.segment_names import segment_name
from perstack_stored.journal.segment_walk import BadEntryError, walk

from . import pieces
from .listing import Listing, Names
from .pieces import OBJECT_BYTES_MAX, PIECE_BYTES, NotAPieceError, Piece


class MirrorConflictError(StoredError):
    """The bucket holds another history under these keys. The mirror must stop; nothing was replaced."""


class PieceStore(Names, Protocol):
    """Objects that are created and never replaced: `bucket.Bucket`. Errors are the store's own."""

    def create(self, key: str, data: bytes) -> bool:
        """Create an object; returns False if there is one."""

    def read(self, key: str, bytes_max: int) -> bytes | None:
        """The bytes of an object; None if there is none, or it is larger."""


class Shipped(NamedTuple):
    """A piece, or a slice of the tree, that is in the bucket now.

    Attributes:
        place: log position up to which the bucket holds the journal.
        logical_bytes: of the piece.
        stored_bytes: of its object; 0 if it was there already.
        objects: created or replaced.
    """

    place: LogPosition
    logical_bytes: int
    stored_bytes: int
    objects: int


class _Tested:
    """How far the entries of one segment were tested, and where those end that are not shipped yet."""

    def __init__(self, number: int, first_position: int) -> None:
        self.number = number
        self.offset = entry_format.SEGMENT_HEADER_BYTES
        self.tail = self.offset  # after the last entry that is no mark
        self.position = first_position - 1
        self._ends: deque[tuple[int, int]] = deque()

    def note(self, end: int, position: int, *, is_mark: bool) -> None:
        """Note an entry that was tested."""
        self.offset = end
        if not is_mark:
            self.tail = end
        self._ends.append((end, position))

    def shipped(self, offset: int) -> int:
        """The position of the last record that ends at an offset or before it."""
        while self._ends and self._ends[0][0] <= offset:
            self.position = max(self.position, self._ends.popleft()[1])
        return self.position


class Shipper:
    """Ships a journal, one piece after the other."""

    def __init__(
        self, bucket: PieceStore, chain: Chain, prefix: str, *, piece_bytes: int = PIECE_BYTES
    ) -> None:
        """Prepare to ship the history of a journal.

        Args:
            bucket: where the pieces go.
            chain: the journal.
            prefix: of the mirror: all keys begin with it.
            piece_bytes: logical bytes of a piece, at most.
        """
        self._bucket = bucket
        self._chain = chain
        self._store = chain.headers[1].store
        self._folder = pieces.folder_of(prefix, self._store)
        self._listing = Listing(bucket, self._folder)
        self._piece_bytes = piece_bytes
        self._segment, self._start = 0, 0
        self._tested = _Tested(1, 1)

    def find(self, mark: LogPosition) -> LogPosition:
        """Find in the bucket how far the journal was shipped. To be called once, before `ship`.

        Raises:
            MirrorConflictError: the bucket holds another continuation of this history.
            StoredError: the bucket can't be read, or the journal is damaged.
        """
        newest = self._newest(mark.segment)
        if newest is None:
            self._segment, self._start = 1, 0
        else:
            self._segment, start = newest
            piece = self._compared(self._key(*newest), *newest, self._limit(self._segment, mark))
            self._start = max(start, piece.end)
        self._begin(self._segment)
        self._test(min(self._start, self._limit(self._segment, mark)))
        return self.place

    @property
    def place(self) -> LogPosition:
        """Log position up to which the bucket holds the journal."""
        return LogPosition(self._tested.shipped(self._start), self._segment, self._start)

    def ship(self, mark: LogPosition) -> Shipped | None:
        """Ship the next piece of what is synced; None if there is nothing to ship.

        Raises:
            MirrorConflictError: there is a piece with other bytes.
            DamageError: the journal is damaged there.
            StoredError, OSError: the bucket does not answer, or the journal can't be read.
        """
        self._chain.drop_replaced()  # else the file of a packed segment can't be used again
        piece = self._next(mark)
        if piece is None:
            return None
        data = pieces.encode(piece)
        key = self._key(piece.segment, piece.start)
        stored = len(data)
        if not self._bucket.create(key, data):
            limit = self._limit(piece.segment, mark)
            piece, stored = self._compared(key, piece.segment, piece.start, limit), 0
        self._start = piece.end
        return Shipped(self.place, len(piece.data), stored, int(stored > 0))

    # --- what comes next ---------------------------------------------------------------------------

    def _next(self, mark: LogPosition) -> Piece | None:
        while self._segment <= mark.segment:
            limit = self._limit(self._segment, mark)
            if self._start < limit:
                self._test(min(limit, self._start + self._piece_bytes))
                end = min(self._end(limit, mark), self._start + self._piece_bytes)
                if self._start < end:
                    return Piece(self._store, self._segment, self._start, self._read(self._start, end))
            if self._segment == mark.segment:
                return None
            self._segment, self._start = self._segment + 1, 0
            self._begin(self._segment)
        return None

    def _limit(self, number: int, mark: LogPosition) -> int:
        """Offset up to which a segment may be shipped."""
        if number == mark.segment:
            return mark.offset
        if number >= self._chain.last:
            self._chain.refresh()
        end = self._chain.end_of(number)
        assert end is not None  # a segment after it is in use
        return end

    def _end(self, limit: int, mark: LogPosition) -> int:
        """Where the shipping of a segment has to pause: before marks that nothing follows."""
        is_open = self._segment == mark.segment
        return self._tested.tail if is_open and self._tested.offset >= limit else limit

    def _begin(self, number: int) -> None:
        if number not in self._chain.headers:
            self._chain.refresh()
        self._tested = _Tested(number, self._chain.headers[number].first_position)

    def _test(self, offset: int) -> None:
        """Test entries until one ends at an offset or after it.

        Raises:
            DamageError: an entry does not match its checksum.
        """
        tested, number = self._tested, self._segment
        if tested.offset >= offset:
            return
        segment = self._chain.file(number)
        end = segment.file.size()
        try:
            for entry in walk(segment, tested.offset, end, split_large=True):
                header = entry.header
                after = entry.offset + entry_format.padded(header.length)
                position = header.position + header.count - 1 if header.type == EntryType.RECORDS else 0
                tested.note(after, position, is_mark=header.type == EntryType.MARK)
                if after >= offset:
                    return
        except BadEntryError as error:
            raise DamageError(segment_name(number), error.offset, tested.position + 1, error.reason) from None

    def _read(self, start: int, end: int) -> bytes:
        data = self._chain.open(self._segment).read(end - start, start)
        if len(data) != end - start:
            raise DamageError(segment_name(self._segment), start + len(data), 0, "the segment is shorter")
        return data

    # --- what is there -----------------------------------------------------------------------------

    def _key(self, segment: int, start: int) -> str:
        return self._folder + pieces.name_of(segment, start)

    def _newest(self, last: int) -> tuple[int, int] | None:
        """Segment and offset of the last piece in the bucket.

        Raises:
            MirrorConflictError: there are pieces of segments that the journal does not have yet.
        """
        if self._listing.first_from(last + 1) is not None:
            raise MirrorConflictError(
                f"{self._folder} holds more of this history than the journal: the base was put back from an"
                " older copy. Give the mirror a prefix of its own"
            )
        return self._listing.newest(last)

    def _compared(self, key: str, segment: int, start: int, limit: int) -> Piece:
        """A piece of the bucket that has the journal's own bytes.

        Raises:
            MirrorConflictError: it has others, or more than the journal.
        """
        data = self._bucket.read(key, OBJECT_BYTES_MAX)
        try:
            if data is None:
                raise NotAPieceError("it is larger than a piece, or was removed")
            piece = pieces.decode(data)
        except NotAPieceError as error:
            raise MirrorConflictError(f"{key}: {error}; the mirror does not replace it") from None
        if (piece.store, piece.segment, piece.start) != (self._store, segment, start):
            raise MirrorConflictError(f"{key} holds another piece; the mirror does not replace it")
        file = self._chain.open(segment)
        # After the end of a sealed segment stand entries that recovery kept: they may have been shipped.
        is_sealed = self._chain.end_of(segment) is not None
        if (not is_sealed and piece.end > limit) or file.read(len(piece.data), start) != piece.data:
            raise MirrorConflictError(
                f"{key} holds other bytes than this journal: another mirror writes there, or the base went on"
                " from a copy, or was repaired. This mirror stops; give it a prefix of its own"
            )
        return piece
