"""What became of stores: of those of a pipeline, and of those that were given up; no I/O."""

from perstack_storage._core.batch import Batch
from perstack_storage._core.errors import (
    ClosedError,
    DaemonUnavailable,
    KeyRefused,
    OutcomeUnknown,
    Refused,
    StorageError,
    refused,
)
from perstack_storage._wire.keys import KEY_REFUSED


class GivenUp:
    """Which error tells what is known of stores that were given up.

    Attributes:
        closed: they were because the client was closed.
        trouble: why there was no connection, where that is known.
    """

    def __init__(self, endpoint: str, base: str | None, timeout_s: float) -> None:
        self._endpoint = endpoint
        self._base = base
        self._timeout_s = timeout_s
        self.closed = False
        self.trouble = ""

    def error_of(self, gone: list[Batch], count: int | None = None) -> StorageError:
        """Returns what to raise: for all of them, or for `count`."""
        if self.closed:
            return ClosedError("the client was closed before the store was answered: its outcome is unknown")
        if gone and gone[0].error is not None:
            return refused(gone[0].error, op=gone[0].stores[-1][0])
        if any(batch.sent_ever for batch in gone):
            count = count or sum(len(batch.pending) for batch in gone)
            return OutcomeUnknown(self._endpoint, self._timeout_s, count)
        return self.unavailable()

    def unavailable(self) -> DaemonUnavailable:
        """Returns what to raise where nothing was sent."""
        kind = KeyRefused if self.trouble == KEY_REFUSED else DaemonUnavailable
        return kind(self._endpoint, self._timeout_s, self._base, self.trouble)


class PipelineOutcomes:
    """Collects the outcomes of a pipeline, and which of its errors were raised.

    Attributes:
        positions: position of each store, in the order of the calls; None for one that was refused or given
            up. Complete after `flush` and after leaving.
        refusals: a `Refused` for each store that was refused, with its `index`.
    """

    def __init__(self) -> None:
        self.positions: list[int | None] = []
        self.refusals: list[Refused] = []
        self._raised = 0  # so many of the refusals have been raised
        self._unheard: StorageError | None = None

    def settled(self, batch: Batch) -> None:
        """Takes the outcomes of a batch; called by the connection, in the order of the stores."""
        for op, outcome in zip(batch.ops, batch.outcomes, strict=False):
            if isinstance(outcome, int):
                self.positions.append(outcome)
            else:
                self.refusals.append(refused(outcome, op=op, index=len(self.positions)))
                self.positions.append(None)

    def abandoned(self, batch: Batch) -> None:
        """Notes that a batch was given up; called by the connection."""
        self.settled(batch)
        self.positions += [None] * (len(batch.ops) - len(batch.outcomes))

    def unheard(self, error: StorageError) -> None:
        """Keeps an error for `flush`; called by the connection."""
        self._unheard = error

    def _raise_unheard(self) -> None:
        """Raises what gave stores up while no call was there to raise it."""
        unheard, self._unheard = self._unheard, None
        if unheard is not None:
            raise unheard

    def _raise_first(self) -> None:
        """Raises the first error that was not raised before."""
        self._raise_unheard()
        if self._raised < len(self.refusals):
            first = self.refusals[self._raised]
            self._raised = len(self.refusals)
            raise first
