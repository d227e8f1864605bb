"""Stores that travel together, and what is informed of their outcomes."""

from typing import Any, Protocol

from perstack_storage._core.conditions import Condition
from perstack_storage._core.errors import StorageError

Outcome = int | dict[str, Any]
"""The position of a store, or the error object of the daemon."""

Store = tuple[str, bytes, Any]
"""Operation, body, and the future of the position, or None. One object all along: a connection that makes its
state again after an interruption knows a store by it."""


class Sink(Protocol):
    """Takes outcomes, in the order of the numbers."""

    def settled(self, batch: "Batch") -> None:
        """All of the batch has its final outcome."""

    def abandoned(self, batch: "Batch") -> None:
        """The batch was given up."""

    def unheard(self, error: StorageError) -> None:
        """Some of it was given up while no call was there to raise the error."""


class Batch:
    """Stores with consecutive numbers that travel in one frame, or one store that travels in parts.

    `start`, `stores` and `outcomes` are the facts: each changes in one step, so an exception in the middle of
    a call leaves them right. `StoreQueue.successor` makes the rest again from them.
    """

    __slots__ = (
        "added_at",
        "condition",
        "done",
        "error",
        "next_part",
        "outcomes",
        "parts",
        "sent_at",
        "sent_ever",
        "sink",
        "size",
        "start",
        "stores",
        "successor",
        "taken",
    )

    def __init__(
        self, start: int, sink: Sink | None, added_at: float, condition: Condition | None = None
    ) -> None:
        self.start = start  # number of the first store
        self.condition = condition  # of all its stores
        self.sink = sink
        self.added_at = added_at  # when its first store was called for
        self.stores: list[Store] = []
        self.outcomes: list[Outcome] = []  # of its first stores
        self.size = 0  # of those that have no final outcome
        self.taken = 0  # stores that no longer count for the window, although the batch is not done
        self.parts = 1
        self.next_part = 0
        self.sent_at = 0.0
        self.sent_ever = False
        self.done = False  # each of its stores has a final outcome
        self.error: dict[str, Any] | None = None
        self.successor: Batch | None = None  # the same one in the state that was made after an interruption

    @property
    def numbers(self) -> int:
        """Count of the numbers of its stores: an atomic batch is one store that has several."""
        return len(self.stores) + (0 if self.condition is None else self.condition.extra)

    @property
    def first(self) -> int:
        """Number of the first store that has no final outcome."""
        return self.start + len(self.outcomes)

    @property
    def pending(self) -> list[Store]:
        """The stores that have no final outcome."""
        return self.stores[len(self.outcomes) :] if self.outcomes and not self.done else self.stores

    def take(self, outcomes: list[Outcome]) -> dict[str, Any] | None:
        """Takes outcomes of its stores from the first on; returns the error that asks for a retry, if any."""
        for count, outcome in enumerate(outcomes):
            if type(outcome) is dict and outcome.get("retryable"):
                # What comes after it goes along: its numbers must follow without a gap.
                self.size -= sum(len(store[1]) for store in self.pending[:count])
                self.outcomes = self.outcomes + outcomes[:count]
                return outcome
        self.outcomes = self.outcomes + outcomes
        self.done = True
        return None
