"""The cursor of the tree: the position up to which its files are written and synced."""

import contextlib
import struct
from typing import NamedTuple

from perstack_stored.datadir.filesystem import FILE_MODE, FileSystem, atomic_replace, read_whole
from perstack_stored.model.checksum import crc32c

CURSOR_NAME = "tree.cursor"

UNSYNCED_RECORDS_MAX = 8192

_CURSOR = struct.Struct("<8s16sQBB2x")

_CURSOR_MAGIC = b"PSTKTRE1"

_UNKNOWN = 2**63


class Cursor(NamedTuple):
    """Content of the cursor file.

    Attributes:
        position: all up to it is synced.
        clean: nothing was written after it.
        lost: there is no such file, or no valid one for this journal.
        leaves_out: the tree has a record of what it leaves out (`left_out.py`).
    """

    position: int
    clean: bool
    lost: bool = False
    leaves_out: bool = False

    @property
    def written_max(self) -> int:
        """No file of a later position was written before the last stop."""
        if self.lost:
            return _UNKNOWN
        return self.position if self.clean else self.position + UNSYNCED_RECORDS_MAX


def load_cursor(files: FileSystem, stored_dir: int, store: bytes) -> Cursor:
    """Load the durable cursor; without a valid one for this journal all is projected again."""
    data = read_whole(files, CURSOR_NAME, dir_fd=stored_dir)
    if data is None or len(data) != _CURSOR.size + 4:
        return Cursor(0, clean=False, lost=True)
    magic, owner, position, clean, leaves_out = _CURSOR.unpack_from(data)
    if magic != _CURSOR_MAGIC or owner != store or crc32c(data[:-4]) != int.from_bytes(data[-4:], "little"):
        return Cursor(0, clean=False, lost=True)
    return Cursor(position, bool(clean), leaves_out=bool(leaves_out))


def cursor_store(files: FileSystem, stored_dir: int) -> bytes | None:
    """The journal that a valid cursor belongs to; None if there is none."""
    data = read_whole(files, CURSOR_NAME, dir_fd=stored_dir)
    if (
        data is None
        or len(data) != _CURSOR.size + 4
        or crc32c(data[:-4]) != int.from_bytes(data[-4:], "little")
    ):
        return None
    return bytes(_CURSOR.unpack_from(data)[1])


def save_cursor(files: FileSystem, stored_dir: int, store: bytes, cursor: Cursor) -> None:
    """Replace the durable cursor."""
    data = _CURSOR.pack(_CURSOR_MAGIC, store, cursor.position, cursor.clean, cursor.leaves_out)
    atomic_replace(
        files, CURSOR_NAME, data + crc32c(data).to_bytes(4, "little"), FILE_MODE, dir_fd=stored_dir
    )


def forget_cursor(files: FileSystem, stored_dir: int) -> None:
    """Remove the durable cursor: all is projected again."""
    with contextlib.suppress(FileNotFoundError):
        files.unlink(CURSOR_NAME, dir_fd=stored_dir)
    files.sync(stored_dir)
