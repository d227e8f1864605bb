"""Replaces in the bucket what was erased in: a segment is shipped again, whole, then its old pieces go.

Only segments that were shipped to their ends are looked at. What a process leaves unfinished, the next one
finds in the bucket: a generation that is not whole is finished if it has the same bytes, and else removed.
"""

import contextlib
from collections.abc import Iterator, Sequence
from itertools import groupby, takewhile
from typing import Protocol

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.errors import DamageError
from perstack_stored.journal import entry_format
from perstack_stored.journal.entry_format import NotAnEntryError, SegmentHeader
from perstack_stored.journal.segment_file import OpenSegment, open_segment
from perstack_stored.journal.segment_names import segment_name, segment_numbers
from perstack_stored.journal.segment_walk import BadEntryError, SegmentFile, walk

from . import generations, pieces
from .generations import NOTE, Generation, Generations, whole
from .pieces import OBJECT_BYTES_MAX, PIECE_BYTES, NotAPieceError, Piece
from .shipper import MirrorConflictError, PieceStore

_KEYS_AT_ONCE = 1000


class Removing(PieceStore, Protocol):
    """Objects that are created and removed, never replaced: `bucket.Bucket`."""

    def remove(self, keys: Sequence[str]) -> None:
        """Remove objects, as far as they are there."""


class _Work:
    """A segment that is shipped again: the file stays the same, whatever becomes of its name."""

    def __init__(self, file: OpenSegment, header: SegmentHeader, generation: int) -> None:
        self.file = file
        self.header = header
        self.generation = generation
        self.start = 0


