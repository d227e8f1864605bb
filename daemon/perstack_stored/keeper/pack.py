"""Replaces a segment by a packed one. A crash at any point leaves the one or the other, whole.

The packed file is synced and compared with the plain one before it takes its name: afterwards there is no
other copy.
"""

import contextlib
from typing import NamedTuple

from perstack_stored.datadir.filesystem import FILE_MODE, FileSystem
from perstack_stored.journal import packing
from perstack_stored.journal.reader import SUFFIX, segment_name
from perstack_stored.journal.segment_file import open_segment

PART = ".part"


class Pace(NamedTuple):
    """What is called while a segment is packed: with the bytes that were read, and those compared."""

    read: packing.OnBytes
    compared: packing.OnBytes


class Packed(NamedTuple):
    """A segment that was packed: its logical bytes, and those of its file."""

    number: int
    logical_bytes: int
    file_bytes: int


def pack_segment(files: FileSystem, dir_fd: int, number: int, end: int, pace: Pace) -> Packed:
    """Pack a segment up to its logical end, and put it in its place.

    Raises:
        PackingError: the segment can't be packed, or what was read back differs; nothing was changed.
        OSError: a file can't be read or written; the segment is as it was, or packed.
    """
    name = segment_name(number)
    part = name + PART
    source = open_segment(files, name, dir_fd=dir_fd)
    try:
        with contextlib.suppress(FileNotFoundError):
            files.unlink(part, dir_fd=dir_fd)  # of a process that was killed
        fd = files.create(part, FILE_MODE, dir_fd=dir_fd)
        try:
            block_bytes = packing.choose_block_bytes(source, end)
            size = packing.pack_into(files, fd, source, end, block_bytes, pace.read)
            files.sync_data(fd)
            packing.compare(files, fd, source, end, pace.compared)
        except BaseException:
            with contextlib.suppress(OSError):
                files.unlink(part, dir_fd=dir_fd)
            raise
        finally:
            files.close(fd)
        files.rename(part, name, source_dir=dir_fd, target_dir=dir_fd)
        files.sync(dir_fd)
    finally:
        source.close()
    return Packed(number, end, size)


def remove_left_overs(files: FileSystem, dir_fd: int) -> None:
    """Remove what an earlier process left unfinished.

    Raises:
        OSError: the folder can't be read or written.
    """
    for name in files.list_dir(dir_fd):
        if name.endswith(SUFFIX + PART) and name[:1].isdigit():
            files.unlink(name, dir_fd=dir_fd)
