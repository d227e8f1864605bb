"""Replaces a segment by a packed one. A crash at any point leaves the one or the other, whole.

The packed file is synced and compared with the plain one before it takes its name: afterwards there is no
other copy.
"""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from perstack_stored.datadir.filesystem import FILE_MODE, FileSystem
from perstack_stored.journal import packing
from perstack_stored.journal.preallocation import SPARE_NAME
from perstack_stored.journal.segment_file import OpenSegment, open_segment
from perstack_stored.journal.segment_names import SUFFIX, segment_name

PART = ".part"


class Pace(NamedTuple):
    """What is called while a segment is packed: with the bytes that were read, and those compared."""

    read: packing.OnBytes
    compared: packing.OnBytes


class Options(NamedTuple):
    """How a segment is replaced.

    Attributes:
        exchange: two names can be exchanged in one step; else the plain file is removed.
        spare_bytes: a plain file of at least this size is left under `SPARE_NAME`, if there is none yet.
    """

    exchange: bool
    spare_bytes: int


class Packed(NamedTuple):
    """A segment that was packed: its logical bytes, and those of its file."""

    number: int
    logical_bytes: int
    file_bytes: int


def pack_segment(
    files: FileSystem, dir_fd: int, segment: tuple[int, int], pace: Pace, options: Options
) -> Packed:
    """Pack a segment up to its logical end, and what was kept after it, and put it in its place.

    Args:
        files: the file system.
        dir_fd: the journal's folder.
        segment: number and logical end.
        pace: called on the way.
        options: what becomes of the plain file.

    Raises:
        PackingError: the segment can't be packed, or what was read back differs; nothing was changed.
        OSError: a file can't be read or written; the segment is as it was, or packed.
    """
    number, end = segment
    name = segment_name(number)
    part = name + PART
    source = open_segment(files, name, dir_fd=dir_fd)
    try:
        with new_file(files, part, dir_fd) as fd:
            end = packing.end_to_pack(source, number, end)
            block_bytes = packing.choose_block_bytes(source, end)
            size = packing.pack_into(files, fd, source, end, block_bytes, pace.read)
            files.sync_data(fd)
            packing.compare(files, fd, source, end, pace.compared)
        if options.exchange and _is_spare_wanted(files, dir_fd, source, options.spare_bytes):
            _exchange(files, dir_fd, part, name)
        else:
            files.rename(part, name, source_dir=dir_fd, target_dir=dir_fd)
            files.sync(dir_fd)
    finally:
        source.close()
    return Packed(number, end, size)


@contextlib.contextmanager
def new_file(files: FileSystem, part: str, dir_fd: int) -> Iterator[int]:
    """Make a file under a temporary name, yield its descriptor; if writing it fails, the file is removed.

    The caller syncs it before the end, and gives it its name afterwards.
    """
    with contextlib.suppress(FileNotFoundError):
        files.unlink(part, dir_fd=dir_fd)  # of a process that was killed
    fd = files.create(part, FILE_MODE, dir_fd=dir_fd)
    try:
        yield fd
    except BaseException:
        with contextlib.suppress(OSError):
            files.unlink(part, dir_fd=dir_fd)
        raise
    finally:
        files.close(fd)


def _is_spare_wanted(files: FileSystem, dir_fd: int, source: OpenSegment, spare_bytes: int) -> bool:
    return (
        not source.is_packed
        and source.file_bytes() >= spare_bytes
        and SPARE_NAME not in files.list_dir(dir_fd)
    )


def _exchange(files: FileSystem, dir_fd: int, part: str, name: str) -> None:
    """Put the packed file in its place, and leave the plain one as the spare.

    The server writes into the spare. So it gets that name only when no power cut can bring it back as the
    segment.
    """
    files.exchange(part, name, source_dir=dir_fd, target_dir=dir_fd)
    files.sync(dir_fd)
    files.rename(part, SPARE_NAME, source_dir=dir_fd, target_dir=dir_fd)


def remove_left_overs(files: FileSystem, dir_fd: int) -> None:
    """Remove what an earlier process left unfinished.

    Raises:
        OSError: the folder can't be read or written.
    """
    for name in files.list_dir(dir_fd):
        if name.endswith(SUFFIX + PART) and name[:1].isdigit():
            files.unlink(name, dir_fd=dir_fd)
