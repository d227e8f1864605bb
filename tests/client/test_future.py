"""The futures of stores: no interruption leaves one locked, and the standard library can wait for them."""

import concurrent.futures
import functools
import queue
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from perstack_storage import StoreFuture
from tests.client.interruptions import Steps, Stop, stop

SECONDS = 120.0


def in_a_thread(call: Callable[[], object]) -> object:
    """Makes a call in another thread, which must come to its end."""
    answers: queue.SimpleQueue[object] = queue.SimpleQueue()
    threading.Thread(target=lambda: answers.put(call()), daemon=True).start()
    return answers.get(timeout=SECONDS)


def settle(future: StoreFuture, outcome: int = 7) -> None:
    """Sets the outcome unless it is there."""
    if not future.done():
        with suppress(concurrent.futures.InvalidStateError):
            future.set_result(outcome)


CALLS: dict[str, Callable[[StoreFuture], object]] = {
    "set_result": lambda future: future.set_result(7),
    "done": StoreFuture.done,
    "add_done_callback": lambda future: future.add_done_callback(lambda _done: None),
    "result": lambda future: future.result(0.0),
}


@pytest.mark.parametrize("name", CALLS)
def test_an_exception_in_a_call_leaves_no_future_locked(name: str) -> None:
    """At any operation of the interpreter: another thread settles it, and any waiter goes on.

    CPython 3.11 keeps an exception as handled for ever where another one comes at certain operations of its
    handler: `sys.exc_info` of the thread names it from then on. So a thread that ends after the test runs it.
    """
    with concurrent.futures.ThreadPoolExecutor(1) as other:
        other.submit(_interrupt_everywhere, CALLS[name]).result()
    assert sys.exc_info()[1] is None


def _interrupt_everywhere(call: Callable[[StoreFuture], object]) -> None:
    at = 0
    steps = Steps(0, stop)
    while steps.seen >= at:
        at += 1
        future = StoreFuture()
        steps = Steps(at, stop, opcodes=True)
        with suppress(Stop, TimeoutError):
            steps.run(lambda future=future: call(future))  # type: ignore[misc]
        in_a_thread(lambda future=future: settle(future))  # type: ignore[misc]
        assert future.result(SECONDS) == 7
        assert in_a_thread(lambda future=future: future.result(SECONDS)) == 7  # type: ignore[misc]
    assert at > 5


def test_a_signal_handler_may_look_at_the_future_that_is_being_settled() -> None:
    """It stands on the call that holds the future, and must not wait for it."""
    seen: list[bool] = []
    at = 0
    steps = Steps(0, stop)
    while steps.seen >= at:
        at += 1
        future = StoreFuture()
        steps = Steps(at, lambda future=future: seen.append(future.done()))  # type: ignore[misc]
        steps.run(lambda future=future: settle(future))  # type: ignore[misc]
        assert in_a_thread(future.done)
    assert {True, False} == set(seen)


def test_the_standard_library_waits_for_it() -> None:
    """`wait`, `as_completed` and a result with a timeout."""
    futures = [StoreFuture() for _ in range(3)]
    with pytest.raises(TimeoutError):
        futures[0].result(0.01)

    def settle_all() -> None:
        for n, future in enumerate(futures):
            settle(future, n)

    settler = threading.Timer(0.05, settle_all)
    settler.start()
    assert {future.result(0) for future in concurrent.futures.as_completed(futures, SECONDS)} == {0, 1, 2}
    assert concurrent.futures.wait(futures, SECONDS).not_done == set()
    settler.join()
    assert not futures[0].cancel()


LOOKS: dict[str, Callable[[StoreFuture, list[object]], object]] = {
    "add_done_callback": lambda future, seen: future.add_done_callback(seen.append),
    "wait": lambda future, seen: seen.extend(concurrent.futures.wait([future], SECONDS).done),
    "result": lambda future, seen: seen.append(future.result(SECONDS)),
}


@pytest.mark.parametrize("settles_first", [True, False])
@pytest.mark.parametrize("name", LOOKS)
def test_a_look_while_it_is_settled_gets_the_outcome_once(name: str, settles_first: bool) -> None:
    """Either may come first, and the other at any operation of the interpreter."""
    look, at, seen_steps = LOOKS[name], 0, 0
    while seen_steps >= at:
        at += 1
        future, seen = StoreFuture(), list[object]()
        calls: list[Callable[[], object]] = [
            functools.partial(settle, future),
            functools.partial(look, future, seen),
        ]
        first, second = calls if settles_first else calls[::-1]
        other = threading.Thread(target=second, daemon=True)

        def meet(other: threading.Thread = other) -> None:
            other.start()
            other.join(0.002)  # it may have to wait for the call that is held here

        steps = Steps(at, meet, opcodes=True)
        mine = threading.Thread(target=steps.run, args=(first,), daemon=True)
        mine.start()
        if name != "add_done_callback" and not settles_first:
            mine.join(0.01)
            if steps.seen < at:  # it waits for the outcome, at a later step
                settle(future)
        mine.join(SECONDS)
        seen_steps = steps.seen
        if seen_steps < at:
            second()
        else:
            other.join(SECONDS)
        assert len(seen) == 1
        assert future.result(0) == 7
    assert at > 5
