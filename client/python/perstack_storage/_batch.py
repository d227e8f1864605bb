"""Stores that travel together, and who is told what became of them."""

from typing import Any, Protocol

from perstack_storage._errors import StorageError

Outcome = int | dict[str, Any]
"""The position of a store, or the error object of the daemon."""


class Sink(Protocol):
    """Who is told of outcomes, in the order of the numbers."""

    def settled(self, batch: "Batch") -> None:
        """All of the batch has its final outcome."""

    def abandoned(self, batch: "Batch") -> None:
        """The batch was given up."""

    def unheard(self, error: StorageError) -> None:
        """Some of it was given up while no call was there to raise the error."""


class Batch:
    """Stores with consecutive numbers that travel in one frame, or one store that travels in parts."""

    __slots__ = (
        "added_at",
        "bodies",
        "done",
        "error",
        "first",
        "items",
        "next_part",
        "ops",
        "outcomes",
        "parts",
        "sent_at",
        "sent_ever",
        "sink",
        "size",
    )

    def __init__(self, first: int, sink: Sink | None, added_at: float) -> None:
        self.first = first  # number of the first store that has no final outcome
        self.sink = sink
        self.added_at = added_at  # when its first store was called for
        self.ops: list[str] = []
        self.bodies: list[bytes] = []
        self.items: list[str] = []
        self.size = 0
        self.parts = 1
        self.next_part = 0
        self.sent_at = 0.0
        self.sent_ever = False
        self.outcomes: list[Outcome] = []
        self.done = False  # each of its stores has a final outcome
        self.error: dict[str, Any] | None = None

    def take(self, outcomes: list[Outcome]) -> dict[str, Any] | None:
        """Takes outcomes of its stores from the first on; returns the error that asks for a retry, if any."""
        for count, outcome in enumerate(outcomes):
            if type(outcome) is dict and outcome.get("retryable"):
                # What comes behind it goes along: its numbers must follow without a gap.
                self.outcomes += outcomes[:count]
                self.first += count
                self.size -= sum(map(len, self.bodies[:count]))
                del self.bodies[:count], self.items[:count]
                return outcome
        self.outcomes += outcomes
        self.done = True
        return None
