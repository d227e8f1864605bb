"""Erases what was deleted: finds the segments that hold it, has them written again, and says what is done.

A deletion is erased when index and tree are past it for good, no complete segment holds any of it, and no
file that is written over can hold bytes of it. What stands in the open segment waits until that is complete.
"""

import contextlib
import sqlite3
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

import structlog

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.datadir.layout import DataDir
from perstack_stored.errors import IndexUnusableError
from perstack_stored.index.connection import connect, read_cursor
from perstack_stored.index.deletions import pending_removals
from perstack_stored.index.schema import SPAN_POSITIONS
from perstack_stored.journal import entry_format
from perstack_stored.journal.chain import Chain
from perstack_stored.journal.packing import PackingError
from perstack_stored.journal.preallocation import NEXT_NAME, SPARE_NAME
from perstack_stored.journal.segment_names import segment_name
from perstack_stored.model.erasures import Erasures, Removal
from perstack_stored.tree import blocked
from perstack_stored.tree.cursor import load_cursor

from .channel import JournalState, KeeperEnd
from .erase import Erased, erase_segment
from .pack import Pace

_log = structlog.get_logger()


class Outcome(NamedTuple):
    """What a round of erasing came to.

    Attributes:
        erased_to: all deletions up to this position are erased; 0 without one.
        segments: complete segments that were written again.
        records: records that were erased in them.
        wants_segment: the open segment must be complete before the rest can be erased.
        fault: why a segment could not be written again; empty if nothing is wrong.
        passed_over: position of the first deletion that the tree passes over, so that its files are there: it
            and later ones are not erased. 0 if there is none.
    """

    erased_to: int = 0
    segments: int = 0
    records: int = 0
    wants_segment: bool = False
    fault: str = ""
    passed_over: int = 0


class _Pending(NamedTuple):
    removal: Removal
    spans: list[int]

    def ranges(self) -> Iterator[tuple[int, int]]:
        """First and last positions between which its records stand."""
        for span in self.spans:
            first = span * SPAN_POSITIONS
            last = min(first + SPAN_POSITIONS, self.removal.position) - 1
            if first <= last:
                yield first, last


