"""Reads the entries of a mirror, from a position on, and goes on as new pieces come. No thread here.

The next piece has one of two names, so a look for it costs two reads, and no list.
"""

from collections.abc import Iterator
from typing import Protocol

from perstack_stored.errors import StoredError
from perstack_stored.journal import entry_format
from perstack_stored.journal.entry_format import EntryType, NotAnEntryError, SegmentHeader
from perstack_stored.journal.segment_walk import Entry

from . import pieces
from .listing import Listing, Names
from .pieces import OBJECT_BYTES_MAX, NotAPieceError, Piece

ENTRY_BYTES_MAX = (2 << 30) + (1 << 20)
_SEGMENTS_MAX = 10**10 - 1


class MirrorDamagedError(StoredError):
    """A piece of the mirror has changed, or one is missing. The message names it."""


class Pieces(Names, Protocol):
    """Reads objects: `bucket.Bucket`."""

    def read(self, key: str, bytes_max: int) -> bytes | None:
        """The bytes of an object; None if there is none, or it is larger."""


class MirrorSource:
    """The entries of one history after a position, in order: those with records, and changes of cursors.

    Attributes:
        position: of the last record that was returned.
    """

    def __init__(self, bucket: Pieces, prefix: str, store: bytes, position: int) -> None:
        self._bucket = bucket
        self._store = store
        self._folder = pieces.folder_of(prefix, store)
        self.position = position
        self._segment, self._offset = 0, 0  # of the next piece
        self._header: SegmentHeader | None = None
        self._pending = bytearray()  # of an entry that is not complete; it begins at `_begin`
        self._begin = 0
        self._needed = 0  # bytes of `_pending` with which there is something to do

    def entries(self) -> Iterator[Entry]:
        """The entries of the pieces that are there; to be called again for those that come later.

        Raises:
            MirrorDamagedError: a piece has changed, or one is missing.
            StoredError: the bucket can't be read; the next call goes on.
        """
        if not self._segment:
            self._segment = self._first_segment()
        while (piece := self._next()) is not None:
            yield from self._taken(piece)

    # --- pieces ------------------------------------------------------------------------------------

    def _first_segment(self) -> int:
        """The segment that holds the next record: the last one that begins with it, or before."""
        newest = Listing(self._bucket, self._folder).newest(_SEGMENTS_MAX)
        low, high = 1, 1 if newest is None else newest[0]
        while low < high:
            middle = (low + high + 1) // 2
            piece = self._piece(middle, 0)
            if piece is None:
                raise self._damaged(middle, 0, "it is missing")
            if self._header_of(piece).first_position <= self.position + 1:
                low = middle
            else:
                high = middle - 1
        if newest is not None and self._piece(low, 0) is None:
            raise self._damaged(low, 0, "it is missing")
        return low

    def refuse_hole(self) -> None:
        """To be called now and then while nothing comes: the next piece may be missing, and later ones there.

        Raises:
            MirrorDamagedError: so it is.
            StoredError: the bucket can't be read.
        """
        if not self._segment:
            return
        here = pieces.name_of(self._segment, self._offset)
        names = map(pieces.parse_name, self._bucket.names(self._folder, here))
        if (
            any(names)
            and self._piece(self._segment, self._offset) is None
            and self._piece(self._segment + 1, 0) is None
        ):
            raise self._damaged(self._segment, self._offset, "it is missing")

    def _next(self) -> Piece | None:
        piece = self._piece(self._segment, self._offset)
        if piece is None and self._offset:
            piece = self._piece(self._segment + 1, 0)
        if piece is None:
            return None
        if piece.start == 0:
            # Entries that are cut off stand again in this segment.
            self._header = self._header_of(piece)
            self._pending.clear()
            self._begin = self._needed = 0
            if self._header.first_position > self.position + 1:
                raise self._damaged(piece.segment, 0, f"position {self.position + 1} is missing before it")
        self._segment, self._offset = piece.segment, piece.end
        return piece

    def _piece(self, segment: int, start: int) -> Piece | None:
        data = self._bucket.read(self._folder + pieces.name_of(segment, start), OBJECT_BYTES_MAX)
        if data is None:
            return None
        try:
            piece = pieces.decode(data)
        except NotAPieceError as error:
            raise self._damaged(segment, start, str(error)) from None
        if (piece.store, piece.segment, piece.start) != (self._store, segment, start):
            raise self._damaged(segment, start, "it is another piece")
        return piece

    def _header_of(self, piece: Piece) -> SegmentHeader:
        try:
            header = entry_format.decode_segment_header(piece.data)
        except NotAnEntryError as error:
            raise self._damaged(piece.segment, 0, str(error)) from None
        if (header.number, header.store) != (piece.segment, piece.store):
            raise self._damaged(piece.segment, 0, "it is another segment")
        return header

    def _damaged(self, segment: int, start: int, reason: str) -> MirrorDamagedError:
        name = self._folder + pieces.name_of(segment, start)
        return MirrorDamagedError(f"the mirror is damaged: {name}: {reason}")

    # --- entries -----------------------------------------------------------------------------------

    def _taken(self, piece: Piece) -> Iterator[Entry]:
        """The entries that are complete with a piece."""
        assert self._header is not None
        skipped = entry_format.SEGMENT_HEADER_BYTES if piece.start == 0 else 0
        if skipped:
            self._begin = skipped
        self._pending += piece.data[skipped:]
        if len(self._pending) < self._needed:
            return
        data, done, self._needed = bytes(self._pending), 0, 0
        while len(data) - done >= entry_format.ENTRY_HEADER_BYTES:
            offset = self._begin + done
            try:
                header = entry_format.decode_header(data, done)
                if header.length > ENTRY_BYTES_MAX:
                    raise NotAnEntryError("it can't be so long")
                size = entry_format.padded(header.length)
                if len(data) - done < size:
                    self._needed = size
                    break
                if not entry_format.entry_matches(data, header, self._header.salt, done):
                    raise NotAnEntryError("its checksum does not match")
            except NotAnEntryError as error:
                raise self._damaged(piece.segment, piece.start, f"offset {offset}: {error}") from None
            entry = Entry(piece.segment, offset, header, memoryview(data)[done : done + header.length])
            done += size
            if self._is_new(entry, piece):
                yield entry
        self._begin += done
        self._pending = bytearray(data[done:])

    def _is_new(self, entry: Entry, piece: Piece) -> bool:
        header = entry.header
        if header.type == EntryType.CURSORS:
            # Those at the head of a segment repeat what is known; of an earlier position they are old.
            return header.position == self.position + 1
        if header.type != EntryType.RECORDS or header.position + header.count - 1 <= self.position:
            return False
        if header.position != self.position + 1:
            raise self._damaged(piece.segment, piece.start, f"position {self.position + 1} is missing")
        self.position += header.count
        return True
