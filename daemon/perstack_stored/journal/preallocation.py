"""Preallocates the next segment: written zeros let fdatasync skip the file's metadata.

Measured on ext4: fdatasync of 4 KiB takes 0.31 ms in a growing or reserved file, 0.19 ms in written zeros.
So a segment that must grow because the next one is not ready grows by written zeros too.
"""

import errno
import threading
import time
from typing import NamedTuple

from perstack_stored.datadir.filesystem import FileSystem

NEXT_NAME = "next.segment.part"
SPARE_NAME = "spare.segment.part"
"""The file of a segment that was packed, left over for the next one."""
_ZEROS = bytes(1 << 20)
_SYNCED_BYTES = 4 << 20  # a sync of the journal waits for at most these
_RETRY_SECONDS = 1.0


def write_zeros(files: FileSystem, fd: int, size: int) -> int:
    """Fill a new file with zeros in synced pieces. Returns its size in bytes."""
    for start in range(0, size, _SYNCED_BYTES):
        fill(files, fd, start, min(start + _SYNCED_BYTES, size))
        files.sync_data(fd)
    return size


def fill(files: FileSystem, fd: int, start: int, end: int) -> None:
    """Write zeros from one offset to another."""
    for offset in range(start, end, len(_ZEROS)):
        files.write(fd, [_ZEROS[: min(len(_ZEROS), end - offset)]], offset)


class Prepared(NamedTuple):
    """The next segment's file, still named `NEXT_NAME`: open, with its size.

    `is_recycled`: it holds the bytes of an older segment, not zeros.
    """

    fd: int
    size: int
    is_recycled: bool


class SegmentPreallocator:
    """Prepares at most one file at a time. `take` returns it, or None if it is not ready."""

    def __init__(self, files: FileSystem, dir_fd: int, segment_bytes: int, mode: int, *, ahead: bool) -> None:
        self._files = files
        self._dir = dir_fd
        self._segment_bytes = segment_bytes
        self._mode = mode
        self._ahead = ahead
        self._thread: threading.Thread | None = None
        self._made: Prepared | None = None
        self._spare = False
        self._spares_allowed = True
        self._failed: OSError | None = None
        self._failed_at = 0.0

    def start(self) -> None:
        """Start to prepare the next segment, unless it is ready or in progress."""
        if (
            not self._ahead
            or self._made is not None
            or (self._thread is not None and self._thread.is_alive())
        ):
            return
        self._thread = threading.Thread(target=self._make, name="segment-preparer", daemon=True)
        self._thread.start()

    def offer_spare(self) -> None:
        """Note that `SPARE_NAME` may be used: the file that replaced it has its name, synced."""
        self._spare = self._spares_allowed

    def allow_spares(self, *, allowed: bool) -> None:
        """Say whether files with old bytes may be used: not while some of these must go.

        It is called again until none is left; a file that is being prepared is looked at the next time.
        """
        self._spares_allowed = allowed
        if allowed:
            return
        self._spare = False
        if self._thread is not None and self._thread.is_alive():
            return
        if SPARE_NAME in self._files.list_dir(self._dir):
            self._files.unlink(SPARE_NAME, dir_fd=self._dir)
        made = self._made
        if made is not None and made.is_recycled:
            self._made = None
            self._files.close(made.fd)
            self._files.unlink(NEXT_NAME, dir_fd=self._dir)
            self.start()

    def take(self) -> Prepared | None:
        """Return the file of the next segment; None if it is not ready.

        Raises:
            OSError: it can't be made, as when the disk is full. The next call tries again.
        """
        if not self._ahead:
            self._make()
        elif self._thread is not None and self._thread.is_alive():
            return None
        failed, self._failed = self._failed, None
        if failed is not None:
            if failed.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise failed
            return None
        if self._made is None:
            if time.monotonic() - self._failed_at > _RETRY_SECONDS:
                self.start()
            return None
        made, self._made = self._made, None
        return made

    def stop(self) -> None:
        """Wait for the file in progress, and remove it, and the spare."""
        if self._thread is not None:
            self._thread.join()
        if self._made is not None:
            self._files.close(self._made.fd)
            self._files.unlink(NEXT_NAME, dir_fd=self._dir)
            self._made = None
        if SPARE_NAME in self._files.list_dir(self._dir):
            self._files.unlink(SPARE_NAME, dir_fd=self._dir)

    def _make(self) -> None:
        try:
            if NEXT_NAME in self._files.list_dir(self._dir):
                self._files.unlink(NEXT_NAME, dir_fd=self._dir)
            self._made = self._recycled()
            if self._made is not None:
                return
            fd = self._files.create(NEXT_NAME, self._mode, dir_fd=self._dir)
            try:
                size = write_zeros(self._files, fd, self._segment_bytes)
                self._made = Prepared(fd, size, is_recycled=False)
            except OSError:
                # Half a segment must not take room that a growing segment could still use.
                self._files.close(fd)
                self._files.unlink(NEXT_NAME, dir_fd=self._dir)
                raise
        except OSError as error:
            self._failed = error
            self._failed_at = time.monotonic()

    def _recycled(self) -> Prepared | None:
        """The file of a packed segment: its blocks are on disk already. None without one.

        A reader that still has it open, as the segment that it was, must not find other bytes in it.
        """
        if not self._spare:
            return None
        try:
            fd = self._files.open(SPARE_NAME, dir_fd=self._dir, write=True)
        except FileNotFoundError:
            self._spare = False
            return None
        try:
            size = self._files.size(fd)
            if size >= self._segment_bytes and self._files.is_alone(fd):
                self._files.rename(SPARE_NAME, NEXT_NAME, source_dir=self._dir, target_dir=self._dir)
                self._spare = False
                return Prepared(fd, size, is_recycled=True)
        except OSError:
            self._files.close(fd)
            raise
        self._files.close(fd)
        return None
