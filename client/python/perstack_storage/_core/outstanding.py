"""Stores that are not waited for at the call: their futures, their bound, and where failures go."""

import itertools
import logging
from collections.abc import Callable
from typing import Any

from perstack_storage._core.batch import Batch
from perstack_storage._core.conditions import refusal_of
from perstack_storage._core.errors import StorageError
from perstack_storage._core.outcomes import GivenUp

MAX_OUTSTANDING_DEFAULT = 10_000
OUTSTANDING_BYTES_MAX = 67_108_864
ERRORS_KEPT_MAX = 100

ErrorHandler = Callable[[StorageError], object]
Outcomes = list[tuple[Any, int | StorageError]]
"""Futures, of either client, each with the position or the error that it gets."""

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


class Outstanding:
    """The stores of one connection that have a future, which travels with the store; a sink of the queue.

    Attributes:
        added: number of all stores so far.
        finished: number of those that have their final outcome.
        bytes: size of the others.
    """

    def __init__(self, settings: NowaitSettings, given_up: GivenUp) -> None:
        self._settings = settings
        self._given_up = given_up
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

    def count_in(self, size: int) -> None:
        """Counts a store of `size` bytes that was queued."""
        self.added += 1
        self.bytes += size

    def settled(self, batch: Batch) -> None:
        """Takes the outcomes of a batch."""
        self._finish(batch, [])

    def abandoned(self, batch: Batch) -> None:
        """Takes note that a batch was given up."""
        left = len(batch.stores) - len(batch.outcomes)
        self._finish(batch, [self._given_up.error_of([batch], 1) for _ in range(left)])

    def unheard(self, error: StorageError) -> None:
        """Does nothing: each future has the error."""

    def report(self, error: StorageError) -> None:
        """Takes an error that no call raises."""
        self._settings.failures.report(error)

    def _finish(self, batch: Batch, given_up: list[StorageError]) -> None:
        outcomes: Outcomes = [
            (store[2], outcome if isinstance(outcome, int) else refusal_of(store[0], store[1], outcome))
            for store, outcome in zip(batch.stores, batch.outcomes, strict=False)
        ]
        outcomes += [
            (store[2], error) for store, error in zip(batch.stores[len(outcomes) :], given_up, strict=False)
        ]
        self._deliver(outcomes)
        self.finished += len(outcomes)
        self.bytes -= sum(len(store[1]) for store in batch.stores)

    def _deliver(self, outcomes: Outcomes) -> None:
        raise NotImplementedError
