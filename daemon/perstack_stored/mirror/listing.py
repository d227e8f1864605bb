"""Finds pieces in a bucket by few requests, however many there are."""

from collections.abc import Iterator
from typing import Protocol

from perstack_stored.config.mirror_url import MirrorUrl
from perstack_stored.errors import ConfigError

from . import pieces


class Names(Protocol):
    """Lists objects: `bucket.Bucket`."""

    def names(self, folder: str, after: str = "") -> Iterator[str]:
        """Names in a folder, in order, after `after`."""


class Folders(Protocol):
    """Lists folders: `bucket.Bucket`."""

    def folders(self, folder: str) -> list[str]:
        """Names of the folders in a folder."""


def history_of(bucket: Folders, place: MirrorUrl, wanted: str | None) -> bytes:
    """The history in a mirror: the one that is wanted, or the only one.

    Raises:
        ConfigError: there is none, or several and none is named.
        StoredError: the bucket can't be read.
    """
    if wanted is not None and not pieces.is_store(wanted):
        raise ConfigError("the id of a history has 32 hexadecimal digits, as `store` in hello")
    there = sorted(name for name in bucket.folders(place.prefix + pieces.FOLDER) if pieces.is_store(name))
    if not there:
        raise ConfigError(f"{place} holds no mirror")
    if wanted is None and len(there) > 1:
        raise ConfigError(f"{place} holds several histories, name one: {', '.join(there)}")
    if wanted is not None and wanted not in there:
        raise ConfigError(f"{place} does not hold the history {wanted}, but {', '.join(there)}")
    return bytes.fromhex(wanted or there[0])


class Listing:
    """The pieces of one history."""

    def __init__(self, bucket: Names, folder: str) -> None:
        """Prepare it; `folder` is that of the history, see `pieces.folder_of`."""
        self._bucket = bucket
        self._folder = folder

    def first_from(self, segment: int) -> tuple[int, int] | None:
        """Segment and offset of the first piece of a segment or of a later one; None if there is none."""
        return next(self._found(f"{segment:010d}-"), None)

    def newest(self, last: int) -> tuple[int, int] | None:
        """Segment and offset of the last piece; None if there is none. None is of a segment after `last`."""
        low, high, found = 1, last, None
        while low <= high:  # the newest segment of which there is a piece
            middle = (low + high) // 2
            first = self.first_from(middle)
            if first is None:
                high = middle - 1
            else:
                found, low = first, max(middle, first[0]) + 1
        if found is None:
            return None
        return max(self._found(pieces.name_of(found[0], 0)[:-1]), default=found)

    def _found(self, after: str) -> Iterator[tuple[int, int]]:
        """The pieces whose names are after `after`; other names are passed over."""
        names = map(pieces.parse_name, self._bucket.names(self._folder, after))
        return (place for place in names if place is not None)
