"""Detects that another program wrote to the index's files, removed or replaced them.

SQLite would not notice: it goes on from its cache, and with files that have no name any more, while new
readers find other ones. Reads detect a write that leaves the file's time unchanged.
"""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from perstack_stored.errors import IndexUnusableError

from .page_checksums import SUFFIX as SUMS_SUFFIX

_STEADY = ("", SUMS_SUFFIX)  # written to in checkpoints only
_LOG = "-wal"  # in each transaction
_SHARED = "-shm"  # by readers too, so that only its identity counts
_IDENTITY = 2

_Look = tuple[int, ...]


class FileWatch:
    """Watches the files of an index whose only writer is this process."""

    def __init__(self, path: str, checkpoints: Callable[[], int]) -> None:
        """Take the current files as the expected ones.

        Args:
            path: path of the index, which is open.
            checkpoints: returns the count of checkpoints begun.
        """
        self._path = path
        self._checkpoints = checkpoints
        self._seen = self._look()

    def check(self) -> None:
        """Check that no other program changed the files, and that readers can open them.

        Raises:
            IndexUnusableError: the files have changed.
            PermissionError: readers could not open them.
        """
        found = self._look()
        if self._seen:
            self._compare(found, self._seen, (*_STEADY, _LOG))
        else:
            self._seen = found
        for suffix, now in found.items():
            if now and not os.access(self._path + suffix, os.R_OK | os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), self._path + suffix)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Context in which this process writes to the files.

        Raises:
            IndexUnusableError: another program has changed them.
        """
        self.check()
        before, seen = self._checkpoints(), self._seen
        try:
            yield
        finally:
            self._seen = {}  # the result is not known yet, and can't be if the folder is closed
            found = self._look()
            self._compare(found, seen, _STEADY if self._checkpoints() == before else ())
            self._seen = found

    def _look(self) -> dict[str, _Look]:
        return {suffix: _look(self._path + suffix) for suffix in (*_STEADY, _LOG, _SHARED)}

    def _compare(self, found: dict[str, _Look], seen: dict[str, _Look], unchanged: tuple[str, ...]) -> None:
        for suffix, now in found.items():
            before, name = seen[suffix], os.path.basename(self._path) + suffix
            if now[:_IDENTITY] != before[:_IDENTITY]:
                raise IndexUnusableError(f"{name} {'is another file than it was' if now else 'was removed'}")
            if suffix in unchanged and now != before:
                raise IndexUnusableError(f"{name} was written to by another program")


def _look(path: str) -> _Look:
    try:
        found = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return ()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
