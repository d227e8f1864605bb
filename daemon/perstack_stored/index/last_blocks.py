"""The blocks that are still filled: the last one of each run, cached, and numbers for new ones."""

import sqlite3
from collections import OrderedDict

from perstack_stored.errors import IndexUnusableError
from perstack_stored.index.event_blocks import BadBlockError, EventBlock, decode
from perstack_stored.index.event_reader import addresses_in, find_in_blocks
from perstack_stored.index.value_lookup import ValueAddress

_BLOCKS_CACHED_MAX = 128  # of the runs that were written last; 4 KiB each
_PUT_BLOCK = "INSERT OR REPLACE INTO event_block VALUES (?, ?, ?, ?, ?, ?)"
_LAST_BLOCK = (
    "SELECT id, data FROM event_block WHERE run = ? ORDER BY last_step DESC, last_position DESC LIMIT 1"
)


class LastBlocks:
    """The last block of each run."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._blocks: OrderedDict[int, tuple[int, EventBlock]] = OrderedDict()  # by run, each with its id
        self._next_id = 0

    def of(self, run: int) -> tuple[int, EventBlock] | None:
        """The last block of a run, with its id; None if it has none.

        Raises:
            IndexUnusableError: the block can't be decoded.
        """
        found = self._blocks.get(run)
        if found is not None:
            self._blocks.move_to_end(run)
            return found
        row = self._database.execute(_LAST_BLOCK, (run,)).fetchone()
        if row is None:
            return None
        try:
            found = self._blocks[run] = (row[0], decode(row[1]))
        except BadBlockError as error:
            raise IndexUnusableError(str(error)) from error
        return found

    def begin(self, run: int, block: EventBlock) -> int:
        """Begin a new block of a run; returns its id."""
        if not self._next_id:
            (last,) = self._database.execute("SELECT max(id) FROM event_block").fetchone()
            self._next_id = (last or 0) + 1
        id = self._next_id
        self._next_id += 1
        self._blocks[run] = (id, block)
        return id

    def write(self, id: int, run: int, block: EventBlock) -> None:
        """Write a block into the index."""
        self._database.execute(_PUT_BLOCK, (id, run, *block.last, block.encode()))

    def find(self, key: tuple[int, int, int, str]) -> list[tuple[int, ValueAddress]]:
        """The events of a name in blocks: n and address. The name is run, timestamp, step and type."""
        run, timestamp, step, type = key
        last = self._blocks.get(run)
        if last is not None and last[1].timestamp < timestamp:
            return addresses_in(last[1], timestamp, step, type)  # all other blocks end before
        return find_in_blocks(self._database, run, timestamp, step, type)

    def bound(self) -> None:
        """Let the least recently used blocks go."""
        while len(self._blocks) > _BLOCKS_CACHED_MAX:
            self._blocks.popitem(last=False)

    def forget(self) -> None:
        """Forget the cache."""
        self._blocks.clear()
        self._next_id = 0
