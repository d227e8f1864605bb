"""Finds out whether an event repeats an earlier one with the same name, byte by byte."""

import sqlite3
from collections.abc import Callable

from perstack_stored.index.last_blocks import LastBlocks
from perstack_stored.index.lookalikes import GROUP_MIN, Lookalikes
from perstack_stored.index.run_state import RunState
from perstack_stored.index.schema import LOST_SEGMENT
from perstack_stored.index.value_lookup import ValueAddress

_BRING_BACK = (
    "UPDATE event SET position = ?, segment = ?, offset = ?"
    " WHERE run = ? AND timestamp = ? AND step = ? AND type = ? AND n = ?"
)

Where = tuple[int, int, int, int, int]
"""Position, segment, offset, length, crc32c."""


class Repeats:
    """Compares events with those of the index."""

    def __init__(
        self,
        database: sqlite3.Connection,
        value_at: Callable[[ValueAddress], bytes | None],
        blocks: LastBlocks,
    ) -> None:
        """`value_at` reads a value of the journal; None if it is damaged."""
        self._database = database
        self._value_at = value_at
        self._blocks = blocks
        self._lookalikes = Lookalikes()

    def forget(self) -> None:
        """Forget what was learned: a lost event can be brought back, or a transaction was rolled back."""
        self._lookalikes.clear()

    def in_blocks(
        self, run: RunState, key: tuple[int, int, int, str], look: tuple[int, ...]
    ) -> tuple[int, list[ValueAddress]]:
        """Count of the events of a name that stand in blocks, and addresses of those that look alike."""
        _, timestamp, step, type = key
        names = run.known_names() if timestamp == run.timestamp else None
        if names is not None:
            known = names.get((step, type), ())
            if look not in known:
                return len(known), []
        found = self._blocks.find(key)
        return max([n for n, _ in found], default=0), [place for _, place in found if place[2:] == look]

    def held_as(
        self,
        key: tuple[int, int, int, str],
        payload: memoryview,
        where: Where,
        in_blocks: list[ValueAddress],
    ) -> int | None:
        """Find an earlier event with the same bytes, hence the same job, run and id; None if there is none.

        Returns:
            0 for a repeat of an event that is there; the number of a lost event, which is brought back.
        """
        _, _, _, length, crc = where
        group = (*key, length, crc)
        if self._lookalikes.knows(group):
            return 0 if self._lookalikes.has(group, payload) else None
        places: list[ValueAddress] = []
        for place in in_blocks:
            if self._is_value_at(place, payload):
                return 0
            places.append(place)
        select = (
            "SELECT n, segment, offset FROM event{}"
            " WHERE run = ? AND timestamp = ? AND step = ? AND type = ? AND crc = ? AND length = ? AND {}"
        )
        # With a named index: otherwise SQLite walks through all events of the name.
        for by, condition in (("", "n = 1"), (" INDEXED BY event_twin", "n > 1")):
            found = self._database.execute(select.format(by, condition), (*key, crc, length))
            for n, segment, offset in found:
                if segment == LOST_SEGMENT:
                    self._database.execute(_BRING_BACK, (*where[:3], *key, n))
                    return int(n)
                places.append(ValueAddress(segment, offset, length, crc))
                if self._is_value_at(places[-1], payload):
                    return 0
        if len(places) >= GROUP_MIN:
            self._lookalikes.learn(group, (payload, *filter(None, map(self._value_at, places))))
        return None

    def _is_value_at(self, place: ValueAddress, payload: memoryview) -> bool:
        value = self._value_at(place)
        return value is not None and payload == value

    def next_n(self, key: tuple[int, int, int, str], in_blocks: int) -> int:
        """The number of the next event of a name of which this many stand in blocks."""
        (n,) = self._database.execute(
            "SELECT max(n) FROM event WHERE run = ? AND timestamp = ? AND step = ? AND type = ?",
            key,
        ).fetchone()
        return max(n or 0, in_blocks) + 1
