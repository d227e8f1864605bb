"""Which epoch a client saw each position in, so that a base that was put back from a copy is noticed."""

from collections.abc import Sequence
from typing import Any

from perstack_storage._core.errors import ProtocolError

_EPOCHS_MAX = 1024
_END = (0, 2**63, None)


Span = tuple[int, int, str | None]
"""Positions from the first to the last, and their epoch; None where it is not known."""


def spans_of(after: int, last: int, epoch: str | None, epochs: Any) -> list[Span]:
    """Returns the epochs of the records after `after`, up to `last`, from an answer.

    Raises:
        ProtocolError: they have another form.
    """
    if last <= after:
        return []
    if epochs is None:
        return [(after + 1, last, epoch)]
    try:
        starts = [(int(first), None if name is None else str(name)) for first, name in epochs]
    except (TypeError, ValueError) as error:
        raise ProtocolError(f"an answer has epochs in an unknown form: {error}") from None
    ends = [first - 1 for first, _ in starts[1:]] + [last]
    return [(first, end, name) for (first, name), end in zip(starts, ends, strict=True)]


def name_epochs(records: Sequence[Any], spans: Sequence[Span]) -> None:
    """Gives each record the epoch of its position, where it is known; both are in order."""
    if all(epoch is None for _, _, epoch in spans):
        return  # of a daemon that has none
    left = iter(spans)
    _, last, epoch = next(left, _END)
    for record in records:
        while record["position"] > last:
            _, last, epoch = next(left, _END)
        if epoch is not None:
            record["epoch"] = epoch


class SeenEpochs:
    """The epochs that a client saw: for each, from which position to which."""

    def __init__(self) -> None:
        self._spans: dict[str, tuple[int, int]] = {}

    def at(self, position: int) -> str | None:
        """Returns the epoch of a position; None where it was not seen."""
        for epoch, (first, last) in list(self._spans.items()):  # other threads change it
            if first <= position <= last:
                return epoch
        return None

    def note(self, spans: Sequence[Span]) -> None:
        """Remembers the epochs of an answer. They replace what was seen at the same positions before."""
        for first, last, epoch in spans:
            if epoch is not None:
                self._note(first, last, epoch)

    def _note(self, first: int, last: int, epoch: str) -> None:
        spans = self._spans
        before = spans.get(epoch)
        if before is not None and before[0] <= first and last <= before[1]:
            return
        for other, (start, end) in list(spans.items()):
            if other == epoch or end < first or start > last:
                continue
            # The histories part there: what the other one had after that is of no use.
            if start < first:
                spans[other] = (start, first - 1)
            else:
                spans.pop(other, None)
        spans.pop(epoch, None)
        spans[epoch] = (first, last) if before is None else (min(first, before[0]), max(last, before[1]))
        if len(spans) > _EPOCHS_MAX:
            spans.pop(next(iter(spans)), None)