class Replacer:
    """Replaces one segment after the other, in small steps.

    Attributes:
        piece_bytes: logical bytes of a piece, at most.
        replaced: segments that this process replaced.
    """

    def __init__(
        self, bucket: Removing, files: FileSystem, journal_dir: int, prefix: str, store: bytes
    ) -> None:
        """Prepare it.

        Args:
            bucket: where the pieces are.
            files: the file system.
            journal_dir: the journal's folder.
            prefix: of the mirror.
            store: id of the journal.
        """
        self._bucket = bucket
        self._files = files
        self._dir = journal_dir
        self._store = store
        self._pieces = pieces.folder_of(prefix, store)
        self._generations = Generations(bucket, prefix, store)
        self._seen: dict[int, tuple[int, int]] = {}  # by segment: inode and time of its file
        self._erased: dict[int, SegmentHeader] = {}  # segments of this base that were erased in
        self._done: dict[int, int] = {}  # by segment: the salt that alone is in the bucket
        self._damaged: dict[int, tuple[int, str]] = {}  # by segment: salt of a file that is damaged, and how
        self._is_loaded = False
        self._work: _Work | None = None
        self.piece_bytes = PIECE_BYTES
        self.replaced = 0

    @property
    def waiting(self) -> int:
        """Segments that have to be replaced, as far as was looked."""
        return sum(self._done.get(number) != header.salt for number, header in self._erased.items())

    @property
    def fault(self) -> str:
        """Why a segment is not replaced until it is mended; empty if nothing is wrong."""
        texts = (text for number, (salt, text) in self._damaged.items() if self._salt_of(number) == salt)
        return next(texts, "")

    def look(self) -> None:
        """Look which segments were erased in since the last look.

        Raises:
            OSError: the journal's folder can't be read.
            DamageError: a header is damaged.
        """
        for number in segment_numbers(self._files.list_dir(self._dir)):
            found = self._files.stat(segment_name(number), dir_fd=self._dir)
            place = found.st_ino, found.st_mtime_ns
            if self._seen.get(number) == place:
                continue
            with contextlib.closing(self._open(number)) as file:
                header = _header_of(file, number)
            self._seen[number] = place
            if header.flags & entry_format.SEGMENT_ERASED:
                self._erased[number] = header
            else:
                self._erased.pop(number, None)

    def step(self, below: int) -> bool:
        """Do the next small step; returns whether there was one.

        Args:
            below: segments before this one were shipped to their ends.

        Raises:
            MirrorConflictError: another mirror ships the same generation.
            StoredError, OSError: the bucket does not answer, or the journal can't be read.
        """
        if not any(self._todo(below)):
            return False
        if not self._is_loaded:
            self._load()
        elif self._work is None:
            self._begin(next(self._todo(below)))
        else:
            self._ship(self._work)
        return True

    def close(self) -> None:
        """Let go of the segment that is shipped."""
        if self._work is not None:
            self._work.file.close()
            self._work = None

    # --- what is to do -----------------------------------------------------------------------------

    def _todo(self, below: int) -> Iterator[int]:
        if self._work is not None:
            yield self._work.header.number
        for number, header in sorted(self._erased.items()):
            if number >= below:
                return
            if header.salt not in {self._done.get(number), self._damaged.get(number, (None, ""))[0]}:
                yield number

    def _salt_of(self, number: int) -> int | None:
        header = self._erased.get(number)
        return None if header is None else header.salt

    def _load(self) -> None:
        """Learn from the bucket's names what was finished before."""
        for number, group in groupby(self._generations.all(), lambda one: one.segment):
            newest = list(group)[-1]
            if newest.salt is not None and newest.is_clean:
                self._done[number] = newest.salt
        self._is_loaded = True

    def _begin(self, number: int) -> None:
        """Finish what is whole, or open a segment to ship it."""
        file = self._open(number)
        is_kept = False
        try:
            header = _header_of(file, number)
            self._erased[number] = header
            there = self._generations.of(number)
            newest = whole(there)
            if newest is not None and newest.salt == header.salt:
                self._remove_before(newest, there)
            elif newest is None and self._first_salt(number) == header.salt:
                self._remove([self._key(name) for one in there for name in one.names])
                self._done[number] = header.salt  # it was erased in before it was shipped
            else:
                self._test(file, header)
                self._work = _Work(file, header, self._next_generation(there, file))
                is_kept = True
        except DamageError as error:
            self._damaged[number] = self._erased[number].salt, str(error)
        finally:
            if not is_kept:
                file.close()

    def _next_generation(self, there: Sequence[Generation], file: OpenSegment) -> int:
        """The generation to ship: the newest one, if an earlier process began it, else another."""
        if not there:
            return 1
        last = there[-1]
        if last.salt is None and last.starts[:1] == (0,):
            piece = self._read(self._key(generations.name_of(last.segment, last.number, 0)))
            if piece is not None and file.read(len(piece.data), 0) == piece.data:
                return last.number
        return last.number + 1

    def _first_salt(self, number: int) -> int | None:
        """The salt of a segment as it was shipped first; None if that is not there any more."""
        piece = self._read(self._pieces + pieces.name_of(number, 0))
        if piece is None or len(piece.data) < entry_format.SEGMENT_HEADER_BYTES:
            return None
        return entry_format.salt_of(piece.data)

    # --- steps -------------------------------------------------------------------------------------

    def _ship(self, work: _Work) -> None:
        """Create the next piece of a generation; after the last one say that it is whole."""
        number, start = work.header.number, work.start
        data = work.file.read(self.piece_bytes, start)
        if not data:
            self._bucket.create(
                self._key(generations.whole_name(number, work.generation, work.header.salt)), NOTE
            )
            self.close()
            return
        key = self._key(generations.name_of(number, work.generation, start))
        ours = Piece(self._store, number, start, data)
        if not self._bucket.create(key, pieces.encode(ours)) and self._read(key) != ours:
            raise MirrorConflictError(
                f"{key} holds other bytes than this journal: another mirror writes there. This mirror stops;"
                " give it a prefix of its own"
            )
        work.start += len(data)

    def _remove_before(self, newest: Generation, there: Sequence[Generation]) -> None:
        """Remove what a whole generation replaces, and say that this was done."""
        number = newest.segment
        names = map(pieces.parse_name, self._bucket.names(self._pieces, f"{number:010d}-"))
        places = takewhile(lambda place: place[0] == number, (place for place in names if place is not None))
        keys = [self._pieces + pieces.name_of(*place) for place in places]
        keys += [self._key(name) for one in there if one.number != newest.number for name in one.names]
        self._remove(keys)
        assert newest.salt is not None
        self._bucket.create(self._key(generations.clean_name(number, newest.number)), NOTE)
        self._done[number] = newest.salt
        self.replaced += 1

    def _remove(self, keys: Sequence[str]) -> None:
        for first in range(0, len(keys), _KEYS_AT_ONCE):
            self._bucket.remove(keys[first : first + _KEYS_AT_ONCE])

    # --- bytes -------------------------------------------------------------------------------------

    def _key(self, name: str) -> str:
        return self._generations.folder + name

    def _read(self, key: str) -> Piece | None:
        data = self._bucket.read(key, OBJECT_BYTES_MAX)
        try:
            return None if data is None else pieces.decode(data)
        except NotAPieceError:
            return None

    def _open(self, number: int) -> OpenSegment:
        return open_segment(self._files, segment_name(number), dir_fd=self._dir)

    def _test(self, file: OpenSegment, header: SegmentHeader) -> None:
        """Test all entries: what is in the bucket may be the only sound copy.

        Raises:
            DamageError: one is damaged.
        """
        segment = SegmentFile(file, header.salt, header.number)
        try:
            for _ in walk(segment, entry_format.SEGMENT_HEADER_BYTES, file.size(), split_large=True):
                pass
        except BadEntryError as error:
            raise DamageError(segment_name(header.number), error.offset, 0, error.reason) from None


def _header_of(file: OpenSegment, number: int) -> SegmentHeader:
    try:
        return entry_format.decode_segment_header(file.read(entry_format.SEGMENT_HEADER_BYTES, 0))
    except NotAnEntryError as error:
        raise DamageError(segment_name(number), 0, 0, str(error)) from None
