"""Pauses of the simulated machine: others run while the server sleeps, and nobody while it is looked at."""

import contextlib
from collections.abc import Iterator

from tests.simulation.clients import Violation
from tests.simulation.kernel import Kernel

ROUNDS_MAX = 3_000


@contextlib.contextmanager
def letting_others_run(kernel: Kernel) -> Iterator[None]:
    """While the server sleeps, everybody else runs."""
    clock, sleep = kernel.clock, kernel.clock.sleep

    def run_others(seconds: float) -> None:
        if kernel.scheduler.current is not None:
            sleep(seconds)
            return
        clock.up += seconds
        for task in list(kernel.scheduler.tasks):
            if task in kernel.scheduler.tasks:
                kernel.scheduler.run(task, 50)
        rounds.append(1)
        if len(rounds) > ROUNDS_MAX:
            raise Violation("it never becomes ready")

    rounds: list[int] = []
    clock.sleep = run_others  # type: ignore[method-assign]
    try:
        yield
    finally:
        del clock.sleep


@contextlib.contextmanager
def quiet(kernel: Kernel) -> Iterator[None]:
    """Calls of the one who checks: nothing fails, nobody else runs, nothing is counted."""
    saved = kernel.before, kernel.fault_odds, kernel.switch_odds, kernel.calls, kernel.scheduler.current
    kernel.before, kernel.fault_odds, kernel.switch_odds = (lambda _name, _tear: None), 0.0, 0.0
    kernel.scheduler.current = None
    try:
        yield
    finally:
        kernel.before, kernel.fault_odds, kernel.switch_odds, kernel.calls, kernel.scheduler.current = saved
