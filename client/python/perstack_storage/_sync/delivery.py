"""Hands outcomes to the futures of stores that were not waited for at the call."""

import concurrent.futures
import itertools
import sys
from collections.abc import Callable

from perstack_storage._core.errors import StorageError
from perstack_storage._core.outcomes import GivenUp
from perstack_storage._core.outstanding import NowaitSettings, Outcomes, Outstanding
from perstack_storage._sync.turn import Turn


class Delivery:
    """What was collected under the turn of a connection, and is handed out without it.

    Code that waits for a future, or hears of an error, may call anything. Handing out twice changes
    nothing, so what was interrupted is begun again.

    Attributes:
        collected: what waits to be handed out, by ascending numbers.
    """

    def __init__(self, report: Callable[[StorageError], None]) -> None:
        self._report = report
        self.collected: dict[int, Outcomes] = {}
        self._numbers = itertools.count()
        self._turn = Turn()

    def add(self, outcomes: Outcomes) -> None:
        """Takes outcomes, in the order in which they must be handed out."""
        self.collected[next(self._numbers)] = outcomes

    def is_mine(self) -> bool:
        """Whether the calling thread hands out, or was interrupted while it did so."""
        return self._turn.is_mine()

    def has(self, future: "concurrent.futures.Future[int] | None") -> bool:
        """Whether the outcome of a future waits to be handed out."""
        return any(other is future for outcomes in list(self.collected.values()) for other, _ in outcomes)

    def hand_out(self, *, by_all_means: bool = False) -> None:
        """Hands out what was collected.

        One thread at a time does it, so that the order is kept. It looks again after it let go, so a thread
        that found it busy can leave.

        Args:
            by_all_means: this call stands on one of the same thread that was interrupted while it handed out.
        """
        turn = self._turn
        while self.collected:
            if not turn.try_take(sys._getframe()):
                if not (by_all_means and turn.is_mine()):
                    return
                self._hand_out_all()
                return
            try:
                self._hand_out_all()
            finally:
                turn.give_back()

    def _hand_out_all(self) -> None:
        while self.collected:
            for number in list(self.collected):
                for future, outcome in self.collected.get(number, ()):
                    self._hand_out(future, outcome)
                self.collected.pop(number, None)  # only when done: an interrupt loses none

    def _hand_out(self, future: "concurrent.futures.Future[int] | None", outcome: int | StorageError) -> None:
        if future is None or future.done():
            return
        try:
            if isinstance(outcome, StorageError):
                self._report(outcome)
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
        except concurrent.futures.InvalidStateError:
            pass  # it was handed out by a signal handler meanwhile


class ThreadOutstanding(Outstanding):
    """For threads: outcomes are collected under the connection's turn and handed out without it."""

    def __init__(self, settings: NowaitSettings, given_up: GivenUp, delivery: Delivery) -> None:
        super().__init__(settings, given_up)
        self._delivery = delivery

    def _deliver(self, outcomes: Outcomes) -> None:
        self._delivery.add(outcomes)
