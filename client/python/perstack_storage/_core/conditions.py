"""Conditions of stores: values that are stored all or none, and jobs that nobody else stores for. No I/O.

A store with a condition has a `Conditional` as its body. So it is one store in every queue, whatever
interrupts a call: it travels whole, or not at all.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from perstack_storage._core import frames
from perstack_storage._core.calls import Stores
from perstack_storage._core.errors import ClosedError, ErrorCode, Refused, refused
from perstack_storage._core.jsonio import dumps

BATCH_OP = "store"
_ITEM_HEADER_BYTES = 40
"""More than operation and length of a value take in the header of a frame."""


class Condition:
    """What must hold for stores. Those that share one travel together; the others don't.

    Attributes:
        extra: count of the numbers that a store with it takes beyond the first one.
        features: of the daemon; without them it would ignore the condition.
    """

    extra = 0
    features: tuple[str, ...] = ()

    def header(self) -> str:
        """Returns the fields of the frame's header, each after a comma."""
        return ""

    def problem(self, _size: int, limits: "frames.Limits") -> dict[str, Any] | None:
        """Returns the error of stores that this daemon can't take, by their bytes; None if it can."""
        missing = [feature for feature in self.features if feature not in limits.features]
        if not missing:
            return None
        said = f"this daemon does not know {missing[0]!r} and would ignore it: update the daemon"
        return {"code": ErrorCode.UNKNOWN_OPERATION, "message": said, "retryable": False}

    def take(self, outcomes: Sequence[Any]) -> None:
        """Takes the final outcomes of stores: positions, and errors of the daemon."""


class Fence(Condition):
    """Nobody but this session has stored for a job, or a run of it, after a position.

    Attributes:
        position: of the read that the program goes by, or of its last store that was answered.
    """

    def __init__(self, job_id: str, run_id: str | None, position: int) -> None:
        owner = {"jobId": job_id} if run_id is None else {"jobId": job_id, "runId": run_id}
        self.features = ("expect",)
        self._owner = dumps(owner).decode()[:-1]
        self.position = position

    def header(self) -> str:
        """Returns the fields of the frame's header, each after a comma."""
        return f',"expect":{self._owner},"position":{self.position}}}'

    def take(self, outcomes: Sequence[Any]) -> None:
        """Moves on to the last position."""
        self.position = max([self.position, *[one for one in outcomes if type(one) is int]])


class AllOrNone(Condition):
    """The values of an atomic batch are stored all or none.

    Attributes:
        items: operation and count of bytes of each value.
    """

    def __init__(self, items: Sequence[tuple[str, int]], fence: Fence | None = None) -> None:
        self.items = items
        self.extra = len(items) - 1
        self.features = ("atomic",) if fence is None else ("atomic", "expect")
        self._fence = fence

    def header(self) -> str:
        """Returns the fields of the frame's header, each after a comma."""
        items = ",".join([f'["{op}",{size}]' for op, size in self.items])
        return f',"items":[{items}],"atomic":true' + ("" if self._fence is None else self._fence.header())

    def problem(self, size: int, limits: "frames.Limits") -> dict[str, Any] | None:
        """Returns the error of a batch that a daemon with these limits would not take, or would cut up."""
        lacking = super().problem(size, limits)
        header = frames.HEADER_RESERVE_BYTES + _ITEM_HEADER_BYTES * len(self.items)
        if lacking:
            return lacking
        if len(self.items) > limits.batch_items:
            said = f"an atomic batch holds at most {limits.batch_items} values, not {len(self.items)}"
        elif header + size > limits.frame_bytes:
            said = f"an atomic batch must fit into a frame of {limits.frame_bytes} bytes"
        else:
            return None
        return {"code": ErrorCode.TOO_LARGE, "message": said, "retryable": False}

    def take(self, outcomes: Sequence[Any]) -> None:
        """Moves the fence on to the last position."""
        if self._fence is not None:
            self._fence.take([one + self.extra for one in outcomes if type(one) is int])


class Conditional(bytes):
    """The body of a store with a condition; of an atomic batch, its values one after the other."""

    condition: Condition

    def __new__(cls, body: bytes, condition: Condition) -> "Conditional":
        """Copies the bytes."""
        new = super().__new__(cls, body)
        new.condition = condition
        return new


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

    def __init__(self, fence: Fence | None = None) -> None:
        self.positions: list[int] = []
        self._fence = fence
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
        return Conditional(b"".join([body for _, body in self._items]), AllOrNone(sizes, self._fence))

    def _stored(self, first: int) -> None:
        self.positions = list(range(first, first + len(self._items)))
