"""Cache of event listings for the next read of the same run. No I/O but one query.

An event in the index never changes, so neither does what a listing holds of the events up to a position.
Newer events are appended, unless one belongs before the end (an earlier step): then the listing is rebuilt.
Text is kept within a bound, and may be dropped during a read: the reader goes on from its cursor.
"""

import sqlite3
from collections import OrderedDict
from typing import NamedTuple

from perstack_stored.index import event_reader

Cursor = tuple[int, int]  # step and position
START: Cursor = (-1, -1)
_SHARE = 4  # one listing takes at most a quarter of the cache
_LISTING_BYTES = 1024  # memory of a listing besides its text
_JOIN_BYTES_MAX = 1 << 18  # pages of a few items are joined up to here


class Page(NamedTuple):
    """Items of a listing after a cursor: JSON with commas between, and the cursor to go on from.

    The cursor of the last page (`ends`) stands after all events up to the listing's position.
    """

    text: bytes
    last: Cursor
    ends: bool


class Listing:
    """The beginning of a run's listing, as of the events up to position `newest`."""

    __slots__ = ("last", "newest", "pages", "run", "size")

    def __init__(self, run: int, newest: int) -> None:
        self.run = run
        self.newest = newest
        self.pages: dict[Cursor, Page] = {}  # in order, by the cursor before each
        self.last = START
        self.size = 0


class ListingCache:
    """The cached listings, least recently read first. Used by one thread."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._listings: OrderedDict[int, Listing] = OrderedDict()
        self.size = 0

    def of(self, database: sqlite3.Connection, run: int, newest: int, reordered_at: int) -> Listing:
        """The listing of a run as of a position, with its cached pages.

        `reordered_at` is the position of the last event that came with a step below that of an earlier one.
        """
        listing = self._listings.get(run)
        if listing is None or not listing.pages:
            return self._begin(run, newest)
        self._listings.move_to_end(run)
        if newest == listing.newest:
            return listing
        if listing.newest < reordered_at:
            return self._begin(run, newest)
        if any(event_reader.by_step(database, run, listing.last, newest, 1)):
            return self._go_on(listing, newest)
        listing.newest = newest
        return listing

    def add(self, listing: Listing, after: Cursor, page: Page) -> None:
        """Cache a page after a cursor, if it is the next one and there is room."""
        size = len(page.text)
        if self._listings.get(listing.run) is not listing or after != listing.last:
            return
        if listing.size + size > self._bytes_max // _SHARE:
            return
        begin = next(reversed(listing.pages), None)
        before = b"" if begin is None else listing.pages[begin].text
        if begin is not None and (not size or len(before) + size <= _JOIN_BYTES_MAX):
            listing.pages[begin] = page._replace(text=before + b"," + page.text if size else before)
        elif size:
            listing.pages[after] = page
        else:
            return
        listing.last = page.last
        self._grow(listing, size)

    def _begin(self, run: int, newest: int) -> Listing:
        if run in self._listings:
            self._drop(run)
        listing = self._listings[run] = Listing(run, newest)
        self._grow(listing, _LISTING_BYTES)
        return listing

    def _grow(self, listing: Listing, size: int) -> None:
        listing.size += size
        self.size += size
        while self.size > self._bytes_max:
            self._drop(next(iter(self._listings)))

    def _go_on(self, listing: Listing, newest: int) -> Listing:
        """The same pages as of a later position; a reader of the earlier one goes on without them."""
        later = Listing(listing.run, newest)
        later.pages, later.last, later.size = listing.pages, listing.last, listing.size
        listing.pages = {}
        begin = next(reversed(later.pages))
        later.pages[begin] = later.pages[begin]._replace(ends=False)
        self._listings[listing.run] = later
        return later

    def _drop(self, run: int) -> None:
        listing = self._listings.pop(run)
        self.size -= listing.size
        listing.pages = {}
