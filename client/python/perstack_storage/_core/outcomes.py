"""What became of stores: of those of a pipeline, and of those that were given up; no I/O."""

from itertools import islice

from perstack_storage._core.batch import Batch, Outcome
from perstack_storage._core.errors import (
    ClosedError,
    DaemonUnavailable,
    KeyRefused,
    OutcomeUnknown,
    Refused,
    StorageError,
    refused,
)

KEY_REFUSED = "the daemon does not let this client's key in"
NOT_ONE = "not one of these daemons answered"


class GivenUp:
    """Chooses the error for stores that were given up.

    Attributes:
        closed: they were because the client was closed.
        trouble: why there was no connection, where that is known.
        passed_over: why a daemon of several was not used, by its endpoint.
        hopeless: the last try to connect found that no daemon can be there.
    """

    def __init__(self, endpoints: tuple[str, ...], base: str | None, timeout_s: float) -> None:
        self._endpoint = ",".join(endpoints)
        self._several = len(endpoints) > 1
        self._base = base
        self._timeout_s = timeout_s
        self.closed = False
        self.trouble = ""
        self.passed_over: dict[str, str] = {}
        self.hopeless = False

    def error_of(self, gone: list[Batch], count: int | None = None) -> StorageError:
        """Returns what to raise: for all of them, or for `count`."""
        if self.closed:
            return ClosedError("the client was closed before the store was answered: its outcome is unknown")
        if gone and gone[0].error is not None:
            return refused(gone[0].error, op=gone[0].stores[-1][0])
        if any(batch.sent_ever for batch in gone):
            count = count or sum(len(batch.pending) for batch in gone)
            return OutcomeUnknown(self._endpoint, self._timeout_s, count, self._passed_over)
        return self.unavailable()

    @property
    def _passed_over(self) -> str:
        return "; ".join(f"{where} is passed over: {why}" for where, why in list(self.passed_over.items()))

    def unavailable(self) -> DaemonUnavailable:
        """Returns what to raise where nothing was sent."""
        kind = KeyRefused if self.trouble == KEY_REFUSED else DaemonUnavailable
        trouble = self._passed_over or self.trouble or (NOT_ONE if self._several else "")
        return kind(self._endpoint, self._timeout_s, self._base, trouble, no_socket=self.hopeless)


class PipelineOutcomes:
    """Collects the outcomes of a pipeline, and which of its errors were raised."""

    def __init__(self, max_in_flight: int | None) -> None:
        if max_in_flight is not None and max_in_flight < 1:
            raise ValueError("max_in_flight must be at least 1")
        self._answered = 0  # number of stores that have an outcome
        # By the number of the first store of a batch: what comes twice, after an interruption, counts once.
        self._batches: dict[int, tuple[list[str], list[Outcome | None]]] = {}
        self._positions: list[int | None] = []
        self._refusals: list[Refused] = []
        self._flat = (0, 0, 0)  # batches that are in the two lists, and the entries of each list
        self._raised = 0  # count of refusals that have been raised
        self._refused = False
        self._unheard: StorageError | None = None

    @property
    def positions(self) -> list[int | None]:
        """The position of each store, in the order of the calls; None for one that was refused or given up.

        Complete after `flush` and after leaving.
        """
        self._flatten()
        return self._positions

    @property
    def refusals(self) -> list[Refused]:
        """A `Refused` for each store that was refused, with its `index`."""
        self._flatten()
        return self._refusals

    def settled(self, batch: Batch) -> None:
        """Takes the outcomes of a batch; called by the connection, in the order of the stores."""
        self._take(batch, list(batch.outcomes))

    def abandoned(self, batch: Batch) -> None:
        """Notes that a batch was given up; called by the connection."""
        self._take(batch, [*batch.outcomes, *[None] * (len(batch.stores) - len(batch.outcomes))])

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
        if self._refused and self._raised < len(self.refusals):
            first = self.refusals[self._raised]
            self._raised = len(self.refusals)
            raise first

    def _take(self, batch: Batch, outcomes: list[Outcome | None]) -> None:
        refused = dict in set(map(type, outcomes))
        if refused:
            self._refused = True
        taken = [store[0] for store in batch.stores] if refused else [], outcomes
        if self._batches.setdefault(batch.start, taken) is taken:
            self._answered += len(outcomes)

    def _flatten(self) -> None:
        """Brings the two lists up to date; each step may be the last one, or be done once more."""
        batches, stores, refusals = self._flat
        del self._positions[stores:], self._refusals[refusals:]
        positions: list[int | None] = []
        refused_now: list[Refused] = []
        added = list(islice(self._batches.values(), batches, None))
        for ops, outcomes in added:
            for number, outcome in enumerate(outcomes):
                if isinstance(outcome, dict):
                    refused_now.append(refused(outcome, op=ops[number], index=stores + len(positions)))
                positions.append(outcome if isinstance(outcome, int) else None)
        self._positions += positions
        self._refusals += refused_now
        batches, stores, refusals = batches + len(added), stores + len(positions), refusals + len(refused_now)
        self._flat = batches, stores, refusals
        del self._positions[stores:], self._refusals[refusals:]
