"""What was read once and does not change: bounded, the least used goes first. No I/O."""

from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """Values by key, of a bounded size together; the caller says how large each is."""

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._size = 0
        self._values: OrderedDict[object, tuple[T, int]] = OrderedDict()

    def get(self, key: object) -> T | None:
        """The value of a key; None where it is not kept."""
        found = self._values.get(key)
        if found is None:
            return None
        self._values.move_to_end(key)
        return found[0]

    def put(self, key: object, value: T, size: int = 1) -> None:
        """Keep a value; the least used go where there are too many."""
        before = self._values.pop(key, None)
        self._size += size - (0 if before is None else before[1])
        self._values[key] = (value, size)
        while self._size > self._size_max:
            _, (_, gone) = self._values.popitem(last=False)
            self._size -= gone