class Eraser:
    """Erases in rounds. What it has looked at it remembers, so that the next round is short."""

    def __init__(self, datadir: DataDir, pace: Pace, *, packs: bool) -> None:
        self._datadir = datadir
        self._pace = pace
        self._packs = packs
        self._done: dict[int, int] = {}  # by segment: erased in it are the deletions up to this position
        self._clean: set[int] = set()  # segments without bytes after their end

    def run(self, chain: Chain, line: KeeperEnd) -> Outcome:
        """Erase what can be erased now.

        Raises:
            StoredError: the journal is damaged, or of a newer version.
            OSError: the journal's folder can't be read.
        """
        # Old bytes go from the spare to the next file, then to the open segment: it looks in this order.
        waits = _holds_old_bytes(self._datadir.files, self._datadir.folders.journal)
        chain.refresh()
        last = min(line.state.segment, chain.last)
        pending = self._pending(chain, line.state) if last else []
        if not pending:
            return Outcome()
        holding = _segments(chain, pending, last)
        segments, records, fault = self._write_again(chain, line, pending, holding)
        is_recycled = bool(chain.headers[last].flags & entry_format.SEGMENT_RECYCLED)
        wants = is_recycled or any(last in held for held in holding)
        is_clean = all(number in self._clean for number in range(1, last))
        passed_over = self._passed_over(chain, pending)
        erased_to = 0
        if not (fault or waits or is_recycled) and is_clean:
            erased_to = self._erased_to(pending, holding, passed_over)
        return Outcome(erased_to, segments, records, wants, fault, passed_over)

    def _pending(self, chain: Chain, state: JournalState) -> list[_Pending]:
        """The deletions that index and tree are past for good, in order."""
        files, folders = self._datadir.files, self._datadir.folders
        # The cursor counts, not what the tree has done: a power cut brings back files that were not synced.
        cursor = load_cursor(files, folders.stored, chain.headers[1].store)
        until = min(state.projected, cursor.position)
        try:
            with contextlib.closing(connect(self._datadir.index_path, read_only=True)) as database:
                until = min(until, read_cursor(database, chain.headers[1].store).position)
                return [_Pending(*one) for one in sorted(pending_removals(database, until))]
        except (sqlite3.Error, IndexUnusableError) as error:  # it is being built, or can't be opened for now
            _log.info("erasing_waits", reason=str(error))
            return []

    def _write_again(
        self, chain: Chain, line: KeeperEnd, pending: list[_Pending], holding: list[set[int]]
    ) -> tuple[int, int, str]:
        """Write complete segments again; returns their count, that of the records, and a fault."""
        newest = pending[-1].removal.position
        erasures = Erasures(one.removal for one in pending)
        wanted: dict[int, int] = {}
        for one, held in zip(pending, holding, strict=True):
            wanted.update(dict.fromkeys(held, one.removal.position))
        segments = records = 0
        fault = ""
        state = line.state
        for number in range(1, min(state.segment, chain.last, state.free_below)):
            if self._done.get(number, 0) >= wanted.get(number, 0) and self._is_clean(chain, number):
                continue
            if line.state.projected < newest:
                break  # the index is built again, and reads what would be erased
            end = chain.end_of(number)
            assert end is not None
            of_segment = erasures if number in wanted else Erasures(())
            try:
                erased = self._erase(number, end, of_segment)
            except (OSError, PackingError) as error:
                fault = f"{segment_name(number)}: {error}"
                _log.error("segment_not_erased", segment=number, reason=str(error))
                continue
            if number in wanted:
                self._done[number] = newest
            self._clean.add(number)
            if erased.is_new:
                segments, records = segments + 1, records + erased.records
                chain.drop_replaced()
                _log.info("segment_erased", segment=number, records=erased.records)
        return segments, records, fault

    def _erase(self, number: int, end: int, erasures: Erasures) -> Erased:
        files, journal_dir = self._datadir.files, self._datadir.folders.journal
        segment = number, end
        return erase_segment(files, journal_dir, segment, erasures, self._pace, packs=self._packs)

    def _is_clean(self, chain: Chain, number: int) -> bool:
        """Whether a segment is known to have no bytes after its end: one that is packed has none."""
        if number not in self._clean and chain.open(number).is_packed:
            self._clean.add(number)
        return number in self._clean

    def _passed_over(self, chain: Chain, pending: list[_Pending]) -> int:
        """The first deletion that the tree passes over; 0 if there is none."""
        files, folders = self._datadir.files, self._datadir.folders
        listed = blocked.load(files, folders.stored, chain.headers[1].store)
        passed_over = {one.position for one in listed.records}
        positions = (one.removal.position for one in pending)
        return next((position for position in positions if position in passed_over), 0)

    def _erased_to(self, pending: list[_Pending], holding: list[set[int]], passed_over: int) -> int:
        """Position up to which each deletion is erased."""
        erased_to = 0
        for one, held in zip(pending, holding, strict=True):
            position = one.removal.position
            is_done = all(self._done.get(number, 0) >= position for number in held)
            if not is_done or position == passed_over:
                break
            erased_to = position
        return erased_to


def _segments(chain: Chain, pending: list[_Pending], last: int) -> list[set[int]]:
    """By deletion, the segments up to a last one that may hold what it removed."""
    firsts = [chain.headers[number].first_position for number in range(1, last + 1)]
    holding = []
    for one in pending:
        held: set[int] = set()
        for first, end in one.ranges():
            # With the one before: recovery may have left copies after its end.
            held.update(range(max(1, bisect_right(firsts, first) - 1), bisect_right(firsts, end) + 1))
        holding.append(held)
    return holding


def _holds_old_bytes(files: FileSystem, journal_dir: int) -> bool:
    """Whether a file that waits to become a segment holds bytes of an older one."""
    names = files.list_dir(journal_dir)
    if SPARE_NAME in names:
        return True
    if NEXT_NAME not in names:
        return False
    try:
        fd = files.open(NEXT_NAME, dir_fd=journal_dir)
    except FileNotFoundError:
        return False
    try:
        magic = entry_format.SEGMENT_MAGIC
        return files.read(fd, len(magic), 0) == magic
    finally:
        files.close(fd)
