"""Epochs: each start of a writer begins one, so two continuations of one history differ. No I/O.

A copy of a base that goes on by itself has the positions of the original, but not its epochs: each gave
the records after the copy's last position an epoch of its own, with a random name.
"""

import secrets
from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple

from . import entry_format
from .entry_format import NO_SESSION, EntryHeader, EntryType

EPOCHS_MAX = 1024
"""Count of the newest epochs that are kept; 64 KiB at the head of each segment."""
ANSWER_EPOCHS_MAX = 256
"""Epochs that an answer names: at most 15 of the 64 KiB of its header, where gaps take 36 of them."""
BEFORE_ALL = "0"
"""The epoch of records from before there were epochs."""


class Epoch(NamedTuple):
    """The records from position `first` on, until the next epoch begins."""

    first: int
    number: int
    id: bytes

    @property
    def name(self) -> str:
        """Its name on the wire; short, because an answer may have many."""
        return f"{self.number}-{self.id[:8].hex()}"


def epoch_of(header: EntryHeader) -> Epoch | None:
    """The epoch that an entry begins, if it is a mark that begins one."""
    if header.type != EntryType.MARK or header.session == NO_SESSION:
        return None
    return Epoch(header.position + 1, header.seq, header.session)


def encode_epochs(epochs: Iterable[Epoch], salt: int, time_ms: int) -> tuple[list[entry_format.Buffer], int]:
    """Encode the marks that list epochs at the head of a segment. Returns buffers and their size in bytes."""
    buffers: list[entry_format.Buffer] = []
    total = 0
    for first, number, id in epochs:
        mark, size = entry_format.encode_entry(
            salt,
            [],
            entry_format.EntryFields(first - 1, time_ms, 0, number, id, EntryType.MARK),
        )
        buffers += mark
        total += size
    return buffers, total


class Epochs:
    """The epochs of a journal, in order. An epoch without records is forgotten."""

    def __init__(self) -> None:
        self._epochs: list[Epoch] = []
        self._number = 0

    def apply(self, header: EntryHeader) -> None:
        """Apply an entry of the journal."""
        epoch = epoch_of(header)
        if epoch is not None:
            self._add(epoch)

    def begin(self, position: int) -> None:
        """Begin a new epoch after a position; epochs that would begin later are dropped."""
        self._add(Epoch(position + 1, self._number + 1, secrets.token_bytes(len(NO_SESSION))))

    def share(self, stream: bytes) -> None:
        """Be in the one epoch of a replicated log, whose id is that of the stream."""
        self._add(Epoch(1, 1, stream))

    def _add(self, epoch: Epoch) -> None:
        epochs = self._epochs
        while epochs and epochs[-1].first >= epoch.first:
            epochs.pop()
        epochs.append(epoch)
        del epochs[:-EPOCHS_MAX]
        self._number = max(self._number, epoch.number)

    def upto(self, position: int) -> list[Epoch]:
        """Epochs that begin at a position or before."""
        return self._epochs[: self._count_upto(position)]

    def after(self, position: int) -> list[Epoch]:
        """Epochs that begin after a position."""
        return self._epochs[self._count_upto(position) :]

    @property
    def newest(self) -> Epoch:
        """The epoch that is being written."""
        return self._epochs[-1]

    def at(self, position: int) -> str | None:
        """Name of the epoch in which a position was given; None if it is not known (any more)."""
        number = self._count_upto(position)
        if position < 1:
            return None
        if number:
            return self._epochs[number - 1].name
        return None if self._epochs and self._epochs[0].number > 1 else BEFORE_ALL

    def between(self, after: int, last: int) -> dict[str, object]:
        """Fields of an answer that holds the records after `after`, up to `last`.

        Of many epochs the newest are named; those of the records before them count as not known.
        """
        begun = self._epochs[self._count_upto(after + 1) : self._count_upto(last)]
        if not begun:
            return {"epoch": self.at(last)}
        named = begun[-ANSWER_EPOCHS_MAX:]
        starts = [[epoch.first, epoch.name] for epoch in named]
        before = self.at(after + 1) if len(named) == len(begun) else None
        return {"epoch": begun[-1].name, "epochs": [[after + 1, before], *starts]}

    def _count_upto(self, position: int) -> int:
        """Count of epochs that begin at a position or before."""
        return bisect_right(self._epochs, position, key=_first)


def _first(epoch: Epoch) -> int:
    return epoch.first
