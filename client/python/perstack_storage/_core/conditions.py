"""Conditions of stores: values that are stored all or none. No I/O.

A store with a condition has a `Conditional` as its body. So it is one store in every queue, whatever
interrupts a call: it travels whole, or not at all.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from perstack_storage._core import frames
from perstack_storage._core.calls import Stores
from perstack_storage._core.errors import ClosedError, ErrorCode, Refused, refused

BATCH_OP = "store"
_ITEM_HEADER_BYTES = 40
"""More than operation and length of a value take in the header of a frame."""


class Condition:
    """What must hold for stores. Those that share one travel together; the others don't.

    Attributes:
        extra: count of the numbers that a store with it takes beyond the first one.
    """

    extra = 0

    def header(self) -> str:
        """Returns the fields of the frame's header, each after a comma."""
        return ""


class AllOrNone(Condition):
    """The values of an atomic batch are stored all or none.

    Attributes:
        items: operation and count of bytes of each value.
    """

    def __init__(self, items: Sequence[tuple[str, int]]) -> None:
        self.items = items
        self.extra = len(items) - 1

    def header(self) -> str:
        """Returns the fields of the frame's header, each after a comma."""
        items = ",".join([f'["{op}",{size}]' for op, size in self.items])
        return f',"items":[{items}],"atomic":true'

    def check(self, size: int, limits: "frames.Limits") -> None:
        """Raises Refused if a daemon with these limits takes no such frame."""
        header = frames.HEADER_RESERVE_BYTES + _ITEM_HEADER_BYTES * len(self.items)
        if len(self.items) > limits.batch_items:
            said = f"an atomic batch holds at most {limits.batch_items} values, not {len(self.items)}"
        elif header + size > limits.frame_bytes:
            said = f"an atomic batch must fit into a frame of {limits.frame_bytes} bytes"
        else:
            return
        raise refused({"code": ErrorCode.TOO_LARGE, "message": said, "retryable": False}, op=BATCH_OP)


class Conditional(bytes):
    """The body of a store with a condition; of an atomic batch, its values one after the other."""

    condition: Condition

    def __new__(cls, body: bytes, condition: Condition) -> "Conditional":
        """Copies the bytes."""
        new = super().__new__(cls, body)
        new.condition = condition
        return new


def check_size(body: bytes, limits: "frames.Limits") -> None:
    """Raises Refused if a body can't be sent to a daemon with these limits."""
    if isinstance(body, Conditional) and isinstance(body.condition, AllOrNone):
        body.condition.check(len(body), limits)


def numbers_of(body: bytes) -> int:
    """Returns the count of numbers that a store takes."""
    return 1 + body.condition.extra if isinstance(body, Conditional) else 1


def refusal_of(op: str, body: bytes, error: Mapping[str, Any]) -> Refused:
    """Returns the error to raise for a store that was refused; of an atomic batch, with the value's index."""
    item = error.get("item")
    if isinstance(body, Conditional) and isinstance(body.condition, AllOrNone):
        items = body.condition.items
        if type(item) is int and 0 <= item < len(items):
            return refused(error, op=items[item][0], index=item)
    return refused(error, op=op)


class Collected(Stores[None]):
    """Values of an atomic batch.

    Attributes:
        positions: of the values, in the order of the calls; empty until they are stored.
    """

    def __init__(self) -> None:
        self.positions: list[int] = []
        self._items: list[tuple[str, bytes]] = []
        self._ended = False

    def _store(self, op: str, body: bytes) -> None:
        if self._ended:
            raise ClosedError("the block of this atomic batch has ended: make another one")
        self._items.append((op, body))

    def _end(self, error: BaseException | None) -> Conditional | None:
        """Ends the batch; returns the body to store, None if the block failed or holds nothing."""
        self._ended = True
        if error is not None or not self._items:
            return None
        sizes = [(op, len(body)) for op, body in self._items]
        return Conditional(b"".join([body for _, body in self._items]), AllOrNone(sizes))

    def _stored(self, first: int) -> None:
        self.positions = list(range(first, first + len(self._items)))
