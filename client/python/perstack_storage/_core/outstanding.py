"""Stores that are not waited for at the call: their futures, their bound, and where failures go."""

import itertools
import logging
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from perstack_storage._core.batch import Batch
from perstack_storage._core.errors import StorageError, refused
from perstack_storage._core.outcomes import GivenUp
from perstack_storage._sync.delivery import Delivery
from perstack_storage._sync.future import StoreFuture

MAX_OUTSTANDING_DEFAULT = 10_000
OUTSTANDING_BYTES_MAX = 67_108_864
ERRORS_KEPT_MAX = 100

ErrorHandler = Callable[[StorageError], object]

_log = logging.getLogger("perstack_storage")


class Failures:
    """Where errors go that no call raises: to `on_error`, or into the next flush."""

    def __init__(self, on_error: ErrorHandler | None) -> None:
        self._on_error = on_error
        self._errors: list[StorageError] = []
        self._more = itertools.count()  # of those that are only counted

    def report(self, error: StorageError) -> None:
        """Takes an error."""
        if self._on_error is None:
            if len(self._errors) < ERRORS_KEPT_MAX:
                self._errors.append(error)
            else:
                next(self._more)
            return
        try:
            self._on_error(error)
        except Exception:  # noqa: BLE001 - the application's own, with no call of its own to raise it in
            _log.exception("on_error raised an exception")

    def raise_first(self) -> None:
        """Raises the first error that came in since the last time, if there was one and no `on_error`."""
        if not self._errors:
            return
        errors, self._errors = self._errors, []
        more, self._more = next(self._more), itertools.count()
        count = len(errors) + more
        if count > 1:
            errors[0].add_note(f"and {count - 1} more of the stores that nobody waited for failed")
        raise errors[0]


class NowaitSettings:
    """What the connections of a client share: the bound of each, and where errors go."""

    def __init__(self, max_outstanding: int, on_error: ErrorHandler | None) -> None:
        if max_outstanding < 1:
            raise ValueError("max_outstanding must be at least 1")
        self.max_outstanding = max_outstanding
        self.on_error = on_error
        self.failures = Failures(on_error)

    def renewed(self) -> "NowaitSettings":
        """Returns the same for another process."""
        return NowaitSettings(self.max_outstanding, self.on_error)


class _Future(Protocol):
    """What the futures of both kinds have."""

    def done(self) -> bool:
        """Whether the outcome is there, or was renounced."""


F = TypeVar("F", bound=_Future)


class Outstanding(Generic[F]):
    """The futures of the stores of one connection, in order; a sink of the queue.

    Attributes:
        added: number of all stores so far.
        finished: number of those that have their final outcome.
        bytes: size of the others.
    """

    def __init__(self, settings: NowaitSettings, given_up: GivenUp) -> None:
        self._settings = settings
        self._given_up = given_up
        self._futures: deque[tuple[F, int, bool]] = deque()
        self.added = self.finished = self.bytes = 0

    @property
    def count(self) -> int:
        """Number of stores without a final outcome."""
        return self.added - self.finished

    @property
    def full(self) -> bool:
        """Whether no more may be added before something is finished; the last one may exceed the bytes."""
        return self.count >= self._settings.max_outstanding or self.bytes >= OUTSTANDING_BYTES_MAX

    @property
    def crowded(self) -> bool:
        """Whether more than half of what there may be is outstanding."""
        return self.count > self._settings.max_outstanding / 2 or self.bytes > OUTSTANDING_BYTES_MAX / 2

    def expect(self, future: F, size: int, *, waited_for: bool = False) -> None:
        """Takes the future of the store of so many bytes that is queued next."""
        self._futures.append((future, size, waited_for))
        self.added += 1
        self.bytes += size

    def settled(self, batch: Batch) -> None:
        """Takes the outcomes of a batch."""
        for op, outcome in zip(batch.ops, batch.outcomes, strict=False):
            self._finish(outcome if isinstance(outcome, int) else refused(outcome, op=op))

    def abandoned(self, batch: Batch) -> None:
        """Takes note that a batch was given up."""
        self.settled(batch)
        for _ in batch.ops[len(batch.outcomes) :]:
            self._finish(self._given_up.error_of([batch], 1))

    def unheard(self, error: StorageError) -> None:
        """Nothing to do: each future was told."""

    def report(self, error: StorageError) -> None:
        """Takes an error that no call raises."""
        self._settings.failures.report(error)

    def _finish(self, outcome: int | StorageError) -> None:
        future, size, waited_for = self._futures.popleft()
        self.finished += 1
        self.bytes -= size
        self._resolve(future, outcome, waited_for)

    def _resolve(self, future: F, outcome: int | StorageError, _waited_for: bool, /) -> None:
        raise NotImplementedError


class ThreadOutstanding(Outstanding[StoreFuture]):
    """For threads: outcomes are collected under the connection's turn and handed out without it.

    Each store has its future with it, so no order of futures has to be kept beside that of the stores.
    """

    def __init__(self, settings: NowaitSettings, given_up: GivenUp, delivery: Delivery) -> None:
        super().__init__(settings, given_up)
        self._delivery = delivery

    def count_in(self, size: int) -> None:
        """Counts a store of so many bytes that was queued."""
        self.added += 1
        self.bytes += size

    def settled(self, batch: Batch) -> None:
        """Takes the outcomes of a batch."""
        outcomes: list[int | StorageError] = [
            outcome if isinstance(outcome, int) else refused(outcome, op=store[0])
            for store, outcome in zip(batch.stores, batch.outcomes, strict=False)
        ]
        self._take(batch, outcomes)

    def abandoned(self, batch: Batch) -> None:
        """Takes note that a batch was given up."""
        outcomes: list[int | StorageError] = [
            outcome if isinstance(outcome, int) else refused(outcome, op=store[0])
            for store, outcome in zip(batch.stores, batch.outcomes, strict=False)
        ]
        outcomes += [self._given_up.error_of([batch], 1) for _ in batch.stores[len(outcomes) :]]
        self._take(batch, outcomes)

    def _take(self, batch: Batch, outcomes: list[int | StorageError]) -> None:
        self._delivery.add(
            [(store[2], outcome) for store, outcome in zip(batch.stores, outcomes, strict=True)]
        )
        self.finished += len(outcomes)
        self.bytes -= sum(len(store[1]) for store in batch.stores)
