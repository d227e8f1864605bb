"""The chain of segments: which there are, where each ends, and their open files."""

import threading
from collections import OrderedDict

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.errors import DamageError

from . import entry_format
from .entry_format import NotAnEntryError, SegmentHeader
from .segment_file import OpenSegment, drop_blocks, open_segment
from .segment_names import segment_name, segment_numbers
from .segment_walk import SegmentFile


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
