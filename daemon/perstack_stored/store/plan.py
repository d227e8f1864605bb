"""What becomes of a request to store, before it is written."""

from typing import NamedTuple

from perstack_stored.errors import Refusal
from perstack_stored.journal.session import Session

from .requests import StoreRequest


class Group(NamedTuple):
    """Items of a request that became one entry: `first` and the following ones, in append number `append`."""

    append: int
    first: int


class Plan(NamedTuple):
    """A request that was admitted, and what becomes of its items."""

    request: StoreRequest
    session: Session | None
    last_before: int
    repeats: int  # items at the front that were seen before (deduplication)
    refusals: dict[int, Refusal]
    groups: list[Group]
