"""Tells when somebody else has written to the index's files, removed them, or put others in their place.

SQLite would not notice: it goes on from its cache, and with files that have no name any more, while new
readers find other ones. Whoever writes without leaving a new time at the file is found by who reads.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import IndexUnusableError
from .index_sums import SUFFIX as SUMS_SUFFIX

# Readers write to the shared memory, so of that one only the identity counts.
_WATCHED = ("", "-wal", SUMS_SUFFIX)
_SHARED = "-shm"

_Look = tuple[int, ...]


class IndexWatch:
    """Looks at the files of an index whose only writer is this process."""

    def __init__(self, path: str) -> None:
        """Take the files as they are for what they should be; the index is open."""
        self._paths = [path + suffix for suffix in (*_WATCHED, _SHARED)]
        self._seen = self._look()

    def check(self) -> None:
        """See that nobody else has touched them.

        Raises:
            IndexUnusableError: somebody has.
        """
        self._compare(self._look(), whole=True)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """What changes in the files meanwhile is our own doing.

        Raises:
            IndexUnusableError: somebody else has changed them before, or exchanged them meanwhile.
        """
        self.check()
        try:
            yield
        finally:
            found = self._look()
            self._compare(found, whole=False)
            self._seen = found

    def _compare(self, found: list[_Look], *, whole: bool) -> None:
        for path, before, now in zip(self._paths, self._seen, found, strict=True):
            name = os.path.basename(path)
            if now[:2] != before[:2]:
                what = "is another file than it was" if now else "was removed"
                raise IndexUnusableError(f"{name} {what}")
            if whole and now != before:
                raise IndexUnusableError(f"{name} was written to by somebody else")

    def _look(self) -> list[_Look]:
        return [_look(path, whole=not path.endswith(_SHARED)) for path in self._paths]


def _look(path: str, *, whole: bool) -> _Look:
    try:
        found = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return ()
    identity = (found.st_dev, found.st_ino)
    return (*identity, found.st_size, found.st_mtime_ns) if whole else identity
