"""The positions of a session's recent stores (deduplication), packed: 16 bytes a run. No I/O."""

from array import array
from collections.abc import Iterator
from typing import NamedTuple

# A run is two numbers: the number of its first store, and its position with the count in the lowest bits.
_COUNT_BITS = 11
COUNT_MAX = 1 << _COUNT_BITS
_COUNT_MASK = COUNT_MAX - 1


class PositionRun(NamedTuple):
    """Stores with consecutive numbers at consecutive positions."""

    seq: int
    position: int
    count: int  # type: ignore[assignment]  # shadows tuple.count, which is unused


class PositionRuns:
    """Runs in the order of their numbers."""

    __slots__ = ("_packed",)

    def __init__(self) -> None:
        self._packed = array("Q")

    def __len__(self) -> int:
        return len(self._packed) >> 1

    def __iter__(self) -> Iterator[PositionRun]:
        return (PositionRun(*run) for run in self.tuples())

    def tuples(self) -> list[tuple[int, int, int]]:
        """Return all runs as plain tuples."""
        packed = self._packed
        return [
            (seq, place >> _COUNT_BITS, (place & _COUNT_MASK) + 1)
            for seq, place in zip(packed[::2], packed[1::2], strict=True)
        ]

    def last(self) -> tuple[int, int, int]:
        """The newest run; there must be one."""
        seq, place = self._packed[-2:]
        return seq, place >> _COUNT_BITS, (place & _COUNT_MASK) + 1

    def add(self, seq: int, position: int, count: int) -> int:
        """Append stores; numbers that are known already, as after a recovery, change nothing.

        Returns:
            the count of runs that were added.
        """
        packed = self._packed
        before = len(packed)
        if packed:
            place = packed[-1]
            have = (place & _COUNT_MASK) + 1
            end = packed[-2] + have
            if seq < end:
                known = end - seq
                if known >= count:
                    return 0
                seq, position, count = end, position + known, count - known
            if seq == end and position == (place >> _COUNT_BITS) + have:
                joined = min(count, COUNT_MAX - have)
                packed[-1] = place + joined
                seq, position, count = seq + joined, position + joined, count - joined
            elif position < (place >> _COUNT_BITS) + have:
                del packed[:]  # positions only grow: these belong to another history of the same name
                before = 0
        while count:
            part = min(count, COUNT_MAX)
            packed.append(seq)
            packed.append(position << _COUNT_BITS | part - 1)
            seq, position, count = seq + part, position + part, count - part
        return (len(packed) - before) >> 1

    def settle(self, settled: int) -> None:
        """Forget the runs that end at this number or before it."""
        packed = self._packed
        passed = 0
        while passed < len(packed) and packed[passed] + (packed[passed + 1] & _COUNT_MASK) <= settled:
            passed += 2
        if passed:
            del packed[:passed]

    def keep(self, numbers: int) -> int:
        """Keep the newest `numbers` store numbers, and the last run in any case; forget older runs.

        Returns:
            the number up to which runs may be forgotten by this.
        """
        packed = self._packed
        if len(packed) <= 2:  # noqa: PLR2004 - one
            return 0
        last = packed[-2]
        through = max(0, min(last + (packed[-1] & _COUNT_MASK) - numbers, last - 1))
        self.settle(through)
        return through

    def before_first(self) -> int | None:
        """The number before the first run; None without runs."""
        return self._packed[0] - 1 if self._packed else None

    def position_of(self, seq: int) -> int | None:
        """Position of a store, or None."""
        packed = self._packed
        low, high = 0, len(packed) >> 1
        while low < high:  # the first run that begins after it
            middle = (low + high) >> 1
            if packed[2 * middle] > seq:
                high = middle
            else:
                low = middle + 1
        if not low:
            return None
        first, place = packed[2 * low - 2], packed[2 * low - 1]
        return (place >> _COUNT_BITS) + seq - first if seq - first <= place & _COUNT_MASK else None

    def clear(self) -> None:
        """Forget all."""
        self._packed = array("Q")
