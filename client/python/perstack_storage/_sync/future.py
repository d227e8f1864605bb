"""The future of a store that was not waited for at the call. No interruption leaves its lock held."""

import concurrent.futures
import contextlib
import sys
import threading
import time
from collections.abc import Iterable
from types import FrameType
from typing import Any

from perstack_storage._sync.turn import Turn

_FINISHED = "FINISHED"  # as the standard library writes it
_LISTS = frozenset({"_done_callbacks", "_sleepers", "_waiters"})
_Outcome = tuple[int | None, BaseException | None]
_SLICE_S = 0.1
_MODULE = concurrent.futures.Future.result.__code__.co_filename
_LOCKS = (__file__, str(threading.__file__))


def _holder() -> FrameType:
    """Returns the frame of the method that holds a future's lock until it ends.

    That is the one that entered the condition, or the one of the standard library that it does it for:
    `wait` and `as_completed` have several futures locked at once by a method of their own.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename in _LOCKS:
        frame = frame.f_back
    while frame.f_back is not None and frame.f_back.f_code.co_filename == _MODULE:
        frame = frame.f_back
    return frame


class _Lock:
    """What a condition needs of a lock, by a turn instead: `Turn` says why."""

    __slots__ = ("_on_top", "_turn")

    def __init__(self) -> None:
        self._turn = Turn()
        self._on_top: list[None] = []  # of calls of signal handlers, which found it held below them

    def acquire(self) -> bool:
        if self._turn.take(_holder()):
            self._on_top.append(None)
        return True

    def release(self) -> None:
        if self._on_top:
            self._on_top.pop()
        else:
            self._turn.give_back()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def _release_save(self) -> int:
        """Lets it go for a wait, also for the calls below that hold it."""
        depth = len(self._on_top)
        self._on_top.clear()
        self._turn.give_back()
        return depth

    def _acquire_restore(self, depth: int) -> None:
        self._turn.take(_holder())
        self._on_top.extend([None] * depth)

    def _is_owned(self) -> bool:
        return self._turn.is_mine()


class StoreFuture(concurrent.futures.Future[int]):
    """What becomes of a store: `result()` is its position. It can't be cancelled."""

    _state, _exception, _result = "PENDING", None, None
    _sleepers: list[threading.Lock]

    def __init__(self) -> None:
        """Makes nothing: what the standard library makes here is made when it is first looked for.

        Most futures get their outcome before. `_first` says which it was: the outcome, or the condition that
        one who looked made. It is set in one step, so both sides see the same.
        """

    def __getattr__(self, name: str) -> Any:
        made: Any
        if name == "_condition":
            # The lock of the standard library stays held when an exception out of a signal handler comes
            # right after it was taken; whatever delivers the outcome would wait for it for ever.
            made = threading.Condition(_Lock())  # type: ignore[arg-type]
            first = self.__dict__.setdefault("_first", made)
            if type(first) is tuple:
                self._finish(first)
            else:
                made = first
        elif name in _LISTS:
            made = []
        else:
            raise AttributeError(f"a future has no {name}")
        return self.__dict__.setdefault(name, made)

    def result(self, timeout: float | None = None) -> int:
        """Returns the position, or raises the error of the store; TimeoutError if there is none in time."""
        self._await(timeout)
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Returns the error of the store, or None; raises TimeoutError if there is no outcome in time."""
        self._await(timeout)
        return super().exception(0)

    def done(self) -> bool:
        """Whether the outcome is there. Takes no lock: it never changes again."""
        return self._state == _FINISHED

    def set_result(self, result: int) -> None:
        """Takes the position."""
        if not self._settle((result, None)):
            super().set_result(result)
        self._wake()

    def set_exception(self, exception: BaseException | None) -> None:
        """Takes the error."""
        if not self._settle((None, exception)):
            super().set_exception(exception)
        self._wake()

    def _settle(self, outcome: _Outcome) -> bool:
        """Takes the outcome where nobody has looked yet: without a lock, and with nobody to tell."""
        first = self.__dict__.setdefault("_first", outcome)
        if first is outcome:
            self._finish(outcome)
        return first is outcome

    def _finish(self, outcome: _Outcome) -> None:
        """Any thread may do it, any number of times."""
        self._result, self._exception = outcome
        self._state = _FINISHED  # last: who sees it reads the others

    def _wake(self) -> None:
        for sleeper in list(self.__dict__.get("_sleepers", ())):
            with contextlib.suppress(RuntimeError):  # woken already
                sleeper.release()

    def _await(self, timeout: float | None) -> None:
        """Waits without the lock: what settles it may have to come by a call that stands below this one."""
        if self.done():
            return
        deadline = None if timeout is None else time.monotonic() + timeout
        sleeper = threading.Lock()
        sleeper.acquire()
        self._sleepers.append(sleeper)
        while not self.done():
            left = _SLICE_S if deadline is None else min(_SLICE_S, deadline - time.monotonic())
            if left <= 0:
                break
            sleeper.acquire(timeout=left)
        with contextlib.suppress(ValueError):
            self._sleepers.remove(sleeper)

    def cancel(self) -> bool:
        """Returns False: a store can't be called back."""
        return False


def wait_all(futures: "Iterable[concurrent.futures.Future[int]]", timeout_s: float | None) -> bool:
    """Waits until all are done, and returns whether they are.

    `concurrent.futures.wait` waits for an event whose lock a signal handler can find held below it.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    for future in futures:
        try:
            future.exception(None if deadline is None else max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            return False
    return True
