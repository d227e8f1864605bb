"""Reads the entries of a mirror, from a position on, and goes on as new pieces come. No thread here.

The next piece has one of two names, so a look for it costs two reads, and no list. Where older pieces are
missing, the segment was erased in: its newest generation is read, from the beginning.
"""

from collections.abc import Iterator
from typing import Protocol

from perstack_stored.errors import StoredError
from perstack_stored.journal import entry_format
from perstack_stored.journal.entry_format import EntryType, NotAnEntryError, SegmentHeader
from perstack_stored.journal.segment_walk import Entry

from . import generations, pieces
from .generations import Generation, Generations, whole
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
        self._generations = Generations(bucket, prefix, store)
        self._generation: Generation | None = None  # of the segment that is read; None for its first pieces
        self._last = 0  # newest segment that is known to be there
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
        self._last = 0 if newest is None else newest[0]
        low, high = 1, max(1, self._last)
        while low < high:
            middle = (low + high + 1) // 2
            piece = self._head(middle)
            if piece is None:
                raise self._damaged(middle, 0, "it is missing")
            if self._header_of(piece).first_position <= self.position + 1:
                low = middle
            else:
                high = middle - 1
        if newest is not None and self._head(low) is None:
            raise self._damaged(low, 0, "it is missing")
        return low

    def _leaves_a_gap(self, first: Piece) -> bool:
        """Whether records are missing before a segment."""
        return self._header_of(first).first_position > self.position + 1

    def _head(self, segment: int) -> Piece | None:
        """The first piece of a segment."""
        piece = self._piece(segment, 0)
        if piece is not None:
            return piece
        found = whole(self._generations.of(segment))
        return None if found is None else self._piece_of(found, 0)

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
            if self._replacing() is None:
                raise self._damaged(self._segment, self._offset, "it is missing")
            self._last = max(self._last, self._segment + 1)

    def _replacing(self) -> Generation | None:
        """The generation to go on with, where the next piece is missing and later ones are there."""
        for segment in (self._segment, self._segment + 1):
            found = whole(self._generations.of(segment))
            if found is not None and found != self._generation:
                return found
        return None

    def _next(self) -> Piece | None:
        current = self._generation
        if current is None or current.segment != self._segment:
            piece = self._piece(self._segment, self._offset)
        else:
            piece = self._piece_of(current, self._offset)
        if piece is None and self._offset:
            piece = self._piece(self._segment + 1, 0)
        is_missing = piece is None and self._segment < self._last
        is_missing |= piece is not None and piece.start == 0 and self._leaves_a_gap(piece)
        if is_missing and (found := self._replacing()) is not None:
            piece = self._piece_of(found, 0)
            self._generation = found
        if piece is None:
            return None
        if piece.start == 0:
            # Entries that are cut off stand again in this segment.
            self._header = self._header_of(piece)
            self._pending.clear()
            self._begin = self._needed = 0
            if self._leaves_a_gap(piece):
                raise self._damaged(piece.segment, 0, f"position {self.position + 1} is missing before it")
        self._segment, self._offset = piece.segment, piece.end
        return piece

    def _piece(self, segment: int, start: int) -> Piece | None:
        return self._read(self._folder + pieces.name_of(segment, start), segment, start)

    def _piece_of(self, found: Generation, start: int) -> Piece | None:
        name = generations.name_of(found.segment, found.number, start)
        return self._read(self._generations.folder + name, found.segment, start)

    def _read(self, key: str, segment: int, start: int) -> Piece | None:
        data = self._bucket.read(key, OBJECT_BYTES_MAX)
        if data is None:
            return None
        try:
            piece = pieces.decode(data)
        except NotAPieceError as error:
            raise MirrorDamagedError(f"the mirror is damaged: {key}: {error}") from None
        if (piece.store, piece.segment, piece.start) != (self._store, segment, start):
            raise MirrorDamagedError(f"the mirror is damaged: {key}: it is another piece")
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
