"""Writes a segment again without what was deleted. A crash at any point leaves the old one or the new one.

The new file is synced and compared with the old one before it takes its name. The old one is gone then, but
for the blocks that the file system frees.
"""

import contextlib
import math
from typing import NamedTuple

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.journal import erasing, packing
from perstack_stored.journal.packing import Logical, OnBytes
from perstack_stored.journal.segment_file import OpenSegment, PackedSegment, open_segment
from perstack_stored.journal.segment_names import segment_name
from perstack_stored.model.erasures import Erasures

from .pack import PART, Pace, new_file

SMALL_BYTES = 64 << 10
"""Bytes of a segment that is not worth packing."""


class Erased(NamedTuple):
    """What was done to a segment: records that were erased, and whether it was written again."""

    records: int
    is_new: bool


def erase_segment(
    files: FileSystem,
    dir_fd: int,
    segment: tuple[int, int],
    erasures: Erasures,
    pace: Pace,
    *,
    packs: bool,
) -> Erased:
    """Erase records of a complete segment, and bytes after its end that are not of it.

    Args:
        files: the file system.
        dir_fd: the journal's folder.
        segment: number and logical end.
        erasures: what must be erased.
        pace: called on the way.
        packs: pack the new file, if it is worth it; one that is packed stays so.

    Raises:
        PackingError: the segment is damaged, or what was read back differs; nothing was changed.
        OSError: a file can't be read or written; the segment is as it was, or written again.
    """
    number, end = segment
    name = segment_name(number)
    part = name + PART
    with contextlib.closing(open_segment(files, name, dir_fd=dir_fd)) as file:
        source = erasing.Source(file, number, end)
        blanks = erasing.find_blanks(source, erasures, _of_disk(file, pace)) if erasures else {}
        if not blanks and (file.is_packed or not source.has_left_overs()):
            return Erased(0, is_new=False)
        header = erasing.new_header(source.header, blanks)
        with new_file(files, part, dir_fd) as fd:
            if isinstance(file, PackedSegment):
                logical = Logical(header, source.end, erasing.block_bytes_of(file))
                erasing.write_packed(files, fd, source, logical, blanks, pace.compared)
            elif packs and source.end >= SMALL_BYTES:
                logical = Logical(header, source.end, packing.choose_block_bytes(file, source.end))
                erasing.write_packed(files, fd, source, logical, blanks, pace.compared)
            else:
                erasing.write_plain(files, fd, source, header, blanks, pace.compared)
            files.sync_data(fd)
            erasing.compare(files, fd, source, header, blanks, pace.compared)
        files.rename(part, name, source_dir=dir_fd, target_dir=dir_fd)
        files.sync(dir_fd)
    return Erased(len(blanks), is_new=True)


def _of_disk(file: OpenSegment, pace: Pace) -> OnBytes:
    """Pace reads by the bytes that come from the disk: those of a packed segment are fewer."""
    share = file.file_bytes() / max(1, file.size()) if file.is_packed else 1.0
    return lambda size: pace.read(math.ceil(size * share))
