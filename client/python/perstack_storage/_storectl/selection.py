"""Which items of the log are shown: by type, step and text, with some around them. No I/O."""

import argparse
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from perstack_storage._storectl.folding import Item
from perstack_storage._views import wording

STEP_MAX = 2**53
_TYPES_MAX = 100
"""Types, and characters of one, that a read takes."""
_NO_RANGE = "no range of steps"


class Steps(NamedTuple):
    """A range of steps, both ends included."""

    first: int
    last: int

    @property
    def max_step(self) -> int | None:
        """The last step; None where there is no end."""
        return None if self.last >= STEP_MAX else self.last


def steps(text: str) -> Steps:
    """5, >5, >=5, <5, <=5 or 1-10.

    Raises:
        ValueError: it is none of these.
    """
    text = text.replace(" ", "")
    if text[:2] in {">=", "<="}:
        sign, bound = text[:2], _step(text[2:])
        return Steps(bound, STEP_MAX) if sign == ">=" else Steps(0, bound)
    if text[:1] in {">", "<"}:
        bound = _step(text[1:])
        return Steps(bound + 1, STEP_MAX) if text[0] == ">" else Steps(0, bound - 1)
    first, dash, last = text.partition("-")
    found = Steps(_step(first), _step(last if dash else first))
    if found.first > found.last:
        raise ValueError(_NO_RANGE)
    return found


def _step(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > len(str(STEP_MAX)):
        raise ValueError(_NO_RANGE)
    return int(text)


steps.__name__ = "step: 5, >5, <=5 or 1-10"


class Selection(NamedTuple):
    """What is wanted; of several kinds each counts, step and text count as well."""

    kinds: tuple[Callable[[Any], bool], ...]
    types: frozenset[str]
    steps: Steps | None
    text: str

    @property
    def is_all(self) -> bool:
        """Whether nothing is left out."""
        return not (self.kinds or self.types or self.steps or self.text)

    @property
    def all_types(self) -> tuple[str, ...] | None:
        """The types that may be wanted; None where that is not bounded."""
        if not (self.kinds or self.types):
            return None
        labelled = (name for name, kind in wording.KINDS.items() if kind.label in self.types)
        found = {
            *self.types,
            *labelled,
            *(name for kind in self.kinds for name in wording.TYPES_OF_KIND[kind]),
        }
        return (
            tuple(sorted(found)) if len(found) <= _TYPES_MAX and max(map(len, found)) <= _TYPES_MAX else None
        )

    def takes(self, item: Item) -> bool:
        """Whether an item is wanted."""
        event = item.event
        if self.steps is not None and not self.steps.first <= event["stepNumber"] <= self.steps.last:
            return False
        if self.kinds or self.types:
            wanted = event["type"] in self.types or wording.label_of(event["type"]) in self.types
            if not wanted and not any(kind(event) for kind in self.kinds):
                return False
        return not self.text or self.text in _searched(item)


def _searched(item: Item) -> str:
    event = item.event
    words = (item.text, item.searched, event["type"], event["runId"], event["expertKey"])
    return "\n".join(words).casefold()


def selection(given: argparse.Namespace) -> Selection:
    """The selection that the options ask for."""
    kinds = [
        kind
        for wanted, kind in (
            (given.errors, wording.is_error),
            (given.tools, wording.is_of_tools),
            (given.delegations, wording.is_of_delegations),
        )
        if wanted
    ]
    return Selection(tuple(kinds), frozenset(given.type or ()), given.step, (given.filter or "").casefold())


def with_context(items: Iterable[Item], takes: Callable[[Item], bool], around: int) -> Iterator[Item | None]:
    """The wanted items, and `around` items before and after each; None where items are left out."""
    before: deque[Item] = deque(maxlen=around)
    after = 0
    left_out = shown = False
    for item in items:
        if takes(item):
            if left_out and shown and around:
                yield None
            yield from before
            before.clear()
            yield item
            after, left_out, shown = around, False, True
        elif after:
            yield item
            after -= 1
        else:
            left_out = left_out or len(before) == around
            before.append(item)
