"""Tells when somebody else has written to the index's files, removed them, or put others in their place.

SQLite would not notice: it goes on from its cache, and with files that have no name any more, while new
readers find other ones. Whoever writes without leaving a new time at the file is found by who reads.
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
    """Looks at the files of an index whose only writer is this process."""

    def __init__(self, path: str, checkpoints: Callable[[], int]) -> None:
        """Take the files as they are for what they should be.

        Args:
            path: of the index, which is open.
            checkpoints: how many have been begun.
        """
        self._path = path
        self._checkpoints = checkpoints
        self._seen = self._look()

    def check(self) -> None:
        """See that nobody else has touched the files, and that they could be opened again, as readers must.

        Raises:
            IndexUnusableError: somebody has.
            PermissionError: they could not.
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
        """What we write to the files meanwhile is as it should be.

        Raises:
            IndexUnusableError: somebody else has touched them.
        """
        self.check()
        before, seen = self._checkpoints(), self._seen
        try:
            yield
        finally:
            self._seen = {}  # what was written is not seen yet, and where the folder is closed, it can't be
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
                raise IndexUnusableError(f"{name} was written to by somebody else")


def _look(path: str) -> _Look:
    try:
        found = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return ()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
